"""What a module is pinned to: a call in its code, and sizes, factors and positions there.

A call in a module's code, and the sizes, factors and positions that it is pinned to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prunedge.graph.sizes.picks import Positions

Shape = tuple[int | None, ...]


class CodeCall(NamedTuple):
    """A call in a module's code: its place in the source text, and which passage of it (from 0)."""

    site: str
    turn: int


class Pin(NamedTuple):
    """A size in a module's code: what its code says, and what it is now.

    Where a batch is folded into it, both grow with that.
    """

    own: int
    now: int


class Pick(NamedTuple):
    """Positions that a module's code picks along a dimension of this width now.

    `said`, by what its code says (None: not known yet). A module that is called for tensors of
    several widths has a pick for each.
    """

    width: int
    now: Positions
    said: tuple[int | None, ...] | None = None


@dataclass
class Pinning:
    """What a pinned module runs with.

    `picks` holds for each call that picks positions by numbers, and each dimension (from 0) that it
    picks along and width of it, those that it is to pick; `said` what its code has said since it
    was pinned. `reads` holds for each place in its code that reads the size of channels what it is
    told there: what that was before. `turns` says for each place in its code that names sizes or
    factors how often a forward may pass there. `factors` multiply the numbers that its code has
    worked out. `wanted` are those that the factors shall make, and `open` the sizes (call, place)
    of which it is not known yet what its code says; `settle` makes the ones factors and closes the
    others. `needed` tells whether its code has ever asked for anything else.
    """

    sizes: dict[CodeCall, dict[int, Pin]]
    turns: Mapping[str, frozenset[int]]
    factors: dict[CodeCall, float] = field(default_factory=dict)
    picks: dict[CodeCall, dict[tuple[int, int], Pick]] = field(default_factory=dict)
    reads: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    wanted: dict[CodeCall, float] = field(default_factory=dict)
    open: set[tuple[CodeCall, int]] = field(default_factory=set)
    met: dict[CodeCall, set[float]] = field(default_factory=dict)
    asked: dict[tuple[CodeCall, int], int] = field(default_factory=dict)
    said: dict[tuple[CodeCall, tuple[int, int]], tuple[int | None, ...]] = field(
        default_factory=dict
    )
    needed: bool = False

    def settle(self) -> None:
        """What was met is known from now on by what it differed by.

        So what else it depends on may change.
        """
        for call, ratios in self.met.items():
            self.factors.pop(call, None)
            if len(ratios) == 1 and ratios != {1.0}:
                self.factors[call] = next(iter(ratios))
            self.wanted.pop(call, None)
        for (call, place), number in self.asked.items():
            self.sizes[call][place] = Pin(number, self.sizes[call][place].now)
            self.open.discard((call, place))
        for (call, key), said in self.said.items():
            self.picks[call][key] = self.picks[call][key]._replace(said=said)
        self.met = {}
        self.asked = {}
        self.said = {}

    def close(self) -> None:
        """No more is to be found out."""
        self.settle()
        self.wanted = {}
        self.open = set()

    def alike(self, site: str) -> bool:
        """Whether each passage there is pinned in the same way: any number of them may come."""
        passages = [self._at(CodeCall(site, turn)) for turn in range(max(self.turns[site]))]
        return all(passage == passages[0] for passage in passages)

    def _at(self, call: CodeCall) -> tuple[Any, ...]:
        wanted = self.wanted.get(call)
        number = None if wanted is None or math.isnan(wanted) else wanted
        picks = {key: pick.now for key, pick in self.picks.get(call, {}).items()}
        return dict(self.sizes.get(call, {})), self.factors.get(call, 1.0), number, picks
