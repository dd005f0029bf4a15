"""Run the network once with labels beside its tensors, and read off which channels leave together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.utils._pytree import tree_flatten

from prunedge.errors import GraphError
from prunedge.graph.concepts import ChannelGraph, Frozen, Group, Role, Slice
from prunedge.graph.labels import Labeller, Ledger, ParamView
from prunedge.graph.rules import rule_for

Places = list[tuple[str, int, int]]  # (tensor, dimension, index) of each atom of a channel


def trace(network: nn.Module, example: torch.Tensor) -> ChannelGraph:
    """Find the channels of a network that can be removed, and what each removal takes along.

    `example` is a batch of inputs, (n, 3, height, width) float32, on the network's device. The network runs once in
    evaluation mode without gradients (so frozen backbones are seen like all others), and once more in training mode
    when evaluation leaves parameters unused (auxiliary heads); its mode, buffers and the random state stay as they were.
    Raises GraphError when the network does not run on the example.
    """
    tensors = _floating(network)
    ledger = Ledger({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    trainable = {name for name, _ in network.named_parameters()}
    with _undisturbed(network):
        network.eval()
        _run(network, example, tensors, ledger)
        if unused := {n for n in trainable if tensors[n].dim()} - ledger.used:
            network.train()
            operations = list(ledger.operations)
            _run(network, example, tensors, ledger, only=unused)
            ledger.operations = operations
    groups, frozen = _collect(ledger)
    order = {name: i for i, name in enumerate(tensors)}
    layers = sorted({op.weight for op in ledger.operations if op.weight} | ledger.positions.keys(), key=order.__getitem__)
    return ChannelGraph(
        groups=tuple(groups), frozen=tuple(frozen), operations=tuple(ledger.operations), shapes=ledger.shapes,
        trainable=frozenset(trainable), layers=tuple((_module(name), name) for name in layers), example=example,
    )  # fmt: skip


def _floating(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and floating buffer once, by the first of its names."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


def _run(
    network: nn.Module, example: torch.Tensor, tensors: Mapping[str, torch.Tensor], ledger: Ledger, only: set[str] | None = None
) -> None:
    labeller = Labeller(ledger, rule_for, batch=len(example))
    for name, tensor in tensors.items():
        labeller.name(tensor, ParamView(name, _coordinates(tensor)) if tensor.dim() else None)
    try:
        with torch.no_grad(), labeller:
            output = network(example)
    except Exception as error:
        if only is not None:
            # Training mode may need what an example lacks; whatever only it uses then stays as it is.
            for name in only:
                ledger.freeze_param(ParamView(name, ()), f"used in training only, which can't be traced: {error}")
            return
        raise GraphError("the network does not run on the example", where=type(network).__name__, remedy=str(error)) from error
    for tensor in tree_flatten(output)[0]:
        if isinstance(tensor, torch.Tensor):
            ledger.freeze(labeller.labels(tensor), "is the network's output")


def _coordinates(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    shape = tensor.shape
    lines = (torch.arange(size).reshape([-1 if i == d else 1 for i in range(len(shape))]) for d, size in enumerate(shape))
    return tuple(line.expand(shape) for line in lines)


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, mode in modes.items():
            module.training = mode


def _collect(ledger: Ledger) -> tuple[list[Group], list[Frozen]]:
    component = _components(ledger)
    reasons: dict[int, str] = {}
    for atoms, reason in ledger.frozen:
        for root in np.unique(component[atoms]):
            reasons.setdefault(int(root), reason)
    channels: dict[int, Places] = defaultdict(list)
    for (tensor, dim), first in ledger.base.items():
        if (tensor, dim) in ledger.roles:
            for index, root in enumerate(component[first : first + ledger.shapes[tensor][dim]].tolist()):
                channels[root].append((tensor, dim, index))
    kinds: dict[tuple[str | None, tuple[tuple[tuple[str, int], int], ...]], list[Places]] = defaultdict(list)
    for root, places in channels.items():
        counts: dict[tuple[str, int], int] = defaultdict(int)
        for tensor, dim, _ in places:
            counts[tensor, dim] += 1
        why = reasons.get(root) or _incomplete(counts, ledger.roles)
        kinds[why, tuple(counts.items())].append(places)
    groups: list[Group] = []
    frozen: list[Frozen] = []
    taken: set[str] = set()
    for (why, _), members in kinds.items():
        name = _unique(_name(members[0], ledger.roles), taken)
        if why is None:
            groups.append(_group(name, members, ledger))
        else:
            frozen.append(Frozen(name, len(members), why))
    return groups, frozen


def _components(ledger: Ledger) -> np.ndarray:
    if not ledger.ties:
        return np.arange(ledger.atoms)
    a, b = (np.concatenate(side) for side in zip(*ledger.ties, strict=True))
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(ledger.atoms, ledger.atoms))
    return connected_components(graph, directed=False)[1]


def _incomplete(counts: Mapping[tuple[str, int], int], roles: Mapping[tuple[str, int], Role]) -> str | None:
    found = {roles[place] for place in counts}
    if "in" not in found:
        return "nothing that prunedge can follow consumes these channels"
    return None if "out" in found else "nothing that prunedge can follow makes these channels"


def _group(name: str, members: list[Places], ledger: Ledger) -> Group:
    table: dict[tuple[str, int], list[list[int]]] = defaultdict(lambda: [[] for _ in members])
    for channel, places in enumerate(members):
        for tensor, dim, index in places:
            table[tensor, dim][channel].append(index)
    slices = tuple(
        Slice(tensor, dim, np.asarray(indices, dtype=np.int64), ledger.roles[tensor, dim]) for (tensor, dim), indices in table.items()
    )
    producer = next(part.tensor for part in slices if part.role == "out")
    return Group(name, len(members), slices, ledger.positions.get(producer, 1))


def _name(places: Places, roles: Mapping[tuple[str, int], Role]) -> str:
    makers = [tensor for tensor, dim, _ in places if roles[tensor, dim] == "out"]
    return _module(makers[0] if makers else places[0][0])


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 2
    while candidate in taken:
        candidate, count = f"{name}#{count}", count + 1
    taken.add(candidate)
    return candidate
