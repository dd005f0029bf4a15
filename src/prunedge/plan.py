"""Which channels go: scores and a budget in, a `Plan` out. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import floor

import torch

from prunedge.graph import ChannelGraph
from prunedge.importance import Scores, normalised


@dataclass(frozen=True)
class Plan:
    """For each group that loses channels, the sorted indices of those that stay. Groups not named keep all."""

    keep: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        for name, kept in self.keep.items():
            if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0:
                raise ValueError(f"plan for '{name}': kept channels must be a sorted, non-empty set of indices, not {kept}")

    def then(self, second: Plan) -> Plan:
        """The plan that does this one first and `second`, which counts in what this one left, afterwards."""
        keep = dict(self.keep)
        for name, kept in second.keep.items():
            first = keep.get(name)
            if first is not None and kept[-1] >= len(first):
                raise ValueError(
                    f"plans for '{name}' don't compose: the first leaves {len(first)} channels, the second keeps number {kept[-1]}"
                )
            keep[name] = kept if first is None else tuple(first[i] for i in kept)
        return Plan(keep)

    def without(self, names: Collection[str]) -> Plan:
        """The same plan, but these groups keep all their channels."""
        return Plan({name: kept for name, kept in self.keep.items() if name not in names})

    def removes(self, graph: ChannelGraph) -> int:
        """How many channels of the graph go."""
        return sum(graph.group(name).size - len(kept) for name, kept in self.keep.items())

    def to_json(self) -> str:
        """JSON: {group: [indices that stay]}."""
        return json.dumps({name: list(kept) for name, kept in self.keep.items()})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        return cls({name: tuple(kept) for name, kept in json.loads(text).items()})


def choose(
    graph: ChannelGraph,
    scores: Scores,
    remove: float = 0.1,
    *,
    least: int = 2,
    most_of_group: float = 0.5,
    exclude: Collection[str] = (),
) -> Plan:
    """Remove the share `remove` of the graph's channels that matter least, over all groups at once.

    Scores are divided by their group's Euclidean norm first (`normalised`). A group keeps at least `least` channels, and
    loses at most the share `most_of_group` in one plan: a global ranking would otherwise empty a layer at one go. Groups in
    `exclude` keep all. At least one channel goes if any may; a plan that removes nothing has an empty `keep`.
    Equal scores go in the graph's order, so that the same scores always make the same plan. ValueError when
    `remove` lies outside (0, 1).
    """
    if not 0 < remove < 1:
        raise ValueError(f"remove must lie between 0 and 1, not {remove}")
    values = normalised({group.name: scores.values[group.name] for group in graph.groups})
    open_groups = [group for group in graph.groups if group.name not in exclude]
    room = {g.name: min(g.size - min(least, g.size), max(1, floor(most_of_group * g.size))) for g in open_groups}
    wanted = max(1, round(remove * sum(group.size for group in open_groups)))
    ranked = sorted(
        (float(value), place, channel, group.name)
        for place, group in enumerate(open_groups)
        for channel, value in enumerate(values[group.name].tolist())
    )
    gone: dict[str, list[int]] = {}
    for _, _, channel, name in ranked:
        if wanted == 0:
            break
        if room[name] > 0:
            gone.setdefault(name, []).append(channel)
            room[name] -= 1
            wanted -= 1
    return Plan({name: _rest(graph.group(name).size, out) for name, out in gone.items()})


def random_plan(graph: ChannelGraph, share: float, generator: torch.Generator, *, least: int = 1) -> Plan:
    """Remove the share `share` of every group, drawn at random; every group keeps at least `least` channels (or all it has)."""
    keep: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        stay = min(group.size, max(least, round(group.size * (1 - share))))
        if stay < group.size:
            keep[group.name] = tuple(sorted(torch.randperm(group.size, generator=generator)[:stay].tolist()))
    return Plan(keep)


def _rest(size: int, out: Collection[int]) -> tuple[int, ...]:
    return tuple(sorted(set(range(size)) - set(out)))
