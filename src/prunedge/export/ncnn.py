"""ncnn's .param and .bin in float32, made by pnnx from TorchScript: phones and small boards."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on

LONGEST = 1800  # seconds that pnnx may take
INPUT = "in0"  # pnnx's name of the only input
# The files that pnnx writes beside ncnn's, unless it is told where.
OTHERS = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")


def write(source: Source) -> list[str]:
    """Write model.ncnn.param and model.ncnn.bin, which take one image at a time; gives their
    names.
    """
    return convert(source, TARGETS["ncnn"].file, is_half=False)


def convert(source: Source, name: str, *, is_half: bool) -> list[str]:
    """Write a .param of this name and the .bin beside it, with weights in half precision where
    `is_half`. Raises ExportError when pnnx can't, ImportError when it is not installed.
    """
    import ncnn as _  # noqa: F401  before the work: without it nothing can be compared
    import pnnx

    param = source.folder / name
    files = [name, param.with_suffix(".bin").name]
    shape = ",".join(map(str, (1, *source.task.image_shape)))
    try:
        with tempfile.TemporaryDirectory(dir=source.folder) as folder:
            traced = Path(folder, "model.pt")
            _trace(source, traced)
            words = [
                pnnx.EXEC_PATH,
                str(traced),
                f"inputshape=[{shape}]f32",
                f"fp16={int(is_half)}",
                f"ncnnparam={param}",
                f"ncnnbin={param.with_suffix('.bin')}",
                *(f"{other}={folder}/{other}" for other in OTHERS),
            ]
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LONGEST,
                check=False,
            )
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip()[-200:])
        _name_the_shape(param, source.task.image_shape)
    except Exception as error:  # torch's tracer raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"pnnx can't convert the model: {why}", remedy="leave ncnn and ncnn-fp16 out"
        ) from error
    return files


def _trace(source: Source, file: Path) -> None:
    """Write the model as TorchScript, which pnnx reads."""
    example = torch.zeros(1, *source.task.image_shape)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(source.model, example, check_trace=False).save(str(file))


def _name_the_shape(param: Path, shape: tuple[int, int, int]) -> None:
    """Give the input layer its size (0 is the width, 1 the height, 2 the channels), which pnnx
    leaves out: so a device sees what the model takes.
    """
    channels, height, width = shape
    lines = param.read_text(encoding="utf-8").splitlines()
    places = [i for i, line in enumerate(lines) if line.split()[:2] == ["Input", INPUT]]
    if len(places) != 1:
        raise RuntimeError("what it wrote has no input of that name")
    lines[places[0]] += f" 0={width} 1={height} 2={channels}"
    param.write_text("\n".join(lines) + "\n", encoding="utf-8")
