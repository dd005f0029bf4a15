"""Which groups of a plan that failed can't be proven.

Where an attempt fails says which groups to suspect: those whose channels the module there has to do
with, then those of the module around it, and so on outwards. Suspects are attempted by themselves,
and bisected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.surgery.attempts import Attempt, Attempts, without_numbers

_PATIENCE = 30  # attempts after which groups that fail together are no longer told apart


@dataclass(frozen=True)
class Search:
    """A search for the groups that are to blame for `failure`, the best attempt at the plan."""

    attempts: Attempts
    graph: ChannelGraph
    plan: Plan
    failure: Attempt

    def refused(self) -> dict[str, str]:
        """Groups that can't be proven, at least one, and why."""
        suspects_before: list[str] = []
        scope = self.failure.verdict.module or ""
        while True:
            suspects = self._touching(scope)
            fresh = [name for name in suspects if name not in suspects_before]
            if fresh:
                unproven = self._unproven(fresh)
                if unproven:
                    return {**unproven, **self._alike(unproven)}

            # Each is fine by itself: then together, the nearest ones?
            if fresh and (suspects_before or len(fresh) > 1):
                why = self._why(suspects)
                if why:
                    return dict.fromkeys(suspects, why)

            if not scope:
                return dict.fromkeys(self.plan.keep, self.failure.verdict.why)
            suspects_before = suspects
            scope = scope.rpartition(".")[0]

    def _touching(self, scope: str) -> list[str]:
        """Groups of the plan whose channels the code in this module, or inside it, meets."""
        names = [group.name for group in self.graph.groups if group.name in self.plan.keep]
        if not scope:
            return names

        def is_inside(path: str) -> bool:
            return f"{path}.".startswith(f"{scope}.")

        inside: set[str] = set()
        for group in self.graph.groups:
            if any(is_inside(piece.tensor) for piece in group.slices):
                inside.add(group.name)
        for reshape in self.graph.reshapes:
            if is_inside(reshape.module):
                inside.update(reshape.layout.names)
        for resize in self.graph.resizes:
            if is_inside(resize.module):
                for _, layout, _ in resize.sizes:
                    inside.update(layout.names)
        return [name for name in names if name in inside]

    def _unproven(self, names: list[str]) -> dict[str, str]:
        """Those of these groups that can't be proven by themselves, with the reason."""
        why = self._why(names)
        if not why:
            return {}
        if len(names) == 1 or self.attempts.count > _PATIENCE:
            return dict.fromkeys(names, why)
        half = len(names) // 2
        return {**self._unproven(names[:half]), **self._unproven(names[half:])}

    def _alike(self, unproven: Mapping[str, str]) -> dict[str, str]:
        """Groups whose name differs from an unproven group's in numbers only.

        Where the last of them fails as well, all count as unproven: the same code holds a fixed
        size in its first and its last layer, and each further proof would show the same.
        """
        alike: dict[str, str] = {}
        for name, why in unproven.items():
            family = []
            for other in self.plan.keep:
                is_known = other in unproven or other in alike
                if not is_known and without_numbers(other) == without_numbers(name):
                    family.append(other)
            if family and self._why(family[-1:]):
                alike.update(dict.fromkeys(family, why))
        return alike

    def _why(self, names: list[str]) -> str:
        """Why the plan can't be proven for these groups alone; empty where it can."""
        plan = Plan({name: self.plan.keep[name] for name in names})
        return self.attempts.attempt(plan, self.failure.strategy).verdict.why
