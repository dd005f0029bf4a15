"""Which of a file's tensors belongs to which of a network's: names first, then order where it can't mislead. Pure.

Names are compared without what wraps the network (`module.`, `encoder_q.`), then by their words and numbers (`norm.1` is `norm1`),
then with numbers that begin at 0 instead of 1. Only where names share little does order count, and only where no other assignment of
equal shapes is as good:

    file          network        both are numbered, so the k-th of one kind is the k-th of the other:
    unit.1   ---  layers.0       unit.1, unit.2, ..., unit.10, and never unit.1, unit.10, unit.2,
    unit.2   ---  layers.1       which is how safetensors lists them
    unit.10  ---  layers.9

    front    -?-  layers.0       two equal shapes with words for names: a state dict keeps the order in which
    back     -?-  layers.1       modules were made and tells; a sorted list doesn't, and is refused
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Key = tuple[str, ...]

COUNTER = "num_batches_tracked"
# Made anew from the pictures' size, or counted by a wrapper: some versions of a network keep these, others don't.
DERIVED = ("relative_position_index", "attn_mask", "position_ids", "n_averaged")
# Of two copies of a network in one file, the one that its authors use.
MEANT = frozenset({"teacher", "ema", "q", "query", "online"})
COPIES = frozenset({"student", "k", "key", "target", "momentum"})
DEEPEST = 4  # names of wrappers before a network's own
SHOWN = 8


@dataclass(frozen=True)
class Match:
    """`pairs` leads from the network's names to the file's; `how` says by what.

    `fresh` names the network's tensors that keep their random start, `left_out` the file's that have no place.
    """

    pairs: dict[str, str]
    how: str
    fresh: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Misfit(Exception):
    """Why the tensors can't be assigned, in words; `share` of the network's tensors were found all the same (0: too few).

    `remedy` is what to do, where that is known.
    """

    def __init__(self, why: str, share: float = 0.0, remedy: str = "") -> None:
        super().__init__(why)
        self.share, self.remedy = share, remedy


def match(theirs: Shapes, own: Shapes, head: Callable[[], frozenset[str]]) -> Match:
    """Assign the tensors of a file to those of a network, both by name with their shapes.

    `head()` names the network's tensors whose shape follows the number of classes: they may be missing or of another first dimension, and
    stay random then. So may whole modules behind all that was found. The file's tensors outside the network, and heads in the place of the
    network's own, are left out. Raises Misfit for anything else.
    """
    faults = []
    for make, how in ((_exact, "by name"), (_tokens, "by the words and numbers of their names"), *_shifts(theirs, own)):
        try:
            return _by_names(theirs, own, head, make, how)
        except Misfit as fault:
            faults.append(fault)
    nearest = max(faults, key=lambda fault: fault.share)
    if nearest.share:
        raise nearest
    return _by_order(theirs, own, head)


# Names


Maker = Callable[[str, bool], Key]  # a name (and whether it is the file's) -> what is compared


def _exact(name: str, is_theirs: bool) -> Key:
    return tuple(name.split("."))


def _tokens(name: str, is_theirs: bool) -> Key:
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


def _shifts(theirs: Shapes, own: Shapes) -> list[tuple[Maker, str]]:
    """The same with the file's first numbers one lower or higher, where one side counts from 0 and the other from 1."""

    def shifted(by: int) -> Maker:
        def make(name: str, is_theirs: bool) -> Key:
            found = _tokens(name, is_theirs)
            place = next((i for i, token in enumerate(found) if token.isdecimal()), None)
            if place is None or not is_theirs:
                return found
            return (*found[:place], str(int(found[place]) + by), *found[place + 1 :])

        return make

    return [(shifted(by), f"by name, numbers {by:+d}") for by in (-1, 1)]


@dataclass(frozen=True)
class _Try:
    """A way to strip both sides of what wraps the network: own names to the file's."""

    prefix: str
    pairs: dict[str, str]
    taken: frozenset[str]  # those of the file's that have the right shape


