"""Run the network once with labels beside its tensors, and read off which channels leave together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.branches import OUTPUT, Aside, Beside, batched, goes_by_mode, look_aside, methods_beside, watching
from prunedge.graph.channels import ChannelGraph, Frozen, Group, Layout, Operation, Read, Reshape, Resize, Role, Slice, Statistic
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.inputs import batch_of, brought_to, others, tensors_of
from prunedge.graph.labels import Condition, Labeller, Ledger, Mixing, ParamView, Sized
from prunedge.graph.outputs import seen_in
from prunedge.graph.preserve import refresh, undisturbed
from prunedge.graph.rules import REGULAR, rule_for
from prunedge.graph.size_calls import SizedCalls
from prunedge.graph.unsupported import check_plain
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import timed

Attention = Literal["heads", "width"]
Part = tuple[str, int, int]  # tensor, dimension, how many indices along it a channel has


@timed("trace")
def trace(network: nn.Module, example: Any, *, attention: Attention = "heads") -> ChannelGraph:
    """Find the channels of a network that can be removed, and what each removal takes along.

    `example` is a batch of inputs, (n, 3, height, width) float32, which is brought to the network's device; a tuple or a dict holds the
    positional or named arguments of a network with several inputs. `attention` says what leaves of it: whole heads, or
    the same `width` of every head. The network runs once in
    evaluation mode without gradients (so frozen backbones are seen like all others), and once more in training mode
    when evaluation leaves parameters unused (auxiliary heads); its mode, buffers and the random state stay as they were.
    Raises GraphError when the network does not run on the example, shows no tensor in its answer, or is no plain module (scripted,
    exported, quantized or prepared for it, wrapped, lazy).
    """
    check_plain(network)
    if any(x.is_meta for x in tensors_of(example)):
        raise GraphError("the example holds a meta tensor, which has no values", remedy="give one with values: torch.zeros(2, 3, 224, 224)")
    example = brought_to(example, network)
    tensors = floating(network)
    ledger = Ledger({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    trainable = {name for name, _ in network.named_parameters()}
    with undisturbed(network):
        network.eval()
        seen = _run(network, example, tensors, ledger, attention)
        assert seen is not None
        evaluated = {module: set(sites) for module, sites in seen.turns.items()}
        read = {module: set(sites) for module, sites in seen.reads.items()}
        trained = False
        if unused := {n for n in trainable if tensors[n].dim()} - ledger.used:
            trained = True
            network.train()
            operations, mixings = list(ledger.operations), list(ledger.mixings)
            training = _run(network, batched(example), tensors, ledger, attention, only=unused)
            if training is not None:
                seen.add(training)
            ledger.operations, ledger.mixings = operations, mixings
            unused -= ledger.used
        other = next(others(example), None) if unused else None
        if other is not None:
            # Some layers have nothing to do at the example's size.
            network.eval()
            operations, mixings = list(ledger.operations), list(ledger.mixings)
            elsewhere = _run(network, other, tensors, ledger, attention, only=set())
            if elsewhere is not None and unused & ledger.used:
                seen.add(elsewhere)
            ledger.operations, ledger.mixings = operations, mixings
        aside, ways = Aside(), dict[str, tuple[str, ...]]()
        beside = methods_beside(network)
        if beside or ledger.resizes or ledger.reads or any(seen.factors.values()) or goes_by_mode(network):
            aside, ways = _others(network, example, tensors, ledger, seen, attention, beside, trained)
    # Convolutions of torch's own know their groups from their weights.
    parts = [(module, labels) for module, labels in ledger.parts if not isinstance(network.get_submodule(module), nn.modules.conv._ConvNd)]
    component = _settle(ledger)
    groups, frozen, home = _collect(ledger, component)
    resizes = _known_aside(aside, seen, component, home)
    reads = [*ledger.reads, *(aside.reads if resizes or not aside.lost else ())]
    costs = [_operation(op, component, home) for op in ledger.operations]
    order = {name: i for i, name in enumerate(tensors)}
    layers = sorted({op.weight for op in costs if op.weight} | ledger.positions.keys(), key=order.__getitem__)
    return ChannelGraph(
        groups=tuple(groups), frozen=tuple(frozen), operations=tuple(costs), shapes=ledger.shapes,
        trainable=frozenset(trainable), layers=tuple((_module(name), name) for name in layers), example=example,
        statistics=tuple(_statistic(mixing, component, home) for mixing in ledger.mixings),
        reshapes=tuple(Reshape(module, _layout(labels, component, home)) for module, labels in _squeezed(ledger.divisions, parts)),
        resizes=(
            *(_resize(one, component, home, one.call.site not in evaluated.get(one.module, ())) for one in ledger.resizes),
            *(_resize(one, component, home, aside=True) for one in resizes),
        ),
        sized_calls={module: {site: frozenset(times) for site, times in sites.items()} for module, sites in seen.turns.items()},
        factors=seen.factors,
        reshaped=seen.shapes,
        ways=ways,
        reads=tuple(one for one in (_read(one, component, home, read) for one in reads) if one is not None),
        dividing=frozenset(
            one.module for one in reads if any(labels.shape[dim] in seen.divisors.get(one.module, ()) for _, labels, dim in one.sizes)
        ),
        regular=not (
            ledger.irregular or ledger.divisions or parts or ledger.resizes or resizes or ledger.conditions
            or any(seen.factors.values())
        ),
    )  # fmt: skip


def _squeezed(divisions: list[tuple[str, torch.Tensor]], parts: list[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """What modules divide channels into: blocks, and parts, of which one line each is enough."""
    yield from divisions
    seen: set[tuple[str, bytes]] = set()
    for module, labels in parts:
        line = labels.reshape(-1)
        key = (module, line.numpy().tobytes())
        if key not in seen:
            seen.add(key)
            yield module, line


def floating(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter, of whatever kind of number, and floating buffer once, by the first of its names."""
    buffers = {name: tensor for name, tensor in network.named_buffers() if tensor.is_floating_point()}
    return {**dict(network.named_parameters()), **buffers}


