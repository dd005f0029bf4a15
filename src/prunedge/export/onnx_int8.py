"""ONNX in eight-bit integers: ONNX Runtime's own static quantisation, calibrated on training
images.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on


def write(source: Source) -> list[str]:
    """Write model.int8.onnx: weights per channel, activations per tensor, both signed; gives the
    names of the files.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = source.calibration_batches()

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self._rest, None)
            return None if images is None else {"images": images}

    name = TARGETS["onnx-int8"].file
    root = logging.getLogger()
    level = root.level
    root.setLevel(
        logging.ERROR
    )  # the quantiser warns on the root logger of what quant_pre_process has done already
    try:
        with tempfile.TemporaryDirectory(dir=source.folder) as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source.onnx()), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(source.folder / name),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            )
    except Exception as error:  # the quantiser raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"ONNX Runtime can't quantise the model: {why}", remedy="leave onnx-int8 out"
        ) from error
    finally:
        root.setLevel(level)
    return [name]