def _by_names(theirs: Shapes, own: Shapes, head: Callable[[], frozenset[str]], make: Maker, how: str) -> Match:
    needed = [name for name in own if not name.endswith(COUNTER)]
    tries = [one for inner in _own_prefixes(needed) for one in _tries(theirs, own, inner, make)]
    named = [one for one in tries if 2 * len(one.pairs) > len(needed)]
    if not named:
        raise Misfit(_nothing(theirs, own))
    most = max(len(one.taken) for one in named)
    best = [one for one in named if len(one.taken) == most]
    rank = min(_meant(one.prefix) for one in best)
    chosen = [one for one in best if _meant(one.prefix) == rank]
    if len({one.taken for one in chosen}) > 1:
        names = " and ".join(f"'{prefix}'" for prefix in dict.fromkeys(one.prefix for one in chosen))
        raise Misfit(f"the file holds the network more than once, under {names}", 1.0, "save the one that is meant alone")
    best_one = max(chosen, key=lambda one: (len(one.pairs), -len(one.prefix)))
    _judge(best_one, theirs, own, head, len(best_one.pairs) / len(needed))
    loaded = {ours: name for ours, name in best_one.pairs.items() if theirs[name] == own[ours]}
    used = set(best_one.pairs.values())
    fresh = tuple(name for name in needed if name not in loaded and not name.endswith(DERIVED))
    left = tuple(name for name in theirs if name not in used and not name.endswith(COUNTER))
    said = f"{how} without '{best_one.prefix}'" if best_one.prefix else how
    return Match(loaded, said, fresh, left)


def _own_prefixes(names: Sequence[str]) -> list[str]:
    """What wraps most of the network itself, '' first."""
    counts = Counter(prefix for name in names for prefix in _prefixes(name, 2))
    return [prefix for prefix, count in counts.items() if 2 * count > len(names)]


def _prefixes(name: str, deepest: int) -> list[str]:
    parts = name.split(".")
    return ["".join(f"{part}." for part in parts[:depth]) for depth in range(min(deepest, len(parts) - 1) + 1)]


def _tries(theirs: Shapes, own: Shapes, inner: str, make: Maker) -> list[_Try]:
    """What is found under each of the file's prefixes, the network's names being taken without `inner`."""
    places = _unique((make(name.removeprefix(inner), False), name) for name in own if name.startswith(inner))
    found: dict[str, list[tuple[Key, str]]] = defaultdict(list)
    for name in theirs:
        for prefix in _prefixes(name, DEEPEST):
            found[prefix].append((make(name.removeprefix(prefix), True), name))
    tries = []
    for prefix, named in found.items():
        pairs = {places[key]: name for key, name in _unique(named).items() if key in places}
        taken = frozenset(name for ours, name in pairs.items() if theirs[name] == own[ours] and not ours.endswith(COUNTER))
        tries.append(_Try(prefix, pairs, taken))
    return tries


