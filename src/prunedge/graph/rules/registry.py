"""Which rule describes an operation, and how it is run over the channels that stay.

    @rule("native_layer_norm")
    def layer_norm(labeller: Labeller, call: Call) -> None: ...

    @over("native_layer_norm")
    def layer_norm_over(call: Call, kept: Kept) -> Any: ...

Names are without library and without the underscore of the form that works in place. One that
ends with `*` stands for all that begin so; a `tag` for all operations that torch gives it. A name
goes before a beginning, and both before a tag. What no rule describes is `unknown`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from prunedge.graph.calls import Call, signature_of
from prunedge.graph.rules.common import unknown

if TYPE_CHECKING:
    from prunedge.graph.labels import Labeller

Label = Callable[["Labeller", Call], None]
Kept = Mapping[int, torch.Tensor]  # dimension of a call's first argument -> positions that stay
RunOver = Callable[[Call, Kept], Any]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Rule:
    """What an operation does to labels.

    `is_regular`: to any number of channels it does what it does to each of them, so that the graph
    of a smaller model can be derived (see `prunedge.graph.derive`).
    """

    label: Label
    is_regular: bool


@dataclass(frozen=True)
class Over:
    """How an operation that mixes channels runs over those that stay; `always`: if all do, too."""

    run: RunOver
    always: bool


class Registry(Generic[Entry]):
    """What is registered by operation."""

    def __init__(self) -> None:
        self._by_name: dict[str, Entry] = {}
        self._by_beginning: dict[str, Entry] = {}
        self._by_tag: dict[torch.Tag, Entry] = {}

    def add(self, names: tuple[str, ...], tag: torch.Tag | None, entry: Entry) -> None:
        """Register an entry; ValueError where something is registered by that name already."""
        for name in names:
            table = self._by_beginning if name.endswith("*") else self._by_name
            key = name.removesuffix("*")
            if key in table:
                raise ValueError(f"two rules are registered for the operation {name}")
            table[key] = entry
        if tag is not None:
            if tag in self._by_tag:
                raise ValueError(f"two rules are registered for {tag}")
            self._by_tag[tag] = entry

    def find(self, func: Any) -> Entry | None:
        """The entry for an overload."""
        name = signature_of(func).name
        if name in self._by_name:
            return self._by_name[name]
        for beginning, entry in self._by_beginning.items():
            if name.startswith(beginning):
                return entry
        return next((entry for tag, entry in self._by_tag.items() if tag in func.tags), None)


_RULES: Registry[Rule] = Registry()
_OVERS: Registry[Over] = Registry()
_UNKNOWN = Rule(unknown, is_regular=False)


def rule(
    *names: str, tag: torch.Tag | None = None, is_regular: bool = False
) -> Callable[[Label], Label]:
    """Register a function as the rule for these operations."""

    def register(label: Label) -> Label:
        _RULES.add(names, tag, Rule(label, is_regular))
        rule_for.cache_clear()
        return label

    return register


def over(*names: str, always: bool = False) -> Callable[[RunOver], RunOver]:
    """Register how these operations, which mix channels, run over those that stay.

    The function gives what the operation gives, with zeros in place of channels that are removed.
    """

    def register(run: RunOver) -> RunOver:
        _OVERS.add(names, None, Over(run, always))
        over_for.cache_clear()
        return run

    return register


@functools.cache
def rule_for(func: Any) -> Rule:
    """The rule for an overload of an operation."""
    return _RULES.find(func) or _UNKNOWN


@functools.cache
def over_for(func: Any) -> Over:
    """How an operation that mixes channels runs over those that stay; KeyError if not known."""
    entry = _OVERS.find(func)
    if entry is None:
        raise KeyError(f"nothing says how {func} runs over the channels that stay")
    return entry
