"""In which order channels go where a cost is to be saved: how much of that each group gives. Pure.

A group's channels hold its importance, the sum of their scores. What a removal does to a group is
measured by the share that it leaves: a channel that holds a tenth of what is left weighs the same
in any group, and the more a group has lost, the dearer its next channel is. So no group is emptied
while others stay whole, which a ranking of all scores by their cost would do: VGG16, cut to a
sixty-fourth, kept 4 of the 512 channels that its widest layer reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log

import torch

from prunedge.graph import Group
from prunedge.graph.plan import Plan

# What channels cost changes with the widths around them: it is asked for anew whenever this share
# of the model's cost has been saved, or a group has lost this share of its channels.
ROUND = 0.08
SECANT = 0.25  # share of a group over which what a channel costs is taken

Portion = tuple[float, Group, list[int]]  # the mean score of these channels of the group


@dataclass
class _Left:
    """What is left of a group: its channels' portions, least important first, of which `gone` are
    removed, and its importance as a share of what it was.
    """

    group: Group
    portions: Sequence[Portion]
    shares: list[float]
    gone: int = 0
    importance: float = 1.0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.group.size

    @property
    def is_open(self) -> bool:
        """Whether it may lose another portion."""
        return self.gone < len(self.portions)

    @property
    def loss(self) -> float:
        """How much the next portion takes of the logarithm of the importance."""
        after = self.importance - self.shares[self.gone]
        return log(self.importance / after) if after > 0 else inf

    def take(self) -> Portion:
        """Remove the next portion."""
        portion = self.portions[self.gone]
        self.importance -= self.shares[self.gone]
        self.gone += 1
        self.size -= len(portion[2])
        return portion


def order_by_loss(
    portions: Sequence[Portion],
    scores: Mapping[str, torch.Tensor],
    total_cost: Callable[[Plan | None], float],
    goal: float,
) -> list[Portion]:
    """The portions that go until the model costs no more than `goal`, or none may go any more, in
    their order.

    `portions` are what the groups may lose, of each its least important first; `scores` map its
    name to the score of each of its channels, (channels,). The next portion is the one that takes
    least of the sum of the logarithms of the groups' importance for what it saves:

        log(I / (I - s)) / cost, with the importance I that is left of its group, its own s.

    It is the greedy way to the widths that keep most of the product of all groups' shares.
    """
    by_group: dict[str, list[Portion]] = {}
    for portion in portions:
        by_group.setdefault(portion[1].name, []).append(portion)
    groups = [_left(listed, scores[name]) for name, listed in by_group.items()]
    ordered: list[Portion] = []
    now = total_cost(None)
    while now > goal:
        costs = {place: _cost(groups, place, total_cost, now) for place in _open(groups)}
        if not costs:
            break
        wanted = min(ROUND * now, now - goal)
        ordered += _one_round(groups, costs, wanted)
        now = total_cost(_plan(groups))
    return ordered


def _one_round(groups: Sequence[_Left], costs: Mapping[int, float], wanted: float) -> list[Portion]:
    """The portions that save about `wanted` at these costs of a channel."""
    taken: list[Portion] = []
    saved = 0.0
    least = {place: (1 - ROUND) * groups[place].size for place in costs}
    heap = [(_price(groups[place], cost), place) for place, cost in costs.items()]
    heapq.heapify(heap)
    while heap and (saved < wanted or not taken):
        _, place = heapq.heappop(heap)
        left = groups[place]
        portion = left.take()
        taken.append(portion)
        saved += costs[place] * len(portion[2])
        if left.is_open and left.size > least[place]:
            heapq.heappush(heap, (_price(left, costs[place]), place))
    return taken


def _price(left: _Left, cost: float) -> float:
    """What the next portion takes of the group, for what it saves; what saves nothing goes last."""
    saves = cost * len(left.portions[left.gone][2])
    return left.loss / saves if saves > 0 else inf


def _left(portions: Sequence[Portion], scores: torch.Tensor) -> _Left:
    """A group of which nothing is gone. Scores below 0 are moved up until the least is 0; where all
    are the same, so are the channels.
    """
    values = scores.double()
    values = values - values.min().clamp_max(0)
    total = float(values.sum())
    if total <= 0:
        values = torch.ones_like(values)
        total = float(len(values))
    shares = [float(values[channels].sum()) / total for _, _, channels in portions]
    return _Left(portions[0][1], portions, shares)


def _open(groups: Sequence[_Left]) -> list[int]:
    return [place for place, left in enumerate(groups) if left.is_open]


def _cost(
    groups: Sequence[_Left], place: int, total_cost: Callable[[Plan | None], float], now: float
) -> float:
    """What a channel of a group costs at the moment: what a quarter of them would save, a portion
    at the least, shared among them.
    """
    left = groups[place]
    portion = len(left.portions[left.gone][2])
    fewer = min(left.size - 1, max(portion, round(SECANT * left.size)))
    if fewer < 1:
        return 0.0
    return max(0.0, now - total_cost(_plan(groups, place, fewer))) / fewer


def _plan(groups: Sequence[_Left], place: int = -1, fewer: int = 0) -> Plan:
    """The widths as they are, with `fewer` channels of the group at `place`: how many stay decides
    what a model costs, and not which.
    """
    keep = {}
    for number, left in enumerate(groups):
        size = left.size - (fewer if number == place else 0)
        if size < left.group.size:
            keep[left.group.name] = tuple(range(size))
    return Plan(keep)