def call(network: nn.Module, example: Any) -> Any:
    """The network's answer to an example: a tensor, a tuple of arguments, or a dict of named ones."""
    if isinstance(example, Mapping):
        return network(**example)
    return network(*example) if isinstance(example, tuple) else network(example)


def _run(
    network: nn.Module, example: Any, tensors: Mapping[str, torch.Tensor], ledger: Ledger, attention: Attention,
    only: set[str] | None = None, beside: Beside | None = None,
) -> SizedCalls | None:  # fmt: skip
    """Push labels through the network into the ledger; gives what was seen of its calls, or nothing where it does not run with `only`."""
    batch = batch_of(example)
    if not batch:
        raise GraphError("the example holds no tensor", remedy="give a batch of inputs, or a tuple or dict of them")
    labeller = Labeller(ledger, rule_for, batch=batch, by_width=attention == "width", regular=REGULAR)
    labeller.vary(tensors_of(example))
    for name, tensor in tensors.items():
        labeller.name(tensor, ParamView(name, _coordinates(tensor)) if tensor.dim() else None)
    try:
        fused = FusedAttention()  # outside of `sized`, which reads off the stack where a call stands in the code
        with torch.no_grad(), watching(network, labeller.sized, beside, compare=False), fused, labeller.sized, labeller:
            # Inside: what modules keep of their weights is to be followed from these.
            refresh(network)
            # A generator goes on running while its tensors are taken out.
            seen = seen_in(call(network, example), network)
    except Exception as error:
        pass_on(error)
        if only is not None:
            # Training mode may need what an example lacks; whatever only it uses then stays as it is.
            for name in only:
                ledger.freeze_param(ParamView(name, ()), f"used in training only, which can't be traced: {error}")
            return None
        if any(tensor.is_meta for tensor in tensors.values()):
            remedy = "its weights are on the meta device: load them first (network.to_empty(device=...), then load_state_dict)"
            raise GraphError("the network does not run on the example", where=type(network).__name__, remedy=remedy) from error
        raise GraphError("the network does not run on the example", where=type(network).__name__, remedy=str(error)) from error
    for tensor in seen.values():
        ledger.freeze(labeller.labels(tensor), OUTPUT)
        if (view := labeller.param(tensor)) is not None:
            ledger.freeze_param(view, OUTPUT)
    labeller.settle_memories()
    labeller.sized.leave()
    return labeller.sized