def _unique(named: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """Only what one name alone stands for."""
    found: dict[Key, list[str]] = defaultdict(list)
    for key, name in named:
        found[key].append(name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def _meant(prefix: str) -> int:
    words = set(_tokens(prefix, True))
    if words & MEANT:
        return 0
    return 2 if words & COPIES else 1


def _judge(found: _Try, theirs: Shapes, own: Shapes, head: Callable[[], frozenset[str]], share: float) -> None:
    """Raise Misfit unless what is missing, foreign or of another shape belongs to heads."""
    needed = [name for name in own if not name.endswith(COUNTER)]
    missing = [name for name in needed if name not in found.pairs and not _is_aside(name)]
    unlike = [name for name in found.pairs if theirs[found.pairs[name]] != own[name]]
    heads = head() if missing or unlike else frozenset()
    wrong = [name for name in unlike if name not in heads or not _is_another_head(theirs[found.pairs[name]], own[name])]
    used = set(found.pairs.values())
    extra = [name for name in theirs if name.startswith(found.prefix) and name not in used and not _is_aside(name)]
    root = _common([*needed])
    filled = {_top(name, root) for name in found.pairs if name not in unlike and not name.endswith(COUNTER)}
    bare = missing if not _may_be_missing(missing, unlike, needed, heads, filled, root) else []
    foreign = [name for name in extra if not _may_be_left_out(_top(name, found.prefix), filled)]
    if narrower := _are_narrower(wrong, found, theirs, own):
        raise Misfit(narrower, share, PRUNED)
    faults = (
        ("other shapes", [f"{name} {theirs[found.pairs[name]]} for {own[name]}" for name in wrong]),
        ("missing", bare),
        ("not in the network", foreign),
    )
    said = [f"{title}: {listed(names)}" for title, names in faults if names]
    if said:
        raise Misfit("; ".join(said), share, _renaming(bare, found, theirs, own) if bare and not wrong else "")


def _renaming(missing: Sequence[str], found: _Try, theirs: Shapes, own: Shapes) -> str:
    """What to rename, where each module that is missing has one counterpart of equal shapes in the file that nothing else has use for."""
    used = set(found.pairs.values())
    free = [one for one in _modules(theirs) if not any(_joined(one, kind) in used for kind in one.tensors)]
    wanted = [one for one in _modules(own) if any(_joined(one, kind) in missing for kind in one.tensors)]
    alike = {ours.name: [one.name for one in free if one.signature == ours.signature] for ours in wanted}
    if any(len(names) != 1 for names in alike.values()) or len({names[0] for names in alike.values()}) != len(wanted):
        return ""
    pairs = [(_common([*used]).rstrip("."), _common([*found.pairs]).rstrip(".")), *((names[0], ours) for ours, names in alike.items())]
    said = listed([f"{given} to {ours}" for given, ours in pairs if given != ours])
    return f"if it is this network under other names, rename its tensors: {said}; otherwise choose the network that they were saved from"


def _is_another_head(given: Shape, own: Shape) -> bool:
    return len(given) == len(own) and given[1:] == own[1:]


def _is_aside(name: str) -> bool:
    return name.endswith((COUNTER, *DERIVED))


def _may_be_missing(
    missing: Sequence[str], unlike: Sequence[str], needed: Sequence[str], heads: frozenset[str], filled: set[str], root: str
) -> bool:
    """Whether these are the network's head: the tensors that follow the classes, or whole modules behind all that was found."""
    if not missing or set(missing) == heads:
        return True
    if not heads or not heads <= {*missing, *unlike}:
        return False
    place = {name: i for i, name in enumerate(needed)}
    last_found = max((place[name] for name in needed if name not in missing and name not in heads), default=-1)
    tops = {_top(name, root) for name in missing}
    return last_found >= 0 and min(place[name] for name in missing) > last_found and not tops & filled


def _may_be_left_out(top: str, filled: set[str]) -> bool:
    """Whether a module of the file is one that the network doesn't have, and not one more of a kind that it has.

    `layer1.2` beside `layer1.1` is a deeper network's, and so is `layer5` beside `layer4`.
    """
    return top not in filled and _stem(top) not in {_stem(one) for one in filled}


def _stem(top: str) -> str:
    return re.sub(r"\d+", "", top).strip("_")


def _top(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).split(".")[0]


def _common(names: Sequence[str]) -> str:
    """The dotted prefix that all names share."""
    prefix = ""
    while names:
        longer = prefix + names[0].removeprefix(prefix).split(".")[0] + "."
        if not all(name.startswith(longer) for name in names):
            return prefix
        prefix = longer
    return prefix


PRUNED = (
    "start from the weights before the pruning; or write a function(num_classes) that builds the pruned network, and give "
    "yourmodule:function as the network; networks that prunedge pruned go on with --from RUN"
)


def _are_narrower(wrong: Sequence[str], found: _Try, theirs: Shapes, own: Shapes) -> str | None:
    """What to say when many layers have fewer channels than the network's: those of a network that was pruned."""
    if len(wrong) < 3:
        return None
    pairs = [(theirs[found.pairs[name]], own[name]) for name in wrong]
    if not all(len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True)) for a, b in pairs):
        return None
    shapes = listed([f"{name} {theirs[found.pairs[name]]} for {own[name]}" for name in wrong], most=3)
    return f"{len(wrong)} of {len(own)} tensors are smaller than the network's, as if it had been pruned ({shapes})"


