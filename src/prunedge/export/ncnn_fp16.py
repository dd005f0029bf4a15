"""ncnn's .param and .bin with weights in half precision."""

from __future__ import annotations

from prunedge.edge.targets import TARGETS
from prunedge.export.ncnn import convert
from prunedge.export.source import Source


def write(source: Source) -> list[str]:
    """Write model.ncnn-fp16.param and model.ncnn-fp16.bin; gives their names."""
    return convert(source, TARGETS["ncnn-fp16"].file, is_half=True)
