"""ONNX in half precision, by ONNX Runtime's own converter; it takes and gives float32."""

from __future__ import annotations

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.quiet import quiet_loggers
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on


def write(source: Source) -> list[str]:
    """Write model.fp16.onnx; gives the names of the files."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    name = TARGETS["onnx-fp16"].file
    try:
        with quiet_loggers("onnxruntime.transformers.float16"):  # of each weight that is rounded
            half = convert_float_to_float16(onnx.load(source.onnx()), keep_io_types=True)
        onnx.save_model(half, str(source.folder / name), save_as_external_data=False)
    except Exception as error:  # the converter raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"ONNX Runtime can't convert the model to half precision: {why}",
            remedy="leave onnx-fp16 out",
        ) from error
    return [name]
