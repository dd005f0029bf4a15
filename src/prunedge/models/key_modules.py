"""Names and shapes of a file's and a model's tensors, and the modules that hold them.

In all of `key_*`, `given` are the file's, `own` the model's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Key = tuple[str, ...]

COUNTER = "num_batches_tracked"
# Made anew from the images' size, or counted by a wrapper: some versions of a model keep these,
# others don't.
DERIVED = ("relative_position_index", "attn_mask", "position_ids", "n_averaged")


@dataclass(frozen=True)
class Match:
    """`pairs` leads from the model's names to the file's; `how` says by what.

    `fresh` names the model's tensors that keep their random start, `left_out` the file's that the
    model lacks.
    """

    pairs: dict[str, str]
    how: str
    fresh: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Misfit(Exception):
    """Why the tensors can't be assigned, in words.

    `share` is that of the model's tensors which are in the file (0: too few). `remedy` is what to
    do, where that is known.
    """

    def __init__(self, why: str, share: float = 0.0, remedy: str = "") -> None:
        super().__init__(why)
        self.share = share
        self.remedy = remedy


@dataclass(frozen=True)
class Module:
    """A module with tensors of its own.

    `short` is what of its name differs from the others' names; `tensors` are shapes by the last
    word of the tensors' names.
    """

    name: str
    short: str
    tensors: dict[str, Shape]

    @property
    def signature(self) -> frozenset[tuple[str, Shape]]:
        """What may not differ."""
        return frozenset(self.tensors.items())

    @property
    def words(self) -> Key:
        """The words of its name, in their order."""
        return tuple(re.findall(r"[a-z]+", self.short.lower()))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its name, in their order."""
        return tuple(map(int, re.findall(r"\d+", self.short)))

    @property
    def names(self) -> list[str]:
        """The whole names of its tensors."""
        return [self.name_of(kind) for kind in self.tensors]

    def name_of(self, kind: str) -> str:
        """The whole name of the tensor with this last word."""
        return f"{self.name}.{kind}" if self.name else kind


def modules_of(shapes: Shapes) -> list[Module]:
    """The modules in the order of their first tensors."""
    names = without_counters(shapes)
    tensors: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name in names:
        module, _, kind = name.rpartition(".")
        tensors[module][kind] = shapes[name]
    wrapper = common_prefix(names)
    return [Module(name, name.removeprefix(wrapper), held) for name, held in tensors.items()]


def without_counters(shapes: Shapes) -> list[str]:
    """The names, but for those of batch norms' counters."""
    return [name for name in shapes if not name.endswith(COUNTER)]


def common_prefix(names: Sequence[str]) -> str:
    """The dotted prefix that all names share."""
    prefix = ""
    while names:
        longer = prefix + names[0].removeprefix(prefix).split(".")[0] + "."
        if not all(name.startswith(longer) for name in names):
            return prefix
        prefix = longer
    return prefix


def is_another_head(given: Shape, own: Shape) -> bool:
    """Whether shapes differ in the number of classes at most."""
    return len(given) == len(own) and given[1:] == own[1:]


def nothing_shared(given: Shapes, own: Shapes) -> str:
    """What to say where the file's names and the model's share nothing."""
    if len(given) == 1:
        return (
            f"the file's only tensor is {next(iter(given))}, and the model has {len(own)}, "
            f"{next(iter(own), 'nothing')} first"
        )
    return (
        f"the file's {len(given)} tensors are not the model's: the file begins with "
        f"{next(iter(given))}, the model with {next(iter(own), 'nothing')}"
    )