def _others(
    network: nn.Module, example: Any, tensors: Mapping[str, torch.Tensor], ledger: Ledger, seen: SizedCalls, attention: Attention,
    beside: Beside, trained: bool,
) -> tuple[Aside, dict[str, tuple[str, ...]]]:  # fmt: skip
    """What other ways through the code come to, and which methods beside forward answer as it does; `trained`: training is seen."""
    same: dict[str, tuple[str, ...]] = {}

    def run(training: bool, batch: Any, scratch: Ledger | None, methods: Beside) -> SizedCalls | None:
        # What one run leaves behind (anchors of a size) would keep the next from coming that way.
        with undisturbed(network):
            network.train(training)
            if scratch is not None:
                return _run(network, batch, tensors, scratch, attention, only=set(), beside=methods)
            return plainly(batch, methods)

    def plainly(batch: Any, methods: Beside) -> SizedCalls | None:
        sized = SizedCalls()
        try:
            with torch.no_grad(), watching(network, sized, methods) as verdicts, sized:
                seen_in(call(network, batch), network)
        except Exception as error:  # whatever the user's forward raises: this way can't be taken
            pass_on(error)
            return None
        for name, methods_of in verdicts.items():
            if alike := tuple(method for method, why in methods_of.items() if not why):
                same[name] = alike
        sized.leave()
        return sized

    return look_aside(example, ledger, seen, run, beside, trained), same


def _known_aside(aside: Aside, seen: SizedCalls, component: np.ndarray, home: Mapping[int, tuple[str, int]]) -> list[Sized]:
    """Add to `seen` what other ways came to, and give their resizes; neither where channels got lost from sight on the way."""
    if any(int(root) in home for atoms in aside.lost for root in np.unique(component[atoms])):
        return []
    for (module, site), times in aside.turns.items():
        seen.turns.setdefault(module, {})[site] = times
    for module, factors in aside.factors.items():
        seen.factors.setdefault(module, {}).update(factors)
    for module, shapes in aside.shapes.items():
        seen.shapes.setdefault(module, {}).update(shapes)
    return aside.resizes


