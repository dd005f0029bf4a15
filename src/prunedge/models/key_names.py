"""Assign a file's tensors to a model's by name.

Names are compared without what wraps the model (`module.`, `encoder_q.`), then by their words and
numbers (`norm.1` is `norm1`), then with numbers that begin at 0 instead of 1.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prunedge.models.key_modules import (
    COUNTER,
    DERIVED,
    Key,
    Match,
    Misfit,
    Shapes,
    common_prefix,
    is_another_head,
    listed,
    modules_of,
    nothing_shared,
    without_counters,
)

# Of two copies of a model in one file, the one that its authors use.
MEANT = frozenset({"teacher", "ema", "q", "query", "online"})
COPIES = frozenset({"student", "k", "key", "target", "momentum"})
DEEPEST = 4  # names of wrappers before a model's own
PRUNED = (
    "start from the weights before the pruning; or write a function(num_classes) that builds the "
    "pruned model, and give yourmodule:function as the model; models that prunedge pruned "
    "go on with --from RUN"
)

MakeKey = Callable[[str, bool], Key]  # a name (and whether it is the file's) -> what is compared


def ways_to_compare() -> list[tuple[MakeKey, str]]:
    """How names may be compared, the strictest first, and what to call it."""
    return [
        (_exact, "by name"),
        (_tokens, "by the words and numbers of their names"),
        (_shifted(-1), "by name, numbers -1"),
        (_shifted(1), "by name, numbers +1"),
    ]


def _exact(name: str, is_given: bool) -> Key:
    return tuple(name.split("."))


def _tokens(name: str, is_given: bool) -> Key:
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


def _shifted(by: int) -> MakeKey:
    """The same with the file's first number one lower or higher.

    One side may count from 0 and the other from 1.
    """

    def make_key(name: str, is_given: bool) -> Key:
        tokens = _tokens(name, is_given)
        if not is_given:
            return tokens
        for place, token in enumerate(tokens):
            if token.isdecimal():
                return (*tokens[:place], str(int(token) + by), *tokens[place + 1 :])
        return tokens

    return make_key


@dataclass(frozen=True)
class _Try:
    """A way to strip both sides of what wraps the model: own names to the file's.

    `fitting` are those of the file's that have the right shape.
    """

    prefix: str
    pairs: dict[str, str]
    fitting: frozenset[str]


def by_names(
    given: Shapes,
    own: Shapes,
    head: Callable[[], frozenset[str]],
    make_key: MakeKey,
    how: str,
) -> Match:
    """Assign tensors whose names are equal under `make_key`; Misfit where that isn't possible."""
    needed = without_counters(own)
    best = _best_try(given, own, needed, make_key)
    _judge(best, given, own, head, len(best.pairs) / len(needed))

    loaded = {name: theirs for name, theirs in best.pairs.items() if given[theirs] == own[name]}
    used = set(best.pairs.values())
    fresh = [name for name in needed if name not in loaded and not name.endswith(DERIVED)]
    left_out = [name for name in without_counters(given) if name not in used]
    if best.prefix:
        how = f"{how} without '{best.prefix}'"
    return Match(loaded, how, tuple(fresh), tuple(left_out))


def _best_try(given: Shapes, own: Shapes, needed: Sequence[str], make_key: MakeKey) -> _Try:
    """The way to strip names that fits most tensors, of the copy that is meant."""
    tries = []
    for inner in _own_prefixes(needed):
        tries += _tries(given, own, inner, make_key)
    tries = [attempt for attempt in tries if 2 * len(attempt.pairs) > len(needed)]
    if not tries:
        raise Misfit(nothing_shared(given, own))

    most = max(len(attempt.fitting) for attempt in tries)
    tries = [attempt for attempt in tries if len(attempt.fitting) == most]
    likeliest = min(_unlikeliness(attempt.prefix) for attempt in tries)
    tries = [attempt for attempt in tries if _unlikeliness(attempt.prefix) == likeliest]
    if len({attempt.fitting for attempt in tries}) > 1:
        prefixes = dict.fromkeys(attempt.prefix for attempt in tries)
        names = " and ".join(f"'{prefix}'" for prefix in prefixes)
        raise Misfit(
            f"the file holds the model more than once, under {names}",
            1.0,
            "save the one that is meant alone",
        )
    return max(tries, key=lambda attempt: (len(attempt.pairs), -len(attempt.prefix)))


def _own_prefixes(names: Sequence[str]) -> list[str]:
    """What wraps most of the model itself, '' first."""
    counts = Counter(prefix for name in names for prefix in _prefixes(name, 2))
    return [prefix for prefix, count in counts.items() if 2 * count > len(names)]


def _prefixes(name: str, deepest: int) -> list[str]:
    """The dotted prefixes of a name, '' first, up to that many parts."""
    prefixes = [""]
    for part in name.split(".")[:-1][:deepest]:
        prefixes.append(f"{prefixes[-1]}{part}.")
    return prefixes


