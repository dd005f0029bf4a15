"""Read off the ledger which channels can be removed, and which stay for what reason.

An *axis* is a dimension of a parameter or buffer along which channels may lie; a channel consists
of positions along one or more of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from prunedge.graph.channels import Frozen, Group, Role, Slice
from prunedge.graph.components import Components
from prunedge.graph.ledger import Ledger

Axis = tuple[str, int]  # tensor, dimension
Extent = tuple[str, int, int]  # tensor, dimension, how many indices along it a channel has
Kind = tuple[tuple[int, int], ...]  # what a channel consists of: (axis' number, how many indices)
Homes = dict[int, tuple[str, int]]  # component -> its group, and its number in that


def collect(ledger: Ledger, component: Components) -> tuple[list[Group], list[Frozen], Homes]:
    """Groups, frozen channels, and for each component that is a channel its group and number."""
    reasons = _reasons(ledger, component)
    axes = [axis for axis in ledger.base if axis in ledger.roles]
    members, indices = _members(ledger, component, axes)

    groups: list[Group] = []
    frozen: list[Frozen] = []
    taken: set[str] = set()
    homes: Homes = {}
    for kind, roots in _by_piece(ledger, component, members):
        extents = [(*axes[number], count) for number, count in kind]
        for reason, channels in _by_reason(roots, reasons, extents, ledger.roles).items():
            name = _unique(_name(extents, ledger.roles), taken)
            if reason is None and len(channels) == 1:
                reason = "all of it leaves together, so that nothing would be left"
            if reason is not None:
                frozen.append(Frozen(name, len(channels), reason))
                continue

            table = np.stack([indices[root] for root in channels])
            groups.append(_group(name, extents, table, ledger))
            for number, root in enumerate(channels):
                homes[root] = (name, number)
    return groups, frozen, homes


def _by_reason(
    roots: list[int],
    reasons: Mapping[int, str],
    extents: list[Extent],
    roles: Mapping[Axis, Role],
) -> dict[str | None, list[int]]:
    """Channels of a kind by the reason for which they stay; None where they can leave."""
    lacking = _what_is_lacking(extents, roles)
    by_reason: dict[str | None, list[int]] = {}
    for root in roots:
        reason = reasons.get(root) or lacking
        by_reason.setdefault(reason, []).append(root)
    return by_reason


def _reasons(ledger: Ledger, component: Components) -> dict[int, str]:
    """Why a component stays: the first reason that was given for any of its atoms."""
    reasons: dict[int, str] = {}
    for atoms, reason in ledger.frozen:
        for root in np.unique(component[atoms]):
            reasons.setdefault(int(root), reason)
    return reasons


def _members(
    ledger: Ledger, component: Components, axes: list[Axis]
) -> tuple[dict[Kind, list[int]], dict[int, np.ndarray]]:
    """Channels (components) by what they consist of, and the indices of each."""
    sizes = [ledger.shapes[tensor][dim] for tensor, dim in axes]
    bases = [ledger.base[axis] for axis in axes]
    firsts = np.repeat(bases, sizes).astype(np.int64)
    numbers = np.repeat(np.arange(len(axes)), sizes)

    indices = np.arange(0)
    if sizes:
        indices = np.concatenate([np.arange(size) for size in sizes])
    return _by_kind(component[firsts + indices], numbers, indices)


def _by_kind(
    roots: np.ndarray, axes: np.ndarray, indices: np.ndarray
) -> tuple[dict[Kind, list[int]], dict[int, np.ndarray]]:
    """Components by kind, in the model's order, and the indices of each.

    The arguments say for each element which component, which axis and which index it is.
    """
    if not len(roots):
        return {}, {}
    roots, axes, indices = _one_channel_after_the_other(roots, axes, indices)

    # A run is what a channel has along one axis, and a channel consists of runs.
    runs = _starts(roots, axes)
    counts = np.diff(np.r_[runs, len(roots)])
    channels = _starts(roots[runs])
    run_bounds = [*runs.tolist(), len(roots)]
    channel_bounds = [*channels.tolist(), len(runs)]

    members: dict[bytes, list[int]] = {}
    kinds: dict[bytes, Kind] = {}
    table: dict[int, np.ndarray] = {}
    for begin, end in pairwise(channel_bounds):
        own_axes = axes[runs[begin:end]]
        own_counts = counts[begin:end]
        root = int(roots[runs[begin]])
        key = own_axes.tobytes() + own_counts.tobytes()
        if key not in kinds:
            kinds[key] = tuple(zip(own_axes.tolist(), own_counts.tolist(), strict=True))
        members.setdefault(key, []).append(root)
        table[root] = indices[run_bounds[begin] : run_bounds[end]]
    return {kinds[key]: channels_of_kind for key, channels_of_kind in members.items()}, table


def _one_channel_after_the_other(
    roots: np.ndarray, axes: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The elements sorted by channel, in the order of their first ones, then by axis and index."""
    known, first, where = np.unique(roots, return_index=True, return_inverse=True)
    rank = np.empty(len(known), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(known))
    order = np.lexsort((indices, axes, rank[where]))
    return roots[order], axes[order], indices[order].astype(np.int64)


def _starts(*columns: np.ndarray) -> np.ndarray:
    """The indices at which any of the columns differs from the value before."""
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
    pieces = _pieces_of(ledger, component)
    for kind, roots_of_kind in members.items():
        by_pieces: dict[tuple[int, ...], list[int]] = {}
        for root in roots_of_kind:
            numbers = tuple(pieces.get(root, ()))
            by_pieces.setdefault(numbers, []).append(root)
        for roots in by_pieces.values():
            yield kind, roots


def _pieces_of(ledger: Ledger, component: Components) -> dict[int, list[int]]:
    """For each component the numbers of the pieces that it belongs to."""
    pieces: dict[int, list[int]] = {}
    known: set[bytes] = set()
    for labels in ledger.pieces:
        roots = np.unique(component[labels.numpy()])
        key = roots.tobytes()
        if key in known:
            continue
        number = len(known)
        known.add(key)
        for root in roots.tolist():
            pieces.setdefault(root, []).append(number)
    return pieces


def _what_is_lacking(extents: list[Extent], roles: Mapping[Axis, Role]) -> str | None:
    """Why channels without a consumer, or without a producer, stay."""
    known = {roles[tensor, dim] for tensor, dim, _ in extents}
    if "in" not in known:
        return "nothing that prunedge can follow consumes these channels"
    if "out" not in known:
        return "nothing that prunedge can follow makes these channels"
    return None


def _group(name: str, extents: list[Extent], indices: np.ndarray, ledger: Ledger) -> Group:
    slices = []
    start = 0
    for tensor, dim, count in extents:
        own = indices[:, start : start + count]
        slices.append(Slice(tensor, dim, own, ledger.roles[tensor, dim]))
        start += count
    producer = next(piece.tensor for piece in slices if piece.role == "out")
    return Group(name, len(indices), tuple(slices), ledger.positions.get(producer, 1))


def _name(extents: list[Extent], roles: Mapping[Axis, Role]) -> str:
    """The module that makes the channels."""
    for tensor, dim, _ in extents:
        if roles[tensor, dim] == "out":
            return module_of(tensor)
    return module_of(extents[0][0])


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
