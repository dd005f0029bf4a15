"""torch to ONNX with a dynamic batch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.denormals import flush_onnx
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on

OPSET = 18


def write(source: Source) -> list[str]:
    """Write model.onnx; gives the names of the files."""
    source.onnx()
    return [TARGETS["onnx"].file]


class OnnxFile:
    """A model's float32 ONNX file, written when first asked for. `zeroed` is how many constants,
    folded of the model's weights, were tiny and became zero in it.
    """

    def __init__(self, model: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
        self._model = model
        self._file = file
        self._shape = shape
        self._is_written = False
        self.zeroed = 0

    def __call__(self) -> Path:
        """Its path."""
        if not self._is_written:
            self.zeroed = write_onnx(self._model, self._file, self._shape)
            self._is_written = True
        return self._file


def write_onnx(model: nn.Module, file: Path, shape: tuple[int, ...]) -> int:
    """Write a model as ONNX, which takes images of this shape (channels, height, width), with zeros
    in place of tiny constants; gives how many. ExportError when torch can't.
    """
    import onnx

    example = torch.zeros(2, *shape)
    talk = io.StringIO()
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(talk), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65535)},),
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        exported = program.model_proto  # made anew each time that it is asked for
        zeroed = flush_onnx(exported)
        # One file, so that the bundle can be moved and checked as a whole.
        onnx.save_model(exported, str(file), save_as_external_data=False)
        return zeroed
    except Exception as error:  # torch.export raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"torch can't export the model to ONNX: {why}",
            where=type(model).__name__,
            remedy="does its forward depend on values?",
        ) from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
