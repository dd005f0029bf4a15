"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall, calls_of
from prunedge.edge.denormals import count_tiny
from prunedge.edge.runtimes import Model, at_fixed_batch, filled
from prunedge.edge.runtimes.onnx_file import float_constants
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on


def version() -> str:
    """Name, version and device."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}, CPU"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in an ONNX file."""
    session = start(file, threads, ["CPUExecutionProvider"], flush=flush)
    first = session.get_inputs()[0]

    def model(inputs: np.ndarray) -> np.ndarray:
        try:
            return session.run(None, {first.name: inputs})[0]
        # a model that asks for more memory than there is, or whose nodes don't fit each other
        except Exception as error:
            why = " ".join(str(error).split())
            is_memory = "allocate" in why or "bad_alloc" in why
            remedy = (
                "is there enough memory for it? else don't trust this bundle"
                if is_memory
                else "export the bundle again"
            )
            raise BundleError(
                f"ONNX Runtime can't run the model: {why[-160:]}", where=file, remedy=remedy
            ) from None

    shape = list(first.shape)
    return (at_fixed_batch(model, shape[0]) if isinstance(shape[0], int) else model), shape


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """What each node took in each pass, by ONNX Runtime's own profiler: in a session of its own,
    since it slows the model down.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = start(file, threads, ["CPUExecutionProvider"], Path(folder) / "profile")
        first = session.get_inputs()[0]
        inputs = filled(inputs, first.shape[0])
        name, began = first.name, perf_counter_ns()
        for _ in range(passes):
            session.run(None, {name: inputs})
        return calls_of(
            json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")), began
        )


def tiny_weights(file: Path) -> int | None:
    """How many of its constants are tiny."""
    try:
        return sum(count_tiny(values) for values in float_constants(file))
    except ValueError:  # ONNX Runtime understands the file, and we don't
        return None


def start(
    file: Path,
    threads: int,
    providers: Sequence[Any],
    profile: Path | None = None,
    *,
    flush: bool = True,
) -> Any:
    """A session of ONNX Runtime, which writes a profile beginning with that name; BundleError when
    it can't load the file, MachineError when it can't now.

    Its own threads take denormal numbers for zeros as `flush` says, the calling thread (which works
    alone where there is one thread) as the first session of the process says: that is ONNX
    Runtime's way (`session.set_denormal_as_zero`).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1" if flush else "0")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=list(providers))
        if len(session.get_inputs()) == 1 and session.get_inputs()[0].type == "tensor(float)":
            return session
        why = "it takes something else than one tensor of float32"
    except Exception as error:  # onnxruntime raises kinds of its own, none of them public
        pass_on(error, where=file)
        why = " ".join(str(error).split())[:160]
    raise BundleError(
        f"ONNX Runtime can't load the model: {why}", where=file, remedy="export the bundle again"
    )
