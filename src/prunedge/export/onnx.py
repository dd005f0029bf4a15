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
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on

OPSET = 18


def write(source: Source) -> list[str]:
    """Write model.onnx; gives the names of the files."""
    source.onnx()
    return [TARGETS["onnx"].file]


def write_onnx(model: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
    """Write a model as ONNX, which takes images of this shape (channels, height, width);
    ExportError when torch can't.
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
        # One file, so that the bundle can be moved and checked as a whole.
        onnx.save_model(program.model_proto, str(file), save_as_external_data=False)
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
