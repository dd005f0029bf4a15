"""Read off the ledger which channels can be removed, and which stay for what reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from prunedge.graph.channels import Frozen, Group, Role, Slice
from prunedge.graph.components import Components
from prunedge.graph.ledger import Ledger

Part = tuple[str, int, int]  # tensor, dimension, how many indices along it a channel has
Kind = tuple[tuple[int, int], ...]  # what a channel consists of: (place, how many indices there)
Homes = dict[int, tuple[str, int]]  # component -> its group, and its number in that


def collect(ledger: Ledger, component: Components) -> tuple[list[Group], list[Frozen], Homes]:
    """Groups, frozen channels, and for each component that is a channel its group and number."""
    reasons = _reasons(ledger, component)
    places = [place for place in ledger.base if place in ledger.roles]
    members, indices = _members(ledger, component, places)

    groups: list[Group] = []
    frozen: list[Frozen] = []
    taken: set[str] = set()
    homes: Homes = {}
    for kind, roots in _by_piece(ledger, component, members):
        parts = [(*places[place], count) for place, count in kind]
        lacking = _what_is_lacking(parts, ledger.roles)
        by_reason: dict[str | None, list[int]] = {}
        for root in roots:
            by_reason.setdefault(reasons.get(root) or lacking, []).append(root)

        for reason, channels in by_reason.items():
            name = _unique(_name(parts, ledger.roles), taken)
            if reason is None and len(channels) == 1:
                reason = "all of it leaves together, so that nothing would be left"
            if reason is not None:
                frozen.append(Frozen(name, len(channels), reason))
                continue
            table = np.stack([indices[root] for root in channels])
            groups.append(_group(name, parts, table, ledger))
            homes.update({root: (name, number) for number, root in enumerate(channels)})
    return groups, frozen, homes


def _reasons(ledger: Ledger, component: Components) -> dict[int, str]:
    """Why a component stays: the first reason that was given for any of its atoms."""
    reasons: dict[int, str] = {}
    for atoms, reason in ledger.frozen:
        for root in np.unique(component[atoms]):
            reasons.setdefault(int(root), reason)
    return reasons


def _members(
    ledger: Ledger, component: Components, places: list[tuple[str, int]]
) -> tuple[dict[Kind, list[int]], dict[int, np.ndarray]]:
    """Channels (components) by what they consist of, and the indices of each.

    `places` are the dimensions of tensors in which channels may lie.
    """
    sizes = [ledger.shapes[tensor][dim] for tensor, dim in places]
    firsts = np.repeat([ledger.base[place] for place in places], sizes).astype(np.int64)
    indices = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
    numbers = np.repeat(np.arange(len(places)), sizes)
    return _by_kind(component[firsts + indices], numbers, indices)


def _by_kind(
    roots: np.ndarray, places: np.ndarray, indices: np.ndarray
) -> tuple[dict[Kind, list[int]], dict[int, np.ndarray]]:
    """Components by kind, in the model's order, and the indices of each.

    Of elements that are told by component, place and index.
    """
    if not len(roots):
        return {}, {}
    roots, places, indices = _one_channel_after_the_other(roots, places, indices)

    # A run is what a channel has at one place, and a channel consists of runs.
    runs = _starts(roots, places)
    counts = np.diff(np.r_[runs, len(roots)])
    channels = _starts(roots[runs])
    run_bounds = [*runs.tolist(), len(roots)]
    channel_bounds = [*channels.tolist(), len(runs)]

    members: dict[bytes, list[int]] = {}
    kinds: dict[bytes, Kind] = {}
    table: dict[int, np.ndarray] = {}
    for begin, end in pairwise(channel_bounds):
        own_places = places[runs[begin:end]]
        own_counts = counts[begin:end]
        root = int(roots[runs[begin]])
        key = own_places.tobytes() + own_counts.tobytes()
        if key not in kinds:
            kinds[key] = tuple(zip(own_places.tolist(), own_counts.tolist(), strict=True))
        members.setdefault(key, []).append(root)
        table[root] = indices[run_bounds[begin] : run_bounds[end]]
    return {kinds[key]: several for key, several in members.items()}, table


def _one_channel_after_the_other(
    roots: np.ndarray, places: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The elements sorted by channel, in the order of their first ones, then by place and index."""
    known, first, where = np.unique(roots, return_index=True, return_inverse=True)
    rank = np.empty(len(known), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(known))
    order = np.lexsort((indices, places, rank[where]))
    return roots[order], places[order], indices[order].astype(np.int64)


def _starts(*columns: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it, in any of the columns."""
    is_new = np.zeros(len(columns[0]), dtype=bool)
    is_new[0] = True
    for column in columns:
        is_new[1:] |= np.diff(column) != 0
    return np.flatnonzero(is_new)


def _by_piece(
    ledger: Ledger, component: Components, members: Mapping[Kind, list[int]]
) -> Iterator[tuple[Kind, list[int]]]:
    """Channels of each kind, those apart that code picks as a piece.

    Something of every piece has to stay.
    """
    pieces: dict[int, list[int]] = {}
    known: set[bytes] = set()
    for labels in ledger.pieces:
        roots = np.unique(component[labels.numpy()])
        key = roots.tobytes()
        if key not in known:
            for root in roots.tolist():
                pieces.setdefault(root, []).append(len(known))
            known.add(key)

    for kind, roots_of_kind in members.items():
        apart: dict[tuple[int, ...], list[int]] = {}
        for root in roots_of_kind:
            apart.setdefault(tuple(pieces.get(root, ())), []).append(root)
        for several in apart.values():
            yield kind, several


def _what_is_lacking(parts: list[Part], roles: Mapping[tuple[str, int], Role]) -> str | None:
    known = {roles[tensor, dim] for tensor, dim, _ in parts}
    if "in" not in known:
        return "nothing that prunedge can follow consumes these channels"
    return None if "out" in known else "nothing that prunedge can follow makes these channels"


def _group(name: str, parts: list[Part], indices: np.ndarray, ledger: Ledger) -> Group:
    slices = []
    start = 0
    for tensor, dim, count in parts:
        own = indices[:, start : start + count]
        slices.append(Slice(tensor, dim, own, ledger.roles[tensor, dim]))
        start += count
    producer = next(part.tensor for part in slices if part.role == "out")
    return Group(name, len(indices), tuple(slices), ledger.positions.get(producer, 1))


def _name(parts: list[Part], roles: Mapping[tuple[str, int], Role]) -> str:
    makers = [tensor for tensor, dim, _ in parts if roles[tensor, dim] == "out"]
    return module_of(makers[0] if makers else parts[0][0])


def module_of(tensor: str) -> str:
    """The path of the module that a parameter belongs to; its own where that is the model."""
    return tensor.rpartition(".")[0] or tensor


def _unique(name: str, taken: set[str]) -> str:
    candidate = name
    count = 2
    while candidate in taken:
        candidate = f"{name}#{count}"
        count += 1
    taken.add(candidate)
    return candidate
