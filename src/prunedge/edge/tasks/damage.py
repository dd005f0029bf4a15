"""Which classes are damage and which are sound, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prunedge.errors import DataError
from prunedge.utils.advice import option

# Names of what nothing is wrong with, in the words of data sets of inspection.
SOUND = frozenset(
    {
        "ok",
        "okay",
        "good",
        "sound",
        "intact",
        "background",
        "negative",
        "neg",
        "clean",
        "healthy",
        "functional",
        "undamaged",
        "unbroken",
        "uncracked",
        "normal",
        "free",
        "fine",
        "none",
        "nothing",
        "pass",
        "passed",
        "regular",
        "flawless",
        "perfect",
        "intakt",
        "sano",
        "sain",
    }
)
NOT = frozenset({"no", "non", "not", "without", "un", "ohne", "kein", "keine", "sans", "senza"})
DAMAGE = (
    "crack",
    "damag",
    "defect",
    "corro",
    "rust",
    "fault",
    "spall",
    "broke",
    "break",
    "flaw",
    "fractur",
    "delamin",
    "dent",
    "scratch",
    "hole",
    "leak",
)


def damage_among(classes: Sequence[str], named: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes that are damage: those that a user has `named`, else those whose names don't say
    that all is well; () where that leaves all or none, so that the names don't tell.
    """
    if named:
        return tuple(name for name in classes if name in named)
    damage = tuple(name for name in classes if not is_sound(name, classes))
    return () if len(damage) == len(classes) else damage


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
            f"the model knows no class '{unknown[0]}'",
            remedy=f"{option('damage')} takes some of: {listed}",
        )
    damage = {known[name.casefold()] for name in wanted} or {
        name for name in classes if not is_sound(name, classes)
    }
    if not damage or (len(damage) == len(classes) and not may_be_all):
        how = "all classes" if damage else "none of the classes"
        verb = "count as damage" if wanted else "count as damage by their names"
        raise DataError(
            f"{how} {verb} ({listed})", remedy=f"say which do: {option('damage', 'CLASS,...')}"
        )
    return tuple(name for name in classes if name in damage)


def is_sound(name: str, classes: Sequence[str] = ()) -> bool:
    """Whether a class's name says that nothing is damaged; the other classes' names help to see a
    negation written as one word.
    """
    parts = _parts(name)
    if not parts:
        return False
    if len(parts) > 1 and (parts[0] in NOT or parts[-1] == "free"):
        rest = parts[1:] if parts[0] in NOT else parts[:-1]
        return not is_sound(" ".join(rest), classes)
    if any(part.startswith(DAMAGE) for part in parts):
        return False
    if parts[0] in NOT or any(part in SOUND for part in parts):
        return True
    others = {"".join(_parts(other)) for other in classes}
    return _is_negated(parts[0], {other for other in others if other not in SOUND})


def _parts(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("w/o", "without "))
    return [part for part in re.split(r"[\W_]+", apart.lower()) if part and not part.isdigit()]


def _is_negated(word: str, others: set[str]) -> bool:
    """noncrack, uncracked, nodefect, and nonwarp beside warp; but neither noise, uneven nor
    nonfunctional.
    """
    for negation in ("non", "not", "no", "un", "without"):
        rest = word.removeprefix(negation)
        if rest != word and (rest.startswith(DAMAGE) or (negation != "un" and rest in others)):
            return True
    return False
