"""Recurrent layers that run as one operation: what they read is followed, their state keeps its size."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Labeller
from prunedge.graph.rules.common import unknown
from prunedge.graph.rules.contractions import consume

_STATE = "is the state of a recurrent layer, which keeps its size"


def fused_layer(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """One layer of an LSTM in one direction (oneDNN): (places, n, features), and its four weights and biases, to (places, n, state)."""
    x, weight = args[0], args[1]
    if not _reads(lab, x, (weight,)):
        return unknown(lab, func, args, kwargs, out)
    lab.freeze_all(args[2:7], kwargs, _STATE)


def fused_layers(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """All layers of a recurrent network at once (cuDNN); of `weights`, the first of each direction of the first layer read."""
    x, weights, per_direction = args[0], args[1], args[2]
    names = [one.name for one in func._schema.arguments]
    values = {**dict(zip(names, args, strict=False)), **kwargs}
    layers = values["num_layers"] * (2 if values["bidirectional"] else 1)
    first = [weights[direction * per_direction] for direction in range(2 if values["bidirectional"] else 1)]
    if len(weights) != layers * per_direction or not _reads(lab, x, tuple(first)):
        return unknown(lab, func, args, kwargs, out)
    rest = [one for one in weights if all(one is not other for other in first)]
    lab.freeze_all((rest, *args[3:]), kwargs, _STATE)


def _reads(lab: Labeller, x: torch.Tensor, weights: tuple[torch.Tensor, ...]) -> bool:
    """Tie the channels of what is read to the columns of the weights that read it, whose rows stay; false where they are no weights."""
    views = [lab.param(weight) for weight in weights]
    columns = [None if view is None else lab.ledger.of(view, 1, "in") for view in views]
    if any(one is None for one in columns):
        return False
    labels = lab.promote(x)
    for view, one in zip(views, columns, strict=True):
        assert view is not None
        lab.ledger.used.add(view.name)
        lab.ledger.freeze(lab.ledger.of(view, 0, "out"), _STATE)
        consume(lab, labels, x.dim() - 1, one)
    return True
