"""OpenVINO's IR with weights in half precision: half the file, for processors with half-precision
arithmetic and Intel's graphics.
"""

from __future__ import annotations

from prunedge.edge.targets import TARGETS
from prunedge.export.openvino import model, save
from prunedge.export.source import Source


def write(source: Source) -> list[str]:
    """Write the IR's two files; gives their names."""
    return save(model(source), source, TARGETS["openvino-fp16"].file, is_half=True)
