"""ONNX in eight-bit integers: ONNX Runtime's own static quantisation, calibrated on training
images; layers that suffer most from it go back to float where the whole would lose too much.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge.runtimes.onnx import load
from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.quiet import quiet_loggers
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on

NAME = TARGETS["onnx-int8"].file
SHOWN = 16  # training images that show how much an answer changes by one layer in integers


def write(source: Source) -> list[str]:
    """Write model.int8.onnx: weights per channel, activations per tensor, both signed; gives the
    names of the files.
    """
    with _quantiser(source) as quantiser:
        quantiser.write(source.folder / NAME)
    return [NAME]


def mixed(source: Source) -> Iterator[list[str]]:
    """Write model.int8.onnx anew with one more layer in float each time, the most sensitive first,
    and give the names of those that are: of their weights, or of their operations where they have
    none. Ends when a single layer would be left in integers.

    A layer is as sensitive as the squared difference of the outputs (summed over images) is large
    when it is the only one in integers.
    """
    with _quantiser(source) as quantiser:
        layers = quantiser.layers()
        errors = {node: quantiser.error_of(node) for node in layers}
        ranked = sorted(layers, key=lambda node: -errors[node])
        for count in range(1, len(ranked)):
            chosen = ranked[:count]
            quantiser.write(source.folder / NAME, but=chosen)
            yield [layers[node] for node in chosen]


class _Quantiser:
    """Writes one model in integers, all layers or some, in a folder for what lies between."""

    def __init__(self, source: Source, folder: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._batches = source.calibration_batches()
        self._prepared = folder / "prepared.onnx"
        self._ranges = folder / "ranges.json"
        self._single = folder / "single.onnx"
        self._wanted: list[np.ndarray] = []
        quant_pre_process(str(source.onnx()), str(self._prepared), skip_symbolic_shape=True)

    def layers(self) -> dict[str, str]:
        """The nodes that integers can take the place of, by their names in the file: what each is
        called, which is the name of its weights where it has any.
        """
        import onnx
        from onnxruntime.quantization.registry import QDQRegistry

        graph = onnx.load(self._prepared).graph
        weights = {tensor.name for tensor in graph.initializer}
        layers = {}
        for node in graph.node:
            if node.op_type in QDQRegistry:
                own = [name for name in node.input[1:2] if name in weights]
                layers[node.name] = own[0].removesuffix(".weight") if own else node.name
        return layers

    def error_of(self, node: str) -> float:
        """How far the outputs for a few images are from the float model's, squared, with this node
        alone in integers.
        """
        shown = self._batches[: max(1, SHOWN // len(self._batches[0]))]
        if not self._wanted:
            model, _ = load(self._prepared, 1)
            self._wanted = [model(batch) for batch in shown]
        self.write(self._single, only=[node])
        model, _ = load(self._single, 1)
        error = 0.0
        for batch, wanted in zip(shown, self._wanted, strict=True):
            error += float(np.square(model(batch) - wanted).sum())
        return error

    def write(self, file: Path, but: Sequence[str] = (), only: Sequence[str] = ()) -> None:
        """Write the model with all layers in integers, `but` some, or `only` some."""
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        more: dict[str, Any] = {}
        # Of the ONNX Runtimes that are allowed, the older ones have no cache and calibrate anew.
        if "calibration_cache_path" in inspect.signature(quantize_static).parameters:
            more["calibration_cache_path"] = str(self._ranges)
        quantize_static(
            str(self._prepared),
            str(file),
            _reader(self._batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(but),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            **more,
        )


@contextmanager
def _quantiser(source: Source) -> Iterator[_Quantiser]:
    """A quantiser whose failures are ExportErrors."""
    try:
        # It warns on the root logger of what quant_pre_process has done already.
        with quiet_loggers(""), tempfile.TemporaryDirectory(dir=source.folder) as folder:
            yield _Quantiser(source, Path(folder))
    except ExportError:
        raise
    except Exception as error:  # the quantiser raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"ONNX Runtime can't quantise the model: {why}", remedy="leave onnx-int8 out"
        ) from error


def _reader(batches: Sequence[np.ndarray]) -> Any:
    """What the quantiser asks for training images, batch by batch."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self._rest, None)
            return None if images is None else {"images": images}

    return Reader()