def _coordinates(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    shape = tensor.shape
    lines = (torch.arange(size).reshape([-1 if i == d else 1 for i in range(len(shape))]) for d, size in enumerate(shape))
    return tuple(line.expand(shape) for line in lines)


def _settle(ledger: Ledger) -> np.ndarray:
    """Component of each atom, after everything that depends on how channels leave in the end has been decided."""
    conditions, decided = list(ledger.conditions), set()
    while True:
        component = _components(ledger)
        changed = False
        for place, (_, labels) in enumerate(ledger.divisions):
            varies = [d for d in range(labels.dim()) if not _same_along(component, labels, d)]
            if len(varies) > 1 and place in decided:
                continue  # some of it is no channel, and has frozen what it was to be tied to
            if len(varies) > 1:
                decided.add(place)
                # Nothing else says along which dimension they leave: the last, so that each block loses the same places.
                ledger.squash(labels, varies[:-1])
                changed = True
        if changed:
            continue
        waiting = []
        for one in conditions:
            if not _concerns(component, one):
                waiting.append(one)
            elif one.partner is None or one.dim < 0:
                ledger.freeze(one.labels if one.partner is None else one.partner, one.reason)
                changed |= one.partner is not None
            else:
                ledger.tie(one.labels, one.partner, one.reason)
                changed = True
        conditions = waiting
        if not changed:
            break
    for one in conditions:
        if one.dim < 0 and one.partner is not None:
            ledger.tie(one.labels, one.partner, one.reason)
    return _components(ledger) if conditions else component


def _concerns(component: np.ndarray, one: Condition) -> bool:
    """Whether channels leave one by one along the condition's dimension."""
    if one.dim >= 0:
        return not _same_along(component, one.labels, one.dim)
    assert one.partner is not None
    thin = [d for d, size in enumerate(one.partner.shape) if size == 1]
    return not all(_same_along(component, one.labels, d) for d in thin)


def _same_along(component: np.ndarray, labels: torch.Tensor, dim: int) -> bool:
    found = component[labels.numpy()]
    return bool((found == np.take(found, [0], axis=dim)).all())


def _layout(labels: torch.Tensor, component: np.ndarray, home: Mapping[int, tuple[str, int]]) -> Layout:
    roots, where = np.unique(component[labels.numpy()], return_inverse=True)
    names = sorted({home[root][0] for root in roots.tolist() if root in home})
    number = np.array([names.index(home[r][0]) if r in home else -1 for r in roots.tolist()], dtype=np.int64)
    channel = np.array([home[r][1] if r in home else 0 for r in roots.tolist()], dtype=np.int64)
    where = where.reshape(labels.shape)
    return Layout(tuple(names), number[where], channel[where])


def _operation(op: Operation | tuple[int, torch.Tensor], component: np.ndarray, home: Mapping[int, tuple[str, int]]) -> Operation:
    return op if isinstance(op, Operation) else Operation(None, op[0], _layout(op[1], component, home))


def _resize(one: Sized, component: np.ndarray, home: Mapping[int, tuple[str, int]], aside: bool = False) -> Resize:
    layouts = {id(labels): _layout(labels, component, home) for _, labels, _ in one.sizes}
    sizes = tuple((place, layouts[id(labels)], dim) for place, labels, dim in one.sizes)
    return Resize(one.module, one.call, sizes, aside, one.picked)


def _read(one: Sized, component: np.ndarray, home: Mapping[int, tuple[str, int]], evaluated: Mapping[str, set[str]]) -> Read | None:
    """A place that reads sizes; nothing where no channel that can leave is among them."""
    sizes = [(place, _layout(labels, component, home), dim) for place, labels, dim in one.sizes]
    sizes = [size for size in sizes if size[1].names]
    aside = one.call.site not in evaluated.get(one.module, ())
    return Read(one.module, one.call.site, tuple(sizes), aside) if sizes else None


def _statistic(mixing: Mixing, component: np.ndarray, home: Mapping[int, tuple[str, int]]) -> Statistic:
    layouts = tuple((dim, _layout(labels, component, home)) for dim, labels in zip(mixing.dims, mixing.labels, strict=True))
    return Statistic(mixing.op, mixing.call, mixing.dims, layouts)


def _collect(ledger: Ledger, component: np.ndarray) -> tuple[list[Group], list[Frozen], dict[int, tuple[str, int]]]:
    """Groups, frozen channels, and for each component that is a channel its group and number."""
    reasons: dict[int, str] = {}
    for atoms, reason in ledger.frozen:
        for root in np.unique(component[atoms]):
            reasons.setdefault(int(root), reason)
    places = [place for place in ledger.base if place in ledger.roles]
    sizes = [ledger.shapes[tensor][dim] for tensor, dim in places]
    indices = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
    firsts = np.repeat([ledger.base[place] for place in places], sizes).astype(np.int64)
    kinds, table = _kinds(component[firsts + indices], np.repeat(np.arange(len(places)), sizes), indices)
    groups: list[Group] = []
    frozen: list[Frozen] = []
    taken: set[str] = set()
    home: dict[int, tuple[str, int]] = {}
    for signature, roots in _by_piece(ledger, component, kinds):
        tensors = [(*places[place], count) for place, count in signature]
        whys: dict[str | None, list[int]] = {}
        lacking = _incomplete(tensors, ledger.roles)
        for root in roots:
            whys.setdefault(reasons.get(root) or lacking, []).append(root)
        for why, members in whys.items():
            name = _unique(_name(tensors, ledger.roles), taken)
            if why is None and len(members) == 1:
                why = "all of it leaves together, so that nothing would be left"
            if why is None:
                groups.append(_group(name, tensors, np.stack([table[root] for root in members]), ledger))
                home.update({root: (name, channel) for channel, root in enumerate(members)})
            else:
                frozen.append(Frozen(name, len(members), why))
    return groups, frozen, home


def _by_piece(
    ledger: Ledger, component: np.ndarray, kinds: Mapping[tuple[tuple[int, int], ...], list[int]]
) -> Iterator[tuple[tuple[tuple[int, int], ...], list[int]]]:
    """Channels of each kind, those apart that code picks as a piece: something of every piece has to stay."""
    pieces: dict[int, list[int]] = {}
    known: set[bytes] = set()
    for labels in ledger.pieces:
        roots = np.unique(component[labels.numpy()])
        if (key := roots.tobytes()) not in known:
            for root in roots.tolist():
                pieces.setdefault(root, []).append(len(known))
            known.add(key)
    for signature, members in kinds.items():
        apart: dict[tuple[int, ...], list[int]] = {}
        for root in members:
            apart.setdefault(tuple(pieces.get(root, ())), []).append(root)
        yield from ((signature, several) for several in apart.values())


def _kinds(
    roots: np.ndarray, places: np.ndarray, indices: np.ndarray
) -> tuple[dict[tuple[tuple[int, int], ...], list[int]], dict[int, np.ndarray]]:
    """Channels (roots) by what they consist of, ((place, how many there), ...), in the network's order; and the indices of each channel."""
    if not len(roots):
        return {}, {}
    found, first, where = np.unique(roots, return_index=True, return_inverse=True)
    turn = np.empty(len(found), dtype=np.int64)
    turn[np.argsort(first)] = np.arange(len(found))
    order = np.lexsort((indices, places, turn[where]))
    roots, places, indices = roots[order], places[order], indices[order].astype(np.int64)
    runs = np.flatnonzero(np.r_[True, (np.diff(roots) != 0) | (np.diff(places) != 0)])
    counts = np.diff(np.r_[runs, len(roots)])
    starts = np.flatnonzero(np.r_[True, np.diff(roots[runs]) != 0])
    kinds: dict[bytes, list[int]] = {}
    table: dict[int, np.ndarray] = {}
    meaning: dict[bytes, tuple[tuple[int, int], ...]] = {}
    for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), len(runs)], strict=True):
        key = places[runs[begin:end]].tobytes() + counts[begin:end].tobytes()
        root = int(roots[runs[begin]])
        if key not in kinds:
            meaning[key] = tuple(zip(places[runs[begin:end]].tolist(), counts[begin:end].tolist(), strict=True))
        kinds.setdefault(key, []).append(root)
        table[root] = indices[runs[begin] : runs[end] if end < len(runs) else len(roots)]
    return {meaning[key]: members for key, members in kinds.items()}, table


def _components(ledger: Ledger) -> np.ndarray:
    if not ledger.ties:
        return np.arange(ledger.atoms)
    a, b = (np.concatenate(side) for side in zip(*ledger.ties, strict=True))
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(ledger.atoms, ledger.atoms))
    return connected_components(graph, directed=False)[1]


def _incomplete(tensors: list[Part], roles: Mapping[tuple[str, int], Role]) -> str | None:
    found = {roles[tensor, dim] for tensor, dim, _ in tensors}
    if "in" not in found:
        return "nothing that prunedge can follow consumes these channels"
    return None if "out" in found else "nothing that prunedge can follow makes these channels"


def _group(name: str, tensors: list[Part], indices: np.ndarray, ledger: Ledger) -> Group:
    slices, start = [], 0
    for tensor, dim, count in tensors:
        slices.append(Slice(tensor, dim, indices[:, start : start + count], ledger.roles[tensor, dim]))
        start += count
    producer = next(part.tensor for part in slices if part.role == "out")
    return Group(name, len(indices), tuple(slices), ledger.positions.get(producer, 1))


def _name(tensors: list[Part], roles: Mapping[tuple[str, int], Role]) -> str:
    makers = [tensor for tensor, dim, _ in tensors if roles[tensor, dim] == "out"]
    return _module(makers[0] if makers else tensors[0][0])


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 2
    while candidate in taken:
        candidate, count = f"{name}#{count}", count + 1
    taken.add(candidate)
    return candidate
