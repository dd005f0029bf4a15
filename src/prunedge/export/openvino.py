"""OpenVINO's IR in float32."""

from __future__ import annotations

from typing import Any

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on


def write(source: Source) -> list[str]:
    """Write the IR's two files; gives their names."""
    return save(model(source), source, TARGETS["openvino"].file)


def model(source: Source) -> Any:
    """The model as an OpenVINO model."""
    import openvino

    try:
        return openvino.convert_model(source.onnx())
    except Exception as error:  # openvino raises kinds of its own
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"OpenVINO can't convert the model: {why}", remedy="leave openvino out"
        ) from error


def save(converted: Any, source: Source, name: str, *, is_half: bool = False) -> list[str]:
    """Write an OpenVINO model, with weights in half precision where `is_half`; gives the names of
    its files.
    """
    import openvino

    file = source.folder / name
    # Half-precision weights, its default, would not give torch's outputs.
    openvino.save_model(converted, file, compress_to_fp16=is_half)
    return [name, file.with_suffix(".bin").name]
