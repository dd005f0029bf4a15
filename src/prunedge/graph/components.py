"""Which atoms leave together: the connected components of all ties."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prunedge.graph.label_tensors import Labels
from prunedge.graph.ledger import Condition, Ledger

Components = np.ndarray  # for each atom the number of its component


def settle(ledger: Ledger) -> Components:
    """Component of each atom, after what depends on how channels leave in the end is decided."""
    waiting = list(ledger.conditions)
    divided: set[int] = set()  # the divisions that are decided, by their index in the ledger
    while True:
        component = _components(ledger)
        if _decide_divisions(ledger, component, divided):
            continue

        due: list[Condition] = []
        undecided: list[Condition] = []
        for condition in waiting:
            (due if _applies(component, condition) else undecided).append(condition)
        waiting = undecided
        for condition in due:
            _apply(ledger, condition)
        if all(condition.partner is None for condition in due):
            break

    for condition in waiting:
        if condition.dim < 0 and condition.partner is not None:
            ledger.tie(condition.labels, condition.partner, condition.reason)
    return _components(ledger) if waiting else component


def _components(ledger: Ledger) -> Components:
    if not ledger.ties:
        return np.arange(ledger.atoms)
    left = np.concatenate([first for first, _ in ledger.ties])
    right = np.concatenate([second for _, second in ledger.ties])
    ones = np.ones(len(left), dtype=np.int8)
    graph = coo_matrix((ones, (left, right)), shape=(ledger.atoms, ledger.atoms))
    return connected_components(graph, directed=False)[1]


def _decide_divisions(ledger: Ledger, component: Components, decided: set[int]) -> bool:
    """Let divided channels leave along one dimension alone; whether any was undecided.

    Nothing else says along which they leave: it is the last, so that each block loses the same
    places.
    """
    is_changed = False
    for index, (_, labels) in enumerate(ledger.divisions):
        dims = range(labels.dim())
        varying = [dim for dim in dims if not _is_same_along(component, labels, dim)]
        # A division that was decided already and still varies holds labels that are no channels:
        # they have frozen what they were to be tied to.
        if len(varying) > 1 and index not in decided:
            decided.add(index)
            ledger.squash(labels, varying[:-1])
            is_changed = True
    return is_changed


def _applies(component: Components, condition: Condition) -> bool:
    """Whether channels leave one by one along the condition's dimension."""
    if condition.dim >= 0:
        return not _is_same_along(component, condition.labels, condition.dim)

    labels = condition.labels
    partner = condition.partner
    assert partner is not None
    thin = [dim for dim, size in enumerate(partner.shape) if size == 1]
    return not all(_is_same_along(component, labels, dim) for dim in thin)


def _apply(ledger: Ledger, condition: Condition) -> None:
    if condition.partner is None:
        ledger.freeze(condition.labels, condition.reason)
    elif condition.dim < 0:
        ledger.freeze(condition.partner, condition.reason)
    else:
        ledger.tie(condition.labels, condition.partner, condition.reason)


def _is_same_along(component: Components, labels: Labels, dim: int) -> bool:
    roots = component[labels.numpy()]
    return bool((roots == np.take(roots, [0], axis=dim)).all())
