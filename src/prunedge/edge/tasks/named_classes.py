"""What tasks whose labels are names of classes know of them alike; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from prunedge.edge.tasks.base import Scale


@dataclass(frozen=True)
class NamedClasses:
    """The part of `prunedge.edge.tasks.base.Targets` that follows from the names: a model has an
    output for each class, each class is a stratum, and nothing is a number.
    """

    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """None: nothing is a number."""
        return ()

    @property
    def heading(self) -> str:
        """`class`."""
        return "class"

    @property
    def strata_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes
