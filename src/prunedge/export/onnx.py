"""torch to ONNX, with a batch of any size or a fixed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.denormals import flush_onnx
from prunedge.export.quiet import quiet_torch
from prunedge.export.source import Source
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on
from prunedge.utils.wording import counted

OPSET = 18
OLDEST_OPSET = 13
LARGEST_BATCH = 1024


@dataclass(frozen=True)
class OnnxOptions:
    """What may be asked of an ONNX file: `opset` is the version of ONNX's operations, `batch` a
    fixed number of images at a time (None: any number).
    """

    opset: int = OPSET
    batch: int | None = None

    def require_possible(self) -> None:
        """ExportError where there is no such version, or no such number of images."""
        newest = _newest_opset()
        if not OLDEST_OPSET <= self.opset <= newest:
            raise ExportError(
                f"no opset {self.opset} can be written",
                where=option("opset"),
                remedy=f"give {OLDEST_OPSET} to {newest}; {OPSET} is the usual one",
            )
        if self.batch is not None and not 1 <= self.batch <= LARGEST_BATCH:
            raise ExportError(
                f"no batch of {counted(self.batch, 'image')}",
                where=option("fixed_batch"),
                remedy=f"give 1 to {LARGEST_BATCH:,}, or leave it out for any number",
            )


def _newest_opset() -> int:
    """The newest that the onnx package knows, and so every one that is released."""
    import onnx

    return onnx.defs.onnx_opset_version()


def write(source: Source) -> list[str]:
    """Write model.onnx; gives the names of the files."""
    source.onnx()
    return [TARGETS["onnx"].file]


class OnnxFile:
    """A model's float32 ONNX file, written when first asked for. `zeroed` is how many constants,
    folded of the model's weights, were tiny and became zero in it.
    """

    def __init__(
        self, model: nn.Module, file: Path, shape: tuple[int, ...], options: OnnxOptions
    ) -> None:
        self._options = options
        self._model = model
        self._file = file
        self._shape = shape
        self._is_written = False
        self.zeroed = 0

    def __call__(self) -> Path:
        """Its path."""
        if not self._is_written:
            self.zeroed = write_onnx(self._model, self._file, self._shape, self._options)
            self._is_written = True
        return self._file


def write_onnx(
    model: nn.Module,
    file: Path,
    shape: tuple[int, ...],
    options: OnnxOptions = OnnxOptions(),
) -> int:
    """Write a model as ONNX, which takes images of this shape (channels, height, width), with zeros
    in place of tiny constants; gives how many. ExportError when torch can't.
    """
    import onnx

    example = torch.zeros(options.batch or 2, *shape)
    any_number = ({0: torch.export.Dim("batch", min=1, max=65535)},)
    try:
        with quiet_torch():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=any_number if options.batch is None else None,
                input_names=["images"],
                output_names=["logits"],
                opset_version=options.opset,
                verbose=False,
            )
        assert program is not None
        exported = program.model_proto  # made anew each time that it is asked for
        zeroed = flush_onnx(exported)
        _require_opset(exported, options.opset)
        # One file, so that the bundle can be moved and checked as a whole.
        onnx.save_model(exported, str(file), save_as_external_data=False)
        return zeroed
    except ExportError:
        raise
    except Exception as error:  # torch.export raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"torch can't export the model to ONNX: {why}",
            where=type(model).__name__,
            remedy="does its forward depend on values?",
        ) from error


def _require_opset(model: Any, opset: int) -> None:
    """ExportError where the model was left in another opset: torch says no more than a warning when
    its operations have no form in an older one.
    """
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(
            f"torch can't write this model in opset {opset}",
            where=option("opset"),
            remedy=f"give {written} or more",
        )
