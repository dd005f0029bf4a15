"""Which channels of each group stay: what scores decide, and surgery carries out. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prunedge.graph.channels import ChannelGraph
from prunedge.utils.arguments import require
from prunedge.utils.wording import counted


@dataclass(frozen=True)
class Plan:
    """For each group that loses channels, the sorted indices of those that stay.

    Groups not named keep all.
    """

    keep: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        hint = "the channels that stay of each group, by its name"
        require("keep", self.keep, Mapping, hint)
        for name, kept in self.keep.items():
            if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0:
                raise ValueError(
                    f"plan for '{name}': kept channels must be a sorted, non-empty set of indices, "
                    f"not {kept}"
                )

    def then(self, second: Plan) -> Plan:
        """The plan that does this one first, then `second`, which counts in what this one left."""
        keep = dict(self.keep)
        for name, kept in second.keep.items():
            first = keep.get(name)
            if first is not None and kept[-1] >= len(first):
                raise ValueError(
                    f"plans for '{name}' don't compose: the first leaves "
                    f"{counted(len(first), 'channel')}, "
                    f"the second keeps number {kept[-1]}"
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


def require_plan(plan: object) -> None:
    """TypeError where something else was given than a plan."""
    require("plan", plan, Plan, "a Plan, such as prunedge.choose(...) gives")
