"""Any model to ONNX with its example, and whether the file answers as torch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.edge.targets import ONNX, TOLERANCE
from prunedge.errors import ExportError
from prunedge.export.onnx import OPSET
from prunedge.export.quiet import quiet_torch
from prunedge.graph import call
from prunedge.graph.inputs import batch_of, tensors_of
from prunedge.utils.machine import pass_on

SAME = 0.999  # of the whole numbers and yes-or-nos of an answer, which a tie may turn


@dataclass(frozen=True)
class Input:
    """What a model that was exported takes: its name, kind, and shape; None where any size will
    do.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def takes(self, tensor: torch.Tensor, like: torch.Tensor) -> bool:
        """Whether it takes a tensor; `like` is the one of the example."""
        sizes = zip(tensor.shape, self.shape, strict=False)
        fits = all(wanted is None or have == wanted for have, wanted in sizes)
        return fits and tensor.dim() == len(self.shape) and tensor.dtype == like.dtype


@dataclass(frozen=True)
class Compared:
    """How a file answers beside torch, over so many `calls` of `examples` in all: the largest
    absolute difference, and the largest beside the largest number of its tensor.
    """

    calls: int
    examples: int
    largest_difference: float
    relative_difference: float


def write_any(model: nn.Module, example: Any, file: Path) -> None:
    """Write a model as ONNX that takes what `example` is like: a batch, a tuple or a mapping of
    arguments. The first dimension is free wherever the model lets it; ExportError when torch can't.
    """
    import onnx

    example = _of_two(example)
    batch = batch_of(example)

    def freed(leaf: Any) -> Any:
        is_batch = isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch
        return {0: torch.export.Dim.AUTO} if is_batch else None

    shapes = tree_map(freed, example)
    args: tuple[Any, ...] = (example,)
    kwargs: dict[str, Any] = {}
    dynamic: Any = (shapes,)
    if isinstance(example, Mapping):
        args, kwargs, dynamic = (), dict(example), dict(shapes)
    elif isinstance(example, tuple):
        args, dynamic = example, tuple(shapes)
    try:
        with quiet_torch(), torch.no_grad():
            program = torch.onnx.export(
                model,
                args,
                kwargs=kwargs,
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        onnx.save_model(program.model_proto, str(file), save_as_external_data=False)
    except Exception as error:  # torch.export raises many kinds
        pass_on(error)
        raise ExportError(
            f"torch can't export the model to ONNX: {' '.join(str(error).split())[:200]}",
            where=type(model).__name__,
            remedy="does its forward depend on values?",
        ) from error


def _of_two(example: Any) -> Any:
    """The example with two examples where it has one: torch takes a single one for a number that
    never changes.
    """
    if batch_of(example) != 1:
        return example

    def doubled(leaf: Any) -> Any:
        is_batch = isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == 1
        return torch.cat([leaf, leaf]) if is_batch else leaf

    return tree_map(doubled, example)


class OnnxFile:
    """An ONNX file that is run by ONNX Runtime."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = tuple(_input(each) for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def takes(self, given: Any, example: Any) -> bool:
        """Whether it takes these arguments: they are like the example but for the free sizes."""
        is_named = isinstance(example, Mapping)
        if is_named != isinstance(given, Mapping) or (is_named and example.keys() != given.keys()):
            return False
        tensors = self._fed(given)
        likes = self._fed(example)
        if not len(tensors) == len(likes) == len(self.inputs):
            return False
        pairs = zip(self.inputs, tensors, likes, strict=True)
        return all(each.takes(tensor, like) for each, tensor, like in pairs)

    def __call__(self, given: Any) -> list[np.ndarray]:
        """Its answers, a list of arrays."""
        arrays = [tensor.detach().cpu().numpy() for tensor in self._fed(given)]
        names = [each.name for each in self.inputs]
        answers: list[np.ndarray] = self._session.run(None, dict(zip(names, arrays, strict=True)))
        return answers

    def _fed(self, given: Any) -> list[torch.Tensor]:
        """The tensors for its inputs, in their order: by their names where the arguments have
        some.
        """
        names = [each.name for each in self.inputs]
        if isinstance(given, Mapping) and all(name in given for name in names):
            return [given[name] for name in names]
        return tensors_of(given)


def _input(described: Any) -> Input:
    shape = tuple(size if isinstance(size, int) else None for size in described.shape)
    return Input(described.name, described.type, shape)


def compare_with_torch(file: OnnxFile, model: nn.Module, calls: Sequence[Any]) -> Compared:
    """Both on the same arguments; ExportError where an answer differs by more than 1e-3 of its
    largest number, or has another shape.
    """
    largest = 0.0
    relative = 0.0
    for given in calls:
        with torch.no_grad():
            wanted = [tensor.cpu().numpy() for tensor in tensors_of(call(model, given))]
        found = file(given)
        if [x.shape for x in found] != [x.shape for x in wanted]:
            raise _differs(f"gives {len(found)} arrays of other shapes than torch's {len(wanted)}")
        for have, want in zip(found, wanted, strict=True):
            if not np.issubdtype(want.dtype, np.floating):
                if want.size and float(np.mean(have == want)) < SAME:
                    raise _differs("gives other whole numbers than torch")
                continue
            difference = float(np.abs(have - want).max(initial=0.0))
            beside = difference / max(float(np.abs(want).max(initial=0.0)), 1e-12)
            if not beside <= TOLERANCE:  # also where it is no number
                raise _differs(f"differs from torch by {difference:.2e}")
            largest = max(largest, difference)
            relative = max(relative, beside)
    return Compared(len(calls), sum(batch_of(given) for given in calls), largest, relative)


def _differs(what: str) -> ExportError:
    return ExportError(
        f"the exported model {what}", where=ONNX.file, remedy="report this model to prunedge"
    )
