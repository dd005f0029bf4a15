"""Which classes of a model are damage: those that are asked for, or those whose names say it."""

from __future__ import annotations

from collections.abc import Sequence

from prunedge.edge.tasks.damage import is_sound
from prunedge.errors import DataError


def damage_classes(
    classes: Sequence[str], wanted: Sequence[str] = (), *, may_be_all: bool = False
) -> tuple[str, ...]:
    """The classes that count as damage: `wanted`, or those whose names don't say that all is well.

    Raises DataError when a wanted class isn't there, or when the names leave all or none; all
    `may_be_all` where an image can show none of them.
    """
    known = {name.casefold(): name for name in classes}
    listed = ", ".join(classes)
    if unknown := [name for name in wanted if name.casefold() not in known]:
        raise DataError(
            f"the model knows no class '{unknown[0]}'", remedy=f"--damage takes some of: {listed}"
        )
    damage = {known[name.casefold()] for name in wanted} or {
        name for name in classes if not is_sound(name, classes)
    }
    if not damage or (len(damage) == len(classes) and not may_be_all):
        how = "all classes" if damage else "none of the classes"
        verb = "count as damage" if wanted else "count as damage by their names"
        raise DataError(f"{how} {verb} ({listed})", remedy="say which do: --damage CLASS[,CLASS]")
    return tuple(name for name in classes if name in damage)
