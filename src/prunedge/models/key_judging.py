"""Whether an assignment by name may stand: what is missing, foreign or of another shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunedge.models.key_modules import (
    COUNTER,
    DERIVED,
    Misfit,
    Shapes,
    common_prefix,
    is_another_head,
    modules_of,
    without_counters,
)
from prunedge.utils.wording import first_of

PRUNED = (
    "start from the weights before the pruning; or write a function(num_classes) that builds the "
    "pruned model, and give yourmodule:function as the model; models that prunedge pruned "
    "go on with --from RUN"
)


@dataclass(frozen=True)
class Attempt:
    """An assignment under one of the file's prefixes: the model's names to the file's.

    `fitting` are those of the file's that have the right shape.
    """

    prefix: str
    pairs: dict[str, str]
    fitting: frozenset[str]


def judge(
    attempt: Attempt,
    given: Shapes,
    own: Shapes,
    head: Callable[[], frozenset[str]],
    share: float,
) -> None:
    """Raise Misfit unless what is missing, foreign or of another shape belongs to heads."""
    pairs = attempt.pairs
    needed = without_counters(own)
    missing = [name for name in needed if name not in pairs and not _is_optional(name)]
    unlike = [name for name, given_name in pairs.items() if given[given_name] != own[name]]
    heads = head() if missing or unlike else frozenset()

    wrong = []
    for name in unlike:
        if name not in heads or not is_another_head(given[pairs[name]], own[name]):
            wrong.append(name)
    if _are_narrower(wrong, attempt, given, own):
        raise Misfit(_narrower(wrong, attempt, given, own), share, PRUNED)

    root = common_prefix(needed)
    filled = set()  # the model's outermost modules of which some tensor is in the file
    for name in pairs:
        if name not in unlike and not name.endswith(COUNTER):
            filled.add(_top(name, root))
    if _may_be_missing(missing, unlike, needed, heads, filled, root):
        missing = []

    foreign = _foreign(attempt, given, filled)
    faults = {
        "other shapes": _shapes(wrong, attempt, given, own),
        "missing": missing,
        "not in the model": foreign,
    }
    descriptions = [f"{title}: {first_of(names)}" for title, names in faults.items() if names]
    if descriptions:
        remedy = _renaming(missing, attempt, given, own) if missing and not wrong else ""
        raise Misfit("; ".join(descriptions), share, remedy)


def _foreign(attempt: Attempt, given: Shapes, filled: set[str]) -> list[str]:
    """The file's tensors that the model lacks, and that may not be left out."""
    used = set(attempt.pairs.values())
    foreign = []
    for name in given:
        if not name.startswith(attempt.prefix) or name in used or _is_optional(name):
            continue
        if not _may_be_left_out(_top(name, attempt.prefix), filled):
            foreign.append(name)
    return foreign


def _renaming(missing: Sequence[str], attempt: Attempt, given: Shapes, own: Shapes) -> str:
    """What to rename, where each missing module has one counterpart in the file; else ''.

    A counterpart has equal shapes, and is assigned to no other module.
    """
    used = set(attempt.pairs.values())
    free = [module for module in modules_of(given) if used.isdisjoint(module.names)]
    wanted = [module for module in modules_of(own) if not set(missing).isdisjoint(module.names)]
    counterparts: dict[str, str] = {}
    for module in wanted:
        alike = [other.name for other in free if other.signature == module.signature]
        if len(alike) != 1 or alike[0] in counterparts:
            return ""
        counterparts[alike[0]] = module.name

    given_wrapper = common_prefix([*used]).rstrip(".")
    own_wrapper = common_prefix([*attempt.pairs]).rstrip(".")
    renamed = [(given_wrapper, own_wrapper), *counterparts.items()]
    names = first_of([f"{before} to {after}" for before, after in renamed if before != after])
    return (
        f"if it is this model under other names, rename its tensors: {names}; otherwise "
        "choose the model that they were saved from"
    )


def _is_optional(name: str) -> bool:
    """Whether some versions of a model keep this tensor, and others don't."""
    return name.endswith((COUNTER, *DERIVED))


def _may_be_missing(
    missing: Sequence[str],
    unlike: Sequence[str],
    needed: Sequence[str],
    heads: frozenset[str],
    filled: set[str],
    root: str,
) -> bool:
    """Whether these are the model's head.

    The tensors that follow the classes, or whole modules behind all that is in the file.
    """
    if not missing or set(missing) == heads:
        return True
    if not heads or not heads <= {*missing, *unlike}:
        return False

    position = {name: number for number, name in enumerate(needed)}
    in_file = [position[name] for name in needed if name not in missing and name not in heads]
    if not in_file or min(position[name] for name in missing) < max(in_file):
        return False
    return filled.isdisjoint(_top(name, root) for name in missing)


def _may_be_left_out(top: str, filled: set[str]) -> bool:
    """Whether a module of the file is one that the model doesn't have.

    And not one more of a kind that it has: `layer1.2` beside `layer1.1` is a deeper model's, and
    so is `layer5` beside `layer4`.
    """
    return top not in filled and _stem(top) not in {_stem(other) for other in filled}


def _stem(top: str) -> str:
    return re.sub(r"\d+", "", top).strip("_")


def _top(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).split(".")[0]


def _are_narrower(wrong: Sequence[str], attempt: Attempt, given: Shapes, own: Shapes) -> bool:
    """Whether many layers have fewer channels than the model's, like those that were pruned."""
    if len(wrong) < 3:
        return False
    for name in wrong:
        have = given[attempt.pairs[name]]
        want = own[name]
        if len(have) != len(want):
            return False
        if any(size > full for size, full in zip(have, want, strict=True)):
            return False
    return True


def _narrower(wrong: Sequence[str], attempt: Attempt, given: Shapes, own: Shapes) -> str:
    shapes = _shapes(wrong, attempt, given, own)
    return (
        f"{len(wrong)} of {len(own)} tensors are smaller than the model's, as if it had been "
        f"pruned ({first_of(shapes, most=3)})"
    )


def _shapes(names: Sequence[str], attempt: Attempt, given: Shapes, own: Shapes) -> list[str]:
    """These tensors of the model with the file's shape and their own."""
    return [f"{name} {given[attempt.pairs[name]]} for {own[name]}" for name in names]
