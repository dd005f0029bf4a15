"""torch's own exported program, a .pt2: for programs that have torch, its compilers and servers."""

from __future__ import annotations

import warnings

import torch

from prunedge.edge.targets import TARGETS
from prunedge.errors import ExportError
from prunedge.export.source import Source
from prunedge.utils.machine import pass_on

# What torch notes of each operation for its developers: paths of this machine, for one.
OF_THIS_MACHINE = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")


def write(source: Source) -> list[str]:
    """Write model.pt2, which takes one image at a time; gives the names of the files."""
    name = TARGETS["torch-export"].file
    example = torch.zeros(1, *source.task.image_shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(source.model, (example,))
            for node in program.graph.nodes:
                for key in OF_THIS_MACHINE:
                    node.meta.pop(key, None)
            program.example_inputs = None  # the one thing in the file that would be a pickle
            torch.export.save(program, source.folder / name)
    except Exception as error:  # torch.export raises many kinds
        pass_on(error)
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"torch can't export the model: {why}", remedy="leave torch-export out"
        ) from error
    return [name]
