"""Recurrent layers that run as one operation."""

from __future__ import annotations

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import lying_along
from prunedge.graph.labels import Labeller
from prunedge.graph.rules.common import unknown
from prunedge.graph.rules.contractions import consume
from prunedge.graph.rules.registry import rule

_STATE = "is the state of a recurrent layer, which keeps its size"


@rule("mkldnn_rnn_layer")
def fused_layer(labeller: Labeller, call: Call) -> None:
    """One layer of an LSTM in one direction (oneDNN), from features to the states at all places.

    It gives (places, n, state), the last state and the last cell. A unit of the state has a row in
    each of the four gates of both weights and of both biases, and a column in the weight that reads
    the state. `nn.LSTM` has one size of the state for all its layers and directions: they lose the
    same units.
    """
    ledger = labeller.ledger
    input_weight = call["weight0"]
    input_view = labeller.param(input_weight)
    state_view = labeller.param(call["weight1"])
    if input_view is None or state_view is None:
        return unknown(labeller, call)
    if not _reads(labeller, call["input"], [input_weight]):
        return unknown(labeller, call)

    ledger.used.add(state_view.name)
    size = call.result.shape[-1]
    units = ledger.of(state_view, 1, "in")
    gates = []  # the atoms of the four gates, of each weight
    for view in (input_view, state_view):
        atoms = ledger.of(view, 0, "out")
        if atoms is not None and len(atoms) == 4 * size:
            gates.append(atoms.reshape(4, -1))
    if units is None or len(units) != size or len(gates) < 2:
        return labeller.freeze_all(call.tensors, _STATE)
    for atoms in gates:
        ledger.tie(units, atoms)

    biases = (call["weight2"], call["weight3"]) if call["has_biases"] else ()
    for bias in biases:
        shifts = None if labeller.param(bias) is None else labeller.promote(bias)
        if shifts is None:
            ledger.tie(units, torch.zeros(1, dtype=torch.int64), _STATE)
        else:
            ledger.tie(units, shifts.reshape(4, -1), _STATE)

    for start in (call["hx_"], call["cx_"]):
        labels = labeller.promote(start)
        if labels is not None:
            ledger.tie(lying_along(units, start.dim() - 1, start.dim()), labels, _STATE)
        elif not labeller.memory.is_filled(start):
            reason = "is the state of a recurrent layer, which starts with values of a fixed size"
            ledger.freeze(units, reason)

    first = labeller.states.setdefault(input_view.name.rpartition(".")[0], units)
    ledger.tie(first, units)
    for result in call.results[:3]:
        labeller.name(result, lying_along(units, result.dim() - 1, result.dim()))


@rule("_cudnn_rnn", "miopen_rnn")
def fused_layers(labeller: Labeller, call: Call) -> None:
    """All layers of a recurrent model at once (cuDNN).

    Of its weights, the first of each direction of the first layer read.
    """
    weights = call["weight"]
    each = call["weight_stride0"]  # weights of a direction
    directions = 2 if call["bidirectional"] else 1
    reading = [weights[direction * each] for direction in range(directions)]
    is_plain = len(weights) == call["num_layers"] * directions * each
    if not is_plain or not _reads(labeller, call["input"], reading):
        return unknown(labeller, call)

    for weight in reading:
        view = labeller.param(weight)
        assert view is not None
        labeller.ledger.freeze(labeller.ledger.of(view, 0, "out"), _STATE)
    rest = [x for x in call.tensors[1:] if all(x is not weight for weight in reading)]
    labeller.freeze_all(rest, _STATE)


def _reads(labeller: Labeller, x: torch.Tensor, weights: list[torch.Tensor]) -> bool:
    """Tie the channels of what is read to the columns of the weights that read it.

    False where they are no weights.
    """
    columns = []
    for weight in weights:
        view = labeller.param(weight)
        atoms = None if view is None else labeller.ledger.of(view, 1, "in")
        if view is None or atoms is None:
            return False
        columns.append((view, atoms))

    labels = labeller.promote(x)
    for view, atoms in columns:
        labeller.ledger.used.add(view.name)
        consume(labeller, labels, x.dim() - 1, atoms)
    return True
