"""Assign a file's tensors to a model's by name.

Names are compared without what wraps the model (`module.`, `encoder_q.`), then by their words and
numbers (`norm.1` is `norm1`), then with numbers that begin at 0 instead of 1.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from prunedge.models.key_judging import Attempt, judge
from prunedge.models.key_modules import (
    COUNTER,
    DERIVED,
    Key,
    Match,
    Misfit,
    Shapes,
    nothing_shared,
    without_counters,
)

# Of two copies of a model in one file, the one that its authors use.
MEANT = frozenset({"teacher", "ema", "q", "query", "online"})
COPIES = frozenset({"student", "k", "key", "target", "momentum"})
DEEPEST = 4  # names of wrappers before a model's own

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
        for index, token in enumerate(tokens):
            if token.isdecimal():
                return (*tokens[:index], str(int(token) + by), *tokens[index + 1 :])
        return tokens

    return make_key


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
    judge(best, given, own, head, len(best.pairs) / len(needed))

    loaded = {}
    for name, given_name in best.pairs.items():
        if given[given_name] == own[name]:
            loaded[name] = given_name
    used = set(best.pairs.values())
    fresh = [name for name in needed if name not in loaded and not name.endswith(DERIVED)]
    left_out = [name for name in without_counters(given) if name not in used]
    if best.prefix:
        how = f"{how} without '{best.prefix}'"
    return Match(loaded, how, tuple(fresh), tuple(left_out))


def _best_try(given: Shapes, own: Shapes, needed: Sequence[str], make_key: MakeKey) -> Attempt:
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
    """The dotted prefixes of a name, '' first, up to that many words."""
    prefixes = [""]
    for word in name.split(".")[:-1][:deepest]:
        prefixes.append(f"{prefixes[-1]}{word}.")
    return prefixes


def _tries(given: Shapes, own: Shapes, inner: str, make_key: MakeKey) -> list[Attempt]:
    """An assignment under each of the file's prefixes.

    The model's names are taken without `inner`.
    """
    own_keys = []
    for name in own:
        if name.startswith(inner):
            own_keys.append((make_key(name.removeprefix(inner), False), name))
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
        fitting = set()
        for name, given_name in pairs.items():
            if given[given_name] == own[name] and not name.endswith(COUNTER):
                fitting.add(given_name)
        tries.append(Attempt(prefix, pairs, frozenset(fitting)))
    return tries


def _unique(keys: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """The name of each key that a single name has."""
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