# Order


@dataclass(frozen=True)
class _Module:
    """A module with tensors of its own: its name (and what of it differs), and shapes by the last part of their names."""

    name: str
    short: str
    tensors: dict[str, Shape]

    @property
    def signature(self) -> frozenset[tuple[str, Shape]]:
        """What may not differ."""
        return frozenset(self.tensors.items())

    @property
    def words(self) -> Key:
        """The words of its name, in their order."""
        return tuple(re.findall(r"[a-z]+", self.short.lower()))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its name, in their order."""
        return tuple(map(int, re.findall(r"\d+", self.short)))


def _by_order(theirs: Shapes, own: Shapes, head: Callable[[], frozenset[str]]) -> Match:
    """Assign module by module where the names of both sides share nothing."""
    heads = head()
    left, right = _modules(theirs), _modules(own)
    final = [one for one in right if any(_joined(one, kind) in heads for kind in one.tensors)]
    body = [one for one in right if one not in final]
    if not body or not _ascend(right):
        raise Misfit(_nothing(theirs, own))
    if _keeps_module_order(theirs, left):
        pairs = _in_sequence(left, right, final)
        how = "in order (names share nothing, every shape and kind agrees)"
    else:
        pairs = _in_classes(left, body, final)
        how = "in the order of their numbers (names share nothing, every shape and kind agrees)"
    if pairs is None:
        raise Misfit(_nothing(theirs, own))
    found = {_joined(ours, kind): _joined(one, kind) for one, ours in pairs for kind in ours.tensors}
    loaded = {name: given for name, given in found.items() if theirs[given] == own[name]}
    fresh = tuple(name for name in own if name not in loaded and not name.endswith(COUNTER))
    used = set(loaded.values())
    return Match(loaded, how, fresh, tuple(name for name in theirs if name not in used and not name.endswith(COUNTER)))


def _modules(shapes: Shapes) -> list[_Module]:
    """The modules in the order of their first tensors."""
    names = [name for name in shapes if not name.endswith(COUNTER)]
    found: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name in names:
        module, _, kind = name.rpartition(".")
        found[module][kind] = shapes[name]
    wrapper = _common(names)
    return [_Module(name, name.removeprefix(wrapper), tensors) for name, tensors in found.items()]


def _joined(module: _Module, kind: str) -> str:
    return f"{module.name}.{kind}" if module.name else kind


def _keeps_module_order(shapes: Shapes, modules: Sequence[_Module]) -> bool:
    """Whether the names stand as a state dict lists them, module by module as they were made, and not sorted.

    torch lists a module's weight before its bias, which no sorting does; numbers only rise.
    """
    names = [name for name in shapes if not name.endswith(COUNTER)]
    runs = [name.rpartition(".")[0] for name in names]
    is_whole = sum(one != before for before, one in zip([None, *runs], runs, strict=False)) == len(modules)
    both = [list(one.tensors) for one in modules if {"weight", "bias"} <= one.tensors.keys()]
    if not is_whole or not _ascend(modules) or any(one.index("bias") < one.index("weight") for one in both):
        return False
    return bool(both) or (names != sorted(names) and names != sorted(names, key=_natural))


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    return tuple(("", int(part)) if part.isdecimal() else (part, 0) for part in re.findall(r"\d+|\D+", name))


def _ascend(modules: Iterable[_Module]) -> bool:
    """Whether modules that differ in numbers alone come in the order of these."""
    last: dict[Key, tuple[int, ...]] = {}
    for one in modules:
        if last.get(one.words, ()) > one.numbers:
            return False
        last[one.words] = one.numbers
    return True


Pairs = list[tuple[_Module, _Module]]


def _in_sequence(left: Sequence[_Module], right: Sequence[_Module], final: Sequence[_Module]) -> Pairs | None:
    """Pairs in the order of both, with or without the network's head; None where a kind or a shape differs."""
    body = [one for one in right if one not in final]
    for taken in (right, body):
        if len(left) != len(taken):
            continue
        pairs = list(zip(left, taken, strict=True))
        if all(_is_head_of(a, b) if b in final else a.signature == b.signature for a, b in pairs):
            _refuse_crossed_words(pairs)
            return pairs
    return None