def _tries(given: Shapes, own: Shapes, inner: str, make_key: MakeKey) -> list[_Try]:
    """What is found under each of the file's prefixes.

    The model's names are taken without `inner`.
    """
    own_keys = [
        (make_key(name.removeprefix(inner), False), name) for name in own if name.startswith(inner)
    ]
    own_by_key = _unique(own_keys)
    by_prefix: dict[str, list[tuple[Key, str]]] = defaultdict(list)
    for name in given:
        for prefix in _prefixes(name, DEEPEST):
            by_prefix[prefix].append((make_key(name.removeprefix(prefix), True), name))

    tries = []
    for prefix, given_keys in by_prefix.items():
        pairs = {}
        for key, name in _unique(given_keys).items():
            if key in own_by_key:
                pairs[own_by_key[key]] = name
        fitting = frozenset(
            theirs
            for name, theirs in pairs.items()
            if given[theirs] == own[name] and not name.endswith(COUNTER)
        )
        tries.append(_Try(prefix, pairs, fitting))
    return tries


def _unique(keys: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """Only what one name alone stands for."""
    names: dict[Key, list[str]] = defaultdict(list)
    for key, name in keys:
        names[key].append(name)
    return {key: alike[0] for key, alike in names.items() if len(alike) == 1}


def _unlikeliness(prefix: str) -> int:
    """How unlikely it is that the copy under this prefix is meant."""
    words = set(_tokens(prefix, True))
    if words & MEANT:
        return 0
    return 2 if words & COPIES else 1


# -- judging an assignment -------------------------------------------------------------------------


def _judge(
    attempt: _Try,
    given: Shapes,
    own: Shapes,
    head: Callable[[], frozenset[str]],
    share: float,
) -> None:
    """Raise Misfit unless what is missing, foreign or of another shape belongs to heads."""
    pairs = attempt.pairs
    needed = without_counters(own)
    missing = [name for name in needed if name not in pairs and not _is_aside(name)]
    unlike = [name for name, theirs in pairs.items() if given[theirs] != own[name]]
    heads = head() if missing or unlike else frozenset()

    wrong = [
        name
        for name in unlike
        if name not in heads or not is_another_head(given[pairs[name]], own[name])
    ]
    if _are_narrower(wrong, attempt, given, own):
        raise Misfit(_narrower(wrong, attempt, given, own), share, PRUNED)

    root = common_prefix(needed)
    filled = {
        _top(name, root) for name in pairs if name not in unlike and not name.endswith(COUNTER)
    }
    if _may_be_missing(missing, unlike, needed, heads, filled, root):
        missing = []
    foreign = _foreign(attempt, given, filled)
    faults = (
        ("other shapes", [f"{name} {given[pairs[name]]} for {own[name]}" for name in wrong]),
        ("missing", missing),
        ("not in the model", foreign),
    )
    said = [f"{title}: {listed(names)}" for title, names in faults if names]
    if said:
        remedy = _renaming(missing, attempt, given, own) if missing and not wrong else ""
        raise Misfit("; ".join(said), share, remedy)


def _foreign(attempt: _Try, given: Shapes, filled: set[str]) -> list[str]:
    """The file's tensors that have no place, and that may not be left out."""
    used = set(attempt.pairs.values())
    foreign = []
    for name in given:
        if not name.startswith(attempt.prefix) or name in used or _is_aside(name):
            continue
        if not _may_be_left_out(_top(name, attempt.prefix), filled):
            foreign.append(name)
    return foreign


def _renaming(missing: Sequence[str], attempt: _Try, given: Shapes, own: Shapes) -> str:
    """What to rename, where each missing module has one counterpart in the file; else ''.

    A counterpart has equal shapes, and nothing else has use for it.
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

    wrappers = (common_prefix([*used]).rstrip("."), common_prefix([*attempt.pairs]).rstrip("."))
    renamed = [wrappers, *counterparts.items()]
    said = listed([f"{theirs} to {ours}" for theirs, ours in renamed if theirs != ours])
    return (
        f"if it is this model under other names, rename its tensors: {said}; otherwise "
        "choose the model that they were saved from"
    )


def _is_aside(name: str) -> bool:
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

    The tensors that follow the classes, or whole modules behind all that was found.
    """
    if not missing or set(missing) == heads:
        return True
    if not heads or not heads <= {*missing, *unlike}:
        return False
    place = {name: number for number, name in enumerate(needed)}
    found = [place[name] for name in needed if name not in missing and name not in heads]
    if not found or min(place[name] for name in missing) < max(found):
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


def _are_narrower(wrong: Sequence[str], attempt: _Try, given: Shapes, own: Shapes) -> bool:
    """Whether many layers have fewer channels than the model's, like those that were pruned."""
    if len(wrong) < 3:
        return False
    for name in wrong:
        have = given[attempt.pairs[name]]
        want = own[name]
        if len(have) != len(want) or any(h > w for h, w in zip(have, want, strict=True)):
            return False
    return True


def _narrower(wrong: Sequence[str], attempt: _Try, given: Shapes, own: Shapes) -> str:
    shapes = [f"{name} {given[attempt.pairs[name]]} for {own[name]}" for name in wrong]
    return (
        f"{len(wrong)} of {len(own)} tensors are smaller than the model's, as if it had been "
        f"pruned ({listed(shapes, most=3)})"
    )
