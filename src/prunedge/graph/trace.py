"""Run the model once with labels beside its tensors, and read off which channels leave together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.branches import OtherPaths
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
        others = tracer.explore_other_paths(seen, is_trained)
    return _graph(tracer, seen, evaluated, others)


@dataclass(frozen=True)
class _Evaluated:
    """The sites in the modules' code that evaluation at the example's size has come to."""

    visits: Sites
    reads: Sites

    @classmethod
    def of(cls, seen: SizedCalls) -> _Evaluated:
        visits = {module: set(sites) for module, sites in seen.visits.items()}
        reads = {module: set(sites) for module, sites in seen.reads.items()}
        return cls(visits, reads)


def _graph(
    tracer: Tracer, seen: SizedCalls, evaluated: _Evaluated, others: OtherPaths
) -> ChannelGraph:
    """The graph, when all runs are over."""
    ledger = tracer.ledger
    component = settle(ledger)
    groups, frozen, homes = collect(ledger, component)
    layouts = Layouts(component, homes)

    off_path_resizes = _known_off_path(others, seen, layouts)
    resizes = []
    for sized in ledger.resizes:
        is_off_path = sized.call.site not in evaluated.visits.get(sized.module, ())
        resizes.append(layouts.resize(sized, off_path=is_off_path))
    for sized in off_path_resizes:
        resizes.append(layouts.resize(sized, off_path=True))

    sized_reads = list(ledger.reads)
    if off_path_resizes or not others.lost:
        sized_reads += others.reads
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
        sized_calls=_frozen_visits(seen),
        factors=seen.factors,
        reshaped=seen.shapes,
        forward_methods=tracer.forward_methods,
        reads=tuple(read for read in reads if read is not None),
        dividing=frozenset(sized.module for sized in sized_reads if _divides(sized, seen)),
        regular=not (is_irregular or any(seen.factors.values())),
    )


def _known_off_path(others: OtherPaths, seen: SizedCalls, layouts: Layouts) -> list[Sized]:
    """Add to `seen` what other paths through the code came to, and give their resizes.

    Neither where channels could not be followed on the way.
    """
    if any(layouts.holds_channels(atoms) for atoms in others.lost):
        return []
    for (module, site), times in others.visits.items():
        seen.visits.setdefault(module, {})[site] = times
    for module, factors in others.factors.items():
        seen.factors.setdefault(module, {}).update(factors)
    for module, shapes in others.shapes.items():
        seen.shapes.setdefault(module, {}).update(shapes)
    return others.resizes


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


def _frozen_visits(seen: SizedCalls) -> dict[str, dict[str, frozenset[int]]]:
    """How often the modules' forwards passed each site in their code."""
    visits = {}
    for module, sites in seen.visits.items():
        visits[module] = {site: frozenset(times) for site, times in sites.items()}
    return visits


def _divides(sized: Sized, seen: SizedCalls) -> bool:
    """Whether the module that reads these sizes divides or multiplies by one of them."""
    divisors = seen.divisors.get(sized.module, ())
    return any(labels.shape[dim] in divisors for _, labels, dim in sized.sizes)
