"""Run the model once with labels beside its tensors, and read off which channels leave together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.branches import Aside
from prunedge.graph.channels import ChannelGraph
from prunedge.graph.components import settle
from prunedge.graph.groups import collect, module_of
from prunedge.graph.inputs import brought_to, tensors_of
from prunedge.graph.label_tensors import Labels
from prunedge.graph.layouts import Layouts, Sites
from prunedge.graph.ledger import Ledger, Sized
from prunedge.graph.observations import Reshape
from prunedge.graph.preserve import undisturbed
from prunedge.graph.sizes import SizedCalls
from prunedge.graph.tracer import Attention, Tracer
from prunedge.graph.unsupported import check_plain
from prunedge.utils.tracing import traced


@traced("trace")
def trace(model: nn.Module, example: Any, *, attention: Attention = "heads") -> ChannelGraph:
    """Find the channels of a model that can be removed, and what each removal takes along.

    `example` is a batch of inputs, (n, 3, height, width) float32, which is brought to the model's
    device; a tuple or a dict holds the positional or named arguments of a model with several
    inputs. `attention` says what leaves of it: whole heads, or the same `width` of every head. The
    model runs once in evaluation mode without gradients (so frozen backbones are seen like all
    others), and once more in training mode when evaluation leaves parameters unused (auxiliary
    heads); its mode, buffers and the random state stay as they were. Raises GraphError when the
    model does not run on the example, shows no tensor in its answer, or is no plain module
    (scripted, exported, quantized or prepared for it, wrapped, lazy).
    """
    check_plain(model)
    if any(tensor.is_meta for tensor in tensors_of(example)):
        raise GraphError(
            "the example holds a meta tensor, which has no values",
            remedy="give one with values: torch.zeros(2, 3, 224, 224)",
        )
    tracer = Tracer(model, brought_to(example, model), attention)
    with undisturbed(model):
        seen = tracer.evaluate()
        evaluated = _Evaluated.of(seen)
        unused = tracer.unused()
        is_trained = bool(unused)
        if unused:
            tracer.train(seen, unused)
        if tracer.unused():
            tracer.look_at_another_size(seen)
        aside = tracer.look_aside(seen, is_trained)
    return _graph(tracer, seen, evaluated, aside)


@dataclass(frozen=True)
class _Evaluated:
    """The sites in the modules' code that evaluation at the example's size has come to."""

    turns: Sites
    reads: Sites

    @classmethod
    def of(cls, seen: SizedCalls) -> _Evaluated:
        turns = {module: set(sites) for module, sites in seen.turns.items()}
        reads = {module: set(sites) for module, sites in seen.reads.items()}
        return cls(turns, reads)


def _graph(tracer: Tracer, seen: SizedCalls, evaluated: _Evaluated, aside: Aside) -> ChannelGraph:
    """The graph, when all runs are over."""
    ledger = tracer.ledger
    component = settle(ledger)
    groups, frozen, homes = collect(ledger, component)
    layouts = Layouts(component, homes)

    aside_resizes = _known_aside(aside, seen, layouts)
    resizes = []
    for sized in ledger.resizes:
        is_aside = sized.call.site not in evaluated.turns.get(sized.module, ())
        resizes.append(layouts.resize(sized, aside=is_aside))
    for sized in aside_resizes:
        resizes.append(layouts.resize(sized, aside=True))

    sized_reads = list(ledger.reads)
    if aside_resizes or not aside.lost:
        sized_reads += aside.reads
    reads = [layouts.read(sized, evaluated.reads) for sized in sized_reads]

    slices = _slices_in_code(tracer.model, ledger)
    divided = [*ledger.divisions, *_without_repeats(slices)]
    is_irregular = ledger.irregular or divided or resizes or ledger.conditions
    operations = [layouts.operation(operation) for operation in ledger.operations]

    weights = {operation.weight for operation in operations if operation.weight}
    weights |= ledger.positions.keys()
    layers = [(module_of(name), name) for name in tracer.tensors if name in weights]
    return ChannelGraph(
        groups=tuple(groups),
        frozen=tuple(frozen),
        operations=tuple(operations),
        shapes=ledger.shapes,
        trainable=tracer.trainable,
        layers=tuple(layers),
        example=tracer.example,
        statistics=tuple(layouts.statistic(mixing) for mixing in ledger.mixings),
        reshapes=tuple(Reshape(module, layouts.of(labels)) for module, labels in divided),
        resizes=tuple(resizes),
        sized_calls=_frozen_turns(seen),
        factors=seen.factors,
        reshaped=seen.shapes,
        ways=tracer.ways,
        reads=tuple(read for read in reads if read is not None),
        dividing=frozenset(sized.module for sized in sized_reads if _divides(sized, seen)),
        regular=not (is_irregular or any(seen.factors.values())),
    )


def _known_aside(aside: Aside, seen: SizedCalls, layouts: Layouts) -> list[Sized]:
    """Add to `seen` what other ways through the code came to, and give their resizes.

    Neither where channels could not be followed on the way.
    """
    if any(layouts.holds_channels(atoms) for atoms in aside.lost):
        return []
    for (module, site), times in aside.turns.items():
        seen.turns.setdefault(module, {})[site] = times
    for module, factors in aside.factors.items():
        seen.factors.setdefault(module, {}).update(factors)
    for module, shapes in aside.shapes.items():
        seen.shapes.setdefault(module, {}).update(shapes)
    return aside.resizes


def _slices_in_code(model: nn.Module, ledger: Ledger) -> list[tuple[str, Labels]]:
    """The slices that modules' code takes of channels.

    Without torch's own convolutions, which know their groups from their weights.
    """
    slices = []
    for module, labels in ledger.slices:
        if not isinstance(model.get_submodule(module), nn.modules.conv._ConvNd):
            slices.append((module, labels))
    return slices


def _without_repeats(slices: list[tuple[str, Labels]]) -> Iterator[tuple[str, Labels]]:
    """Each slice of channels once, its labels flattened."""
    known: set[tuple[str, bytes]] = set()
    for module, labels in slices:
        line = labels.reshape(-1)
        key = (module, line.numpy().tobytes())
        if key not in known:
            known.add(key)
            yield module, line


def _frozen_turns(seen: SizedCalls) -> dict[str, dict[str, frozenset[int]]]:
    """How often the modules' forwards passed each site in their code."""
    turns = {}
    for module, sites in seen.turns.items():
        turns[module] = {site: frozenset(times) for site, times in sites.items()}
    return turns


def _divides(sized: Sized, seen: SizedCalls) -> bool:
    """Whether the module that reads these sizes divides or multiplies by one of them."""
    divisors = seen.divisors.get(sized.module, ())
    return any(labels.shape[dim] in divisors for _, labels, dim in sized.sizes)
