"""Which of a file's tensors belongs to which of a model's. Pure.

Names first (`key_names`), then order where it can't mislead (`key_order`).
"""

from __future__ import annotations

from collections.abc import Callable

from prunedge.models.key_modules import Match, Misfit, Shapes
from prunedge.models.key_names import by_names, ways_to_compare
from prunedge.models.key_order import by_order


def match(given: Shapes, own: Shapes, head: Callable[[], frozenset[str]]) -> Match:
    """Assign the tensors of a file to those of a model, both by name with their shapes.

    `head()` names the model's tensors whose shape follows the number of classes: they may be
    missing or of another first dimension, and stay random then. So may whole modules behind all
    that was found. The file's tensors outside the model, and heads in the place of the model's own,
    are left out. Raises Misfit for anything else.
    """
    misfits = []
    for make_key, how in ways_to_compare():
        try:
            return by_names(given, own, head, make_key, how)
        except Misfit as misfit:
            misfits.append(misfit)
    nearest = max(misfits, key=lambda misfit: misfit.share)
    if nearest.share:
        raise nearest
    return by_order(given, own, head)
