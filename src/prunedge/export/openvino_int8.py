"""OpenVINO's IR in eight-bit integers: NNCF's post-training quantisation, calibrated on training
images.
"""

from __future__ import annotations

import contextlib
import io
import logging

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.openvino import model, save
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on


def write(source: Source) -> list[str]:
    """Write the quantised IR's two files; gives their names."""
    import nncf

    batches = source.calibration_batches()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    try:
        calibration = nncf.Dataset(batches)
        # Its bars would stand among the JSON of `prunedge export --json`.
        with contextlib.redirect_stdout(io.StringIO()):
            quantised = nncf.quantize(model(source), calibration, subset_size=len(batches))
    except Exception as error:  # nncf raises kinds of its own
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"NNCF can't quantise the model: {why}", remedy="leave openvino-int8 out"
        ) from error
    return save(quantised, source, TARGETS["openvino-int8"].file)
