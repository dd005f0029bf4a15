"""One call of an operation, as a rule reads it: its arguments by the names of its schema.

`addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1)` is read as
`call["mat1"]`, wherever the argument stood in the call and whether it was left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prunedge.graph.inputs import tensors_of


@dataclass(frozen=True)
class Signature:
    """What all calls of an overload have in common.

    `name` is without library, overload, and the underscore of the form that works in place:
    `relu` for `aten::relu_`. `text` is how torch prints the overload, `aten.relu_.default`.
    """

    name: str
    text: str
    is_in_place: bool
    positions: Mapping[str, int]
    defaults: Mapping[str, Any]

    @property
    def spelled(self) -> str:
        """The name with the underscore of the form that works in place."""
        return f"{self.name}_" if self.is_in_place else self.name


@functools.cache
def signature_of(func: Any) -> Signature:
    """The signature of an overload, made once for each."""
    schema = func._schema
    spelled = schema.name.split("::")[1]
    is_in_place = spelled.endswith("_") and not spelled.endswith("__")
    positions = {}
    defaults = {}
    for position, argument in enumerate(schema.arguments):
        positions[argument.name] = position
        if argument.has_default_value():
            defaults[argument.name] = argument.default_value
    return Signature(
        name=spelled[:-1] if is_in_place else spelled,
        text=str(func),
        is_in_place=is_in_place,
        positions=positions,
        defaults=defaults,
    )


@dataclass(frozen=True)
class Call:
    """An operation, its arguments and what it gave; `tensors` are those among its arguments."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    tensors: list[torch.Tensor]
    results: list[torch.Tensor]
    signature: Signature

    @classmethod
    def of(
        cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any = None
    ) -> Call:
        """The call as a dispatch mode sees it."""
        tensors = tensors_of((args, kwargs))
        return cls(func, args, kwargs, out, tensors, tensors_of(out), signature_of(func))

    def __getitem__(self, argument: str) -> Any:
        """An argument by name, its default where the call leaves it out; KeyError for another."""
        position = self.signature.positions[argument]
        if position < len(self.args):
            return self.args[position]
        if argument in self.kwargs:
            return self.kwargs[argument]
        return self.signature.defaults[argument]

    def get(self, argument: str) -> Any:
        """The same, but None where this operation has no such argument."""
        return self[argument] if argument in self.signature.positions else None

    @property
    def name(self) -> str:
        """The operation's name, the same for the form that works in place."""
        return self.signature.name

    @property
    def is_in_place(self) -> bool:
        """Whether the operation writes into its first argument and gives it back."""
        return self.signature.is_in_place

    @property
    def input(self) -> Any:
        """The first argument, which most operations work on."""
        return self.args[0]

    @property
    def result(self) -> torch.Tensor:
        """The first tensor that it gave."""
        return self.results[0]

    def again(self, x: torch.Tensor) -> Any:
        """The same operation with the same arguments, done to another tensor."""
        return self.func(x, *self.args[1:], **self.kwargs)
