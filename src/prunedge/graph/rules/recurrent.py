"""Recurrent layers that run as one operation."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Labeller
from prunedge.graph.rules.common import outputs_of, unknown
from prunedge.graph.rules.contractions import consume

_STATE = "is the state of a recurrent layer, which keeps its size"


def fused_layer(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """One layer of an LSTM in one direction (oneDNN): (places, n, features) to (places, n, state), the last state and the last cell.

    A unit of the state has a row in each of the four gates of both weights and of both biases, and a column in the weight that
    reads the state. `nn.LSTM` has one size of the state for all its layers and directions: they lose the same units.
    """
    x, read, carry, biases, state, cell = args[0], args[1], args[2], args[3:5], args[5], args[6]
    reads, carries = lab.param(read), lab.param(carry)
    if reads is None or carries is None or not _reads(lab, x, (read,)):
        return unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(carries.name)
    units = lab.ledger.of(carries, 1, "in")
    rows = [lab.ledger.of(view, 0, "out") for view in (reads, carries)]
    size = out[0].shape[-1]
    if units is None or len(units) != size or any(row is None or len(row) != 4 * size for row in rows):
        return lab.freeze_all(args, kwargs, _STATE)
    for row in rows:
        assert row is not None
        lab.ledger.tie(units, row.reshape(4, -1))
    for bias in biases if args[12] else ():
        gates = None if lab.param(bias) is None else lab.promote(bias)
        lab.ledger.tie(units, torch.zeros(1, dtype=torch.int64) if gates is None else gates.reshape(4, -1), _STATE)
    for start in (state, cell):
        labels = lab.promote(start)
        if labels is not None:
            lab.ledger.tie(units.reshape([1] * (start.dim() - 1) + [-1]), labels, _STATE)
        elif not lab.is_filled(start):
            lab.ledger.freeze(units, "is the state of a recurrent layer, which starts with values of a fixed size")
    first = lab.states.setdefault(reads.name.rpartition(".")[0], units)
    lab.ledger.tie(first, units)
    for made in outputs_of(out)[:3]:
        lab.name(made, units.reshape([1] * (made.dim() - 1) + [-1]))


def fused_layers(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """All layers of a recurrent network at once (cuDNN); of `weights`, the first of each direction of the first layer read."""
    x, weights, per_direction = args[0], args[1], args[2]
    names = [one.name for one in func._schema.arguments]
    values = {**dict(zip(names, args, strict=False)), **kwargs}
    layers = values["num_layers"] * (2 if values["bidirectional"] else 1)
    first = [weights[direction * per_direction] for direction in range(2 if values["bidirectional"] else 1)]
    if len(weights) != layers * per_direction or not _reads(lab, x, tuple(first)):
        return unknown(lab, func, args, kwargs, out)
    for weight in first:
        view = lab.param(weight)
        assert view is not None
        lab.ledger.freeze(lab.ledger.of(view, 0, "out"), _STATE)
    rest = [one for one in weights if all(one is not other for other in first)]
    lab.freeze_all((rest, *args[3:]), kwargs, _STATE)


def _reads(lab: Labeller, x: torch.Tensor, weights: tuple[torch.Tensor, ...]) -> bool:
    """Tie the channels of what is read to the columns of the weights that read it; false where they are no weights."""
    views = [lab.param(weight) for weight in weights]
    columns = [None if view is None else lab.ledger.of(view, 1, "in") for view in views]
    if any(one is None for one in columns):
        return False
    labels = lab.promote(x)
    for view, one in zip(views, columns, strict=True):
        assert view is not None
        lab.ledger.used.add(view.name)
        consume(lab, labels, x.dim() - 1, one)
    return True
