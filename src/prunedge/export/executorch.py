"""ExecuTorch's .pte with XNNPACK."""

from __future__ import annotations

import contextlib
import io
import warnings

import torch

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on


def write(source: Source) -> list[str]:
    """Write model.pte, which takes one image at a time; gives the names of the files."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    name = TARGETS["executorch"].file
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(1, *source.task.image_shape)
            exported = torch.export.export(source.model, (example,))
            program = to_edge_transform_and_lower(
                exported, partitioner=[XnnpackPartitioner()]
            ).to_executorch()
        (source.folder / name).write_bytes(program.buffer)
    except Exception as error:  # executorch raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"ExecuTorch can't lower the model: {why}", remedy="leave executorch out"
        ) from error
    return [name]
