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
    modules_of,
    nothing_shared,
    without_counters,
)
from prunedge.utils.wording import first_of

Pairs = list[tuple[Module, Module]]  # the file's, the model's


def by_order(given: Shapes, own: Shapes, head: Callable[[], frozenset[str]]) -> Match:
    """Assign module by module where the names of both sides share nothing."""
    heads = head()
    given_modules = modules_of(given)
    own_modules = modules_of(own)
    final = [module for module in own_modules if not heads.isdisjoint(module.names)]
    body = [module for module in own_modules if module not in final]
    if not body or not _ascend(own_modules):
        raise Misfit(nothing_shared(given, own))
    if _keeps_module_order(given, given_modules):
        pairs = _in_sequence(given_modules, own_modules, final)
        how = "in order (names share nothing, every shape and kind agrees)"
    else:
        pairs = _in_classes(given_modules, body, final)
        how = "in the order of their numbers (names share nothing, every shape and kind agrees)"
    if pairs is None:
        raise Misfit(nothing_shared(given, own))

    loaded = {}
    for given_module, own_module in pairs:
        for kind in own_module.tensors:
            given_name = given_module.name_of(kind)
            name = own_module.name_of(kind)
            if given[given_name] == own[name]:
                loaded[name] = given_name
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
    changes = 0  # how often a name is of another module than the name before it
    owner = None
    for name in names:
        module_name = name.rpartition(".")[0]
        if module_name != owner:
            changes += 1
        owner = module_name
    if changes != len(modules) or not _ascend(modules):
        return False  # another module's tensors stand among those of a module

    has_both = False
    for module in modules:
        kinds = [*module.tensors]
        if "weight" in kinds and "bias" in kinds:
            has_both = True
            if kinds.index("bias") < kinds.index("weight"):
                return False
    if has_both:
        return True
    return names != sorted(names) and names != sorted(names, key=_natural)


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts numbers in a name by their value."""
    key = []
    for piece in re.findall(r"\d+|\D+", name):
        key.append(("", int(piece)) if piece.isdecimal() else (piece, 0))
    return tuple(key)


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
    given: Sequence[Module], own: Sequence[Module], final: Sequence[Module]
) -> Pairs | None:
    """Pairs in the order of both, with or without the model's head.

    None where a kind or a shape differs.
    """
    body = [module for module in own if module not in final]
    for wanted in (own, body):
        if len(given) != len(wanted):
            continue
        pairs = list(zip(given, wanted, strict=True))
        if all(_fits(left, right, right in final) for left, right in pairs):
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
            what = (
                f"order leads from {given.name} to {own.name}, which have one shape, and "
                "the names lead elsewhere"
            )
            raise Misfit(what, 1.0)


# -- where it does not -----------------------------------------------------------------------------


def _in_classes(
    given: Sequence[Module], body: Sequence[Module], final: Sequence[Module]
) -> Pairs | None:
    """Pairs within each set of modules of equal shapes, by their numbers.

    None where the sets differ.
    """
    given_classes = _by_signature(given)
    pairs: Pairs = []
    for signature, own_class in _by_signature(body).items():
        given_class = given_classes.pop(signature, [])
        if len(given_class) != len(own_class):
            return None
        pairs += _in_class(given_class, own_class)

    remaining: list[Module] = []
    for modules in given_classes.values():
        remaining += modules
    if not remaining:
        return pairs
    if len(remaining) != 1 or len(final) != 1 or not _is_head_of(remaining[0], final[0]):
        return None
    return [*pairs, (remaining[0], final[0])]


def _by_signature(modules: Iterable[Module]) -> dict[frozenset[tuple[str, Shape]], list[Module]]:
    classes = defaultdict(list)
    for module in modules:
        classes[module.signature].append(module)
    return dict(classes)


def _in_class(given: Sequence[Module], own: Sequence[Module]) -> Pairs:
    """Pairs of modules with equal shapes.

    Raises Misfit where names leave more than one assignment open.
    """
    if len(own) == 1:
        return [(given[0], own[0])]

    given_by_words = _by_words(given)
    own_by_words = _by_words(own)
    if len(given_by_words) == len(own_by_words) == 1:
        given_sorted = next(iter(given_by_words.values()))
        own_sorted = next(iter(own_by_words.values()))
        # With two numbers in the names on each side, under other words, nothing says which number
        # of the file counts what which number of the model counts.
        is_same = given_by_words.keys() == own_by_words.keys()
        if is_same or min(_varying(given_sorted), _varying(own_sorted)) <= 1:
            return list(zip(given_sorted, own_sorted, strict=True))
    elif _sizes(given_by_words) == _sizes(own_by_words):
        pairs: Pairs = []
        for words, own_sorted in own_by_words.items():
            pairs += zip(given_by_words[words], own_sorted, strict=True)
        return pairs

    shape = ", ".join(f"{kind} {size}" for kind, size in sorted(given[0].tensors.items()))
    in_file = first_of([module.name for module in given])
    in_model = first_of([module.name for module in own])
    raise Misfit(
        f"{len(given)} modules have the same shapes ({shape}), and names don't tell which is "
        f"which: {in_file} in the file, {in_model} in the model",
        1.0,
        "save it again as a state dict of torch (.pth), which keeps the order, or under "
        "the model's own names",
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
    varying = 0
    for index in range(longest):
        values: set[int | None] = set()
        for module in modules:
            values.add(module.numbers[index] if index < len(module.numbers) else None)
        varying += len(values) > 1
    return varying
