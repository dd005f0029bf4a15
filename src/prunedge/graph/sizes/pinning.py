"""What a module is pinned to: calls in its code, and their sizes, factors and positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prunedge.graph.sizes.picks import Positions

Shape = tuple[int | None, ...]


class CodeCall(NamedTuple):
    """A call in a module's code: its site in the source text, and which passage of it (from 0)."""

    site: str
    visit: int


class Pin(NamedTuple):
    """A size in a module's code: what its code says, and what it is now.

    Where a batch is folded into it, both grow with that.
    """

    own: int
    now: int


class Pick(NamedTuple):
    """Positions that a module's code picks along a dimension of this width now.

    `literal` holds the numbers that its code names for them (None: not known yet). A module that is
    called for tensors of different widths has a pick for each.
    """

    width: int
    now: Positions
    literal: tuple[int | None, ...] | None = None


PickKey = tuple[CodeCall, tuple[int, int]]  # a call; the dimension that it picks along, its width


@dataclass
class Pinning:
    """What a pinned module runs with.

    - `sizes`: for each call, by index among the sizes that it names, the pinned size.
    - `visits`: for each site in its code that names sizes or factors, how often a forward may pass
      there.
    - `factors`: by call, what the factor that its code has worked out is multiplied by.
    - `picks`: for each call that picks positions by numbers, by dimension (from 0) and width, those
      that it is to pick.
    - `reads`: for each site in its code that reads the size of channels, by dimension and width,
      the width from before, which the code is given.
    - `wanted`: by call, the product that a factor shall come to.
    - `open`: the sizes (call, index) of which it is not known yet what the code names.
    - `met`, `asked`, `literals`: what its code has named since it was pinned. `settle` turns `met`
      and `wanted` into factors, and closes the `open` sizes that were `asked` for.
    - `needed`: whether its code has ever named anything else than what it was given.
    """

    sizes: dict[CodeCall, dict[int, Pin]]
    visits: Mapping[str, frozenset[int]]
    factors: dict[CodeCall, float] = field(default_factory=dict)
    picks: dict[CodeCall, dict[tuple[int, int], Pick]] = field(default_factory=dict)
    reads: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    wanted: dict[CodeCall, float] = field(default_factory=dict)
    open: set[tuple[CodeCall, int]] = field(default_factory=set)
    met: dict[CodeCall, set[float]] = field(default_factory=dict)
    asked: dict[tuple[CodeCall, int], int] = field(default_factory=dict)
    literals: dict[PickKey, tuple[int | None, ...]] = field(default_factory=dict)
    needed: bool = False

    def settle(self) -> None:
        """Keep of each factor that was met the ratio by which it differed from what was wanted.

        What else the factor depends on (the size of the image) may change from now on.
        """
        for call, ratios in self.met.items():
            self.factors.pop(call, None)
            if len(ratios) == 1 and ratios != {1.0}:
                self.factors[call] = next(iter(ratios))
            self.wanted.pop(call, None)
        for (call, index), number in self.asked.items():
            self.sizes[call][index] = Pin(number, self.sizes[call][index].now)
            self.open.discard((call, index))
        for (call, key), literal in self.literals.items():
            self.picks[call][key] = self.picks[call][key]._replace(literal=literal)
        self.met = {}
        self.asked = {}
        self.literals = {}

    def close(self) -> None:
        """Settle for the last time: nothing is wanted or open any more."""
        self.settle()
        self.wanted = {}
        self.open = set()

    def alike(self, site: str) -> bool:
        """Whether each passage there is pinned in the same way: any number of them may come."""
        passages = [self._at(CodeCall(site, visit)) for visit in range(max(self.visits[site]))]
        return all(passage == passages[0] for passage in passages)

    def _at(self, call: CodeCall) -> tuple[Any, ...]:
        wanted = self.wanted.get(call)
        number = None if wanted is None or math.isnan(wanted) else wanted
        picks = {key: pick.now for key, pick in self.picks.get(call, {}).items()}
        return dict(self.sizes.get(call, {})), self.factors.get(call, 1.0), number, picks
