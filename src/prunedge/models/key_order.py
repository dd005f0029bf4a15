"""Assign a file's tensors to a model's by order, where their names share little.

Only where no other assignment of equal shapes is as good:

    file          model        both are numbered, so the k-th is the k-th of the other:
    unit.1   ---  layers.0       unit.1, unit.2, ..., unit.10, and never unit.1, unit.10, unit.2,
    unit.2   ---  layers.1       which is how safetensors lists them
    unit.10  ---  layers.9

    front    -?-  layers.0       two equal shapes with words for names: a state dict keeps the order
    back     -?-  layers.1       in which modules were made and tells; a sorted list doesn't, and is
                                 refused
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from prunedge.models.key_modules import (
    Key,
    Match,
    Misfit,
    Module,
    Shape,
    Shapes,
    is_another_head,
    listed,
    modules_of,
    nothing_shared,
    without_counters,
)

Pairs = list[tuple[Module, Module]]  # the file's, the model's


def by_order(given: Shapes, own: Shapes, head: Callable[[], frozenset[str]]) -> Match:
    """Assign module by module where the names of both sides share nothing."""
    heads = head()
    theirs = modules_of(given)
    ours = modules_of(own)
    final = [module for module in ours if not heads.isdisjoint(module.names)]
    body = [module for module in ours if module not in final]
    if not body or not _ascend(ours):
        raise Misfit(nothing_shared(given, own))
    if _keeps_module_order(given, theirs):
        pairs = _in_sequence(theirs, ours, final)
        how = "in order (names share nothing, every shape and kind agrees)"
    else:
        pairs = _in_classes(theirs, body, final)
        how = "in the order of their numbers (names share nothing, every shape and kind agrees)"
    if pairs is None:
        raise Misfit(nothing_shared(given, own))

    loaded = {}
    for their_module, our_module in pairs:
        for kind in our_module.tensors:
            theirs_name = their_module.name_of(kind)
            name = our_module.name_of(kind)
            if given[theirs_name] == own[name]:
                loaded[name] = theirs_name
    used = set(loaded.values())
    fresh = [name for name in without_counters(own) if name not in loaded]
    left_out = [name for name in without_counters(given) if name not in used]
    return Match(loaded, how, tuple(fresh), tuple(left_out))


def _keeps_module_order(shapes: Shapes, modules: Sequence[Module]) -> bool:
    """Whether the names stand as a state dict lists them, and not sorted.

    That is module by module as they were made. torch lists a module's weight before its bias, which
    no sorting does; numbers only rise.
    """
    names = without_counters(shapes)
    owners = [name.rpartition(".")[0] for name in names]
    changes = sum(one != before for before, one in zip([None, *owners], owners, strict=False))
    is_whole = changes == len(modules)  # no module is torn apart
    if not is_whole or not _ascend(modules):
        return False

    with_both = [[*module.tensors] for module in modules if {"weight", "bias"} <= {*module.tensors}]
    if any(kinds.index("bias") < kinds.index("weight") for kinds in with_both):
        return False
    if with_both:
        return True
    return names != sorted(names) and names != sorted(names, key=_natural)


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts numbers in a name by their value."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple(("", int(part)) if part.isdecimal() else (part, 0) for part in parts)


def _ascend(modules: Iterable[Module]) -> bool:
    """Whether modules that differ in numbers alone come in the order of these."""
    last: dict[Key, tuple[int, ...]] = {}
    for module in modules:
        if last.get(module.words, ()) > module.numbers:
            return False
        last[module.words] = module.numbers
    return True


# -- where the file keeps the order in which modules were made -------------------------------------


def _in_sequence(
    theirs: Sequence[Module], ours: Sequence[Module], final: Sequence[Module]
) -> Pairs | None:
    """Pairs in the order of both, with or without the model's head.

    None where a kind or a shape differs.
    """
    body = [module for module in ours if module not in final]
    for wanted in (ours, body):
        if len(theirs) != len(wanted):
            continue
        pairs = list(zip(theirs, wanted, strict=True))
        if all(_fits(given, own, own in final) for given, own in pairs):
            _refuse_crossed_words(pairs)
            return pairs
    return None


def _fits(given: Module, own: Module, is_head: bool) -> bool:
    return _is_head_of(given, own) if is_head else given.signature == own.signature


def _is_head_of(given: Module, own: Module) -> bool:
    if given.tensors.keys() != own.tensors.keys():
        return False
    return all(is_another_head(given.tensors[kind], own.tensors[kind]) for kind in own.tensors)


def _refuse_crossed_words(pairs: Pairs) -> None:
    """Raise Misfit where order pairs two equal shapes and names would pair them otherwise."""
    words: dict[frozenset[tuple[str, Shape]], set[Key]] = defaultdict(set)
    for _, own in pairs:
        words[own.signature].add(own.words)
    for given, own in pairs:
        if given.words in words[own.signature] and own.words != given.words:
            raise Misfit(
                (
                    f"order leads from {given.name} to {own.name}, which have one shape, and "
                    "the names lead elsewhere"
                ),
                1.0,
            )


# -- where it does not -----------------------------------------------------------------------------


def _in_classes(
    theirs: Sequence[Module], body: Sequence[Module], final: Sequence[Module]
) -> Pairs | None:
    """Pairs within each set of modules of equal shapes, by their numbers.

    None where the sets differ.
    """
    their_classes = _by_signature(theirs)
    pairs: Pairs = []
    for signature, ours in _by_signature(body).items():
        given = their_classes.pop(signature, [])
        if len(given) != len(ours):
            return None
        pairs += _in_class(given, ours)

    rest = [module for modules in their_classes.values() for module in modules]
    if not rest:
        return pairs
    if len(rest) != 1 or len(final) != 1 or not _is_head_of(rest[0], final[0]):
        return None
    return [*pairs, (rest[0], final[0])]


def _by_signature(modules: Iterable[Module]) -> dict[frozenset[tuple[str, Shape]], list[Module]]:
    classes = defaultdict(list)
    for module in modules:
        classes[module.signature].append(module)
    return dict(classes)


def _in_class(theirs: Sequence[Module], ours: Sequence[Module]) -> Pairs:
    """Pairs of modules with equal shapes.

    Raises Misfit where names leave more than one assignment open.
    """
    if len(ours) == 1:
        return [(theirs[0], ours[0])]
    their_words = _by_words(theirs)
    our_words = _by_words(ours)
    if len(their_words) == len(our_words) == 1:
        given = next(iter(their_words.values()))
        own = next(iter(our_words.values()))
        # Two numbers each under other words: which of theirs counts what ours count?
        is_same = their_words.keys() == our_words.keys()
        if is_same or min(_varying(given), _varying(own)) <= 1:
            return list(zip(given, own, strict=True))
    elif _sizes(their_words) == _sizes(our_words):
        pairs: Pairs = []
        for words, own in our_words.items():
            pairs += zip(their_words[words], own, strict=True)
        return pairs

    shape = ", ".join(f"{kind} {size}" for kind, size in sorted(theirs[0].tensors.items()))
    in_file = listed([module.name for module in theirs])
    in_model = listed([module.name for module in ours])
    raise Misfit(
        f"{len(theirs)} modules have the same shapes ({shape}), and names don't tell which is "
        f"which: {in_file} in the file, {in_model} in the model",
        1.0,
        (
            "save it again as a state dict of torch (.pth), which keeps the order, or under "
            "the model's own names"
        ),
    )


def _sizes(by_words: dict[Key, list[Module]]) -> dict[Key, int]:
    return {words: len(modules) for words, modules in by_words.items()}


def _by_words(modules: Iterable[Module]) -> dict[Key, list[Module]]:
    """Modules whose names differ in numbers alone, in the order of these."""
    by_words = defaultdict(list)
    for module in sorted(modules, key=lambda module: module.numbers):
        by_words[module.words].append(module)
    return dict(by_words)


def _varying(modules: Sequence[Module]) -> int:
    """How many of the numbers in these names differ between them."""
    longest = max(len(module.numbers) for module in modules)
    columns: list[set[int | None]] = [set() for _ in range(longest)]
    for module in modules:
        for place, column in enumerate(columns):
            column.add(module.numbers[place] if place < len(module.numbers) else None)
    return sum(len(column) > 1 for column in columns)