def _is_head_of(given: _Module, own: _Module) -> bool:
    if given.tensors.keys() != own.tensors.keys():
        return False
    return all(_is_another_head(given.tensors[kind], own.tensors[kind]) for kind in own.tensors)


def _refuse_crossed_words(pairs: Pairs) -> None:
    """Raise Misfit where order pairs two equal shapes and names would pair them otherwise."""
    known = defaultdict(set)
    for _, ours in pairs:
        known[ours.signature].add(ours.words)
    for one, ours in pairs:
        if one.words in known[ours.signature] and ours.words != one.words:
            raise Misfit(f"order leads from {one.name} to {ours.name}, which have one shape, and the names lead elsewhere", 1.0)


def _in_classes(left: Sequence[_Module], body: Sequence[_Module], final: Sequence[_Module]) -> Pairs | None:
    """Pairs within each set of modules of equal shapes, by their numbers; None where the sets differ."""
    theirs, ours = _by_signature(left), _by_signature(body)
    pairs: Pairs = []
    for signature, mine in ours.items():
        given = theirs.pop(signature, [])
        if len(given) != len(mine):
            return None
        pairs += _in_class(given, mine)
    rest = [one for several in theirs.values() for one in several]
    if not rest:
        return pairs
    if len(rest) != 1 or len(final) != 1 or not _is_head_of(rest[0], final[0]):
        return None
    return [*pairs, (rest[0], final[0])]


def _by_signature(modules: Iterable[_Module]) -> dict[frozenset[tuple[str, Shape]], list[_Module]]:
    found = defaultdict(list)
    for one in modules:
        found[one.signature].append(one)
    return dict(found)


def _in_class(given: Sequence[_Module], mine: Sequence[_Module]) -> Pairs:
    """Pairs of modules with equal shapes; raises Misfit where names leave more than one assignment open."""
    if len(mine) == 1:
        return [(given[0], mine[0])]
    theirs, ours = _by_words(given), _by_words(mine)
    if len(theirs) == len(ours) == 1:
        (words, one), (my_words, other) = next(iter(theirs.items())), next(iter(ours.items()))
        # Two numbers each under other words: which of theirs counts what ours count?
        if words == my_words or min(_varying(one), _varying(other)) <= 1:
            return list(zip(one, other, strict=True))
    elif theirs.keys() == ours.keys() and all(len(theirs[words]) == len(ours[words]) for words in ours):
        return [pair for words in ours for pair in zip(theirs[words], ours[words], strict=True)]
    shape = ", ".join(f"{kind} {size}" for kind, size in sorted(given[0].tensors.items()))
    raise Misfit(
        f"{len(given)} modules have the same shapes ({shape}), and names don't tell which is which: {listed([a.name for a in given])} in "
        f"the file, {listed([a.name for a in mine])} in the network",
        1.0,
        "save it again as a state dict of torch (.pth), which keeps the order, or under the network's own names",
    )


def _by_words(modules: Iterable[_Module]) -> dict[Key, list[_Module]]:
    """Modules whose names differ in numbers alone, in the order of these."""
    found = defaultdict(list)
    for one in sorted(modules, key=lambda module: module.numbers):
        found[one.words].append(one)
    return dict(found)


def _varying(modules: Sequence[_Module]) -> int:
    """How many of the numbers in these names differ between them."""
    longest = max(len(one.numbers) for one in modules)
    columns = [{one.numbers[i] if i < len(one.numbers) else None for one in modules} for i in range(longest)]
    return sum(len(column) > 1 for column in columns)


# Words


def _nothing(theirs: Shapes, own: Shapes) -> str:
    if len(theirs) == 1:
        return f"the file's only tensor is {next(iter(theirs))}, and the network has {len(own)}, {next(iter(own), 'nothing')} first"
    return (
        f"the file's {len(theirs)} tensors are not the network's: the file begins with {next(iter(theirs))}, "
        f"the network with {next(iter(own), 'nothing')}"
    )


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
