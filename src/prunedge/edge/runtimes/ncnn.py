"""ncnn on the CPU: phones and small boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.runtimes import Model
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on

MAGIC = "7767517"  # the first line of every .param
INPUT, OUTPUT = "in0", "out0"  # pnnx's names


def version() -> str:
    """Name, version and device."""
    import ncnn

    return f"ncnn {ncnn.__version__}, CPU"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in a .param file and the .bin beside it, computed in float32; it takes one image at
    a time. Denormal numbers are zeros whatever `flush` says: that is ncnn's own way.
    """
    return load_with(file, threads, is_half=False)


def load_with(file: Path, threads: int, *, is_half: bool) -> tuple[Model, list[int | str]]:
    """The same, computed in half precision where `is_half` and the processor can."""
    import ncnn

    shape = _input_shape(file)
    net = ncnn.Net()
    options = net.opt
    options.num_threads = threads
    options.use_vulkan_compute = False
    options.use_bf16_storage = False
    options.use_fp16_packed = is_half
    options.use_fp16_storage = is_half
    options.use_fp16_arithmetic = is_half
    try:
        failed = net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin")))
    except Exception as error:
        pass_on(error, where=file)
        raise _unloadable(file, " ".join(str(error).split())[:160]) from None
    if failed or INPUT not in net.input_names() or OUTPUT not in net.output_names():
        raise _unloadable(file, "it is cut off, or was made by another program")

    def model(inputs: np.ndarray) -> np.ndarray:
        return np.stack([_run(ncnn, net, image, file) for image in inputs])

    return model, ["one by one", *shape]


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """Nothing: its Python binding doesn't tell."""
    return []


def tiny_weights(file: Path) -> int | None:
    """Not known: its file doesn't say where a weight begins."""
    return None


def _run(ncnn: Any, net: Any, image: np.ndarray, file: Path) -> np.ndarray:
    """The outputs (...) float32 for an image (channels, height, width) float32."""
    extractor = net.create_extractor()
    failed = extractor.input(INPUT, ncnn.Mat(np.ascontiguousarray(image)))
    code, output = extractor.extract(OUTPUT)
    if failed or code:
        raise BundleError(
            "ncnn can't run the model",
            where=file,
            remedy="is there enough memory for it? else export the bundle again",
        )
    return np.array(output, np.float32)


def _input_shape(file: Path) -> list[int]:
    """Channels, height and width of the image that a .param file names."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        layer_count = int(lines[1].split()[0])
        named = [line.split() for line in lines[2:] if line.split()[:2] == ["Input", INPUT]]
        sizes = dict(word.split("=", 1) for word in named[0] if "=" in word)
        shape = [int(sizes[key]) for key in ("2", "1", "0")]
    except (OSError, ValueError, LookupError) as error:
        pass_on(error, where=file)
        raise _unloadable(file, "it names no input, or not its size") from None
    if lines[0] != MAGIC or len([line for line in lines[2:] if line.strip()]) != layer_count:
        raise _unloadable(file, "it is cut off, or no .param file")
    return shape


def _unloadable(file: Path, why: str) -> BundleError:
    return BundleError(
        f"ncnn can't load the model: {why}", where=file, remedy="export the bundle again"
    )
