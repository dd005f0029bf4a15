"""Run the model once with labels beside its tensors, and read off which channels leave together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.branches import (
    OUTPUT,
    Aside,
    Beside,
    batched,
    goes_by_mode,
    look_aside,
    methods_beside,
    watching,
)
from prunedge.graph.channels import ChannelGraph, Reshape
from prunedge.graph.components import settle
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.groups import collect, module_of
from prunedge.graph.inputs import batch_of, brought_to, others, tensors_of
from prunedge.graph.label_tensors import Labels
from prunedge.graph.labels import Labeller
from prunedge.graph.layouts import Layouts, Places
from prunedge.graph.ledger import Ledger, Sized
from prunedge.graph.outputs import seen_in
from prunedge.graph.parameters import ParamView
from prunedge.graph.preserve import refresh, undisturbed
from prunedge.graph.rules import rule_for
from prunedge.graph.sizes import SizedCalls
from prunedge.graph.unsupported import check_plain
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import traced

Attention = Literal["heads", "width"]


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
    tracer = _Tracer(model, brought_to(example, model), attention)
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


def call(model: nn.Module, example: Any) -> Any:
    """The model's answer to an example: a tensor, a tuple of arguments, or named ones."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def floating(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter, of whatever kind of number, and floating buffer once, by its first name."""
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            tensors[name] = buffer
    return tensors


@dataclass(frozen=True)
class _Evaluated:
    """The places in the modules' code that evaluation at the example's size has come to."""

    turns: Places
    reads: Places

    @classmethod
    def of(cls, seen: SizedCalls) -> _Evaluated:
        turns = {module: set(sites) for module, sites in seen.turns.items()}
        reads = {module: set(sites) for module, sites in seen.reads.items()}
        return cls(turns, reads)


class _Tracer:
    """Runs of one model, whose labels go into the same ledger."""

    def __init__(self, model: nn.Module, example: Any, attention: Attention) -> None:
        if not batch_of(example):
            remedy = "give a batch of inputs, or a tuple or dict of them"
            raise GraphError("the example holds no tensor", remedy=remedy)
        self.model = model
        self.example = example
        self.attention = attention
        self.tensors = floating(model)
        self.trainable = frozenset(name for name, _ in model.named_parameters())
        self.ledger = Ledger({name: tuple(x.shape) for name, x in self.tensors.items()})
        self.ways: dict[str, tuple[str, ...]] = {}  # module -> methods that answer as forward does

    def unused(self) -> set[str]:
        """The parameters that no run has used so far."""
        known = {name for name in self.trainable if self.tensors[name].dim()}
        return known - self.ledger.used

    def evaluate(self) -> SizedCalls:
        """The run that counts: in evaluation mode, on the example."""
        self.model.eval()
        try:
            return self._run(self.example, self.ledger)
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            remedy = str(error)
            if any(tensor.is_meta for tensor in self.tensors.values()):
                load = "(model.to_empty(device=...), then load_state_dict)"
                remedy = f"its weights are on the meta device: load them first {load}"
            what, where = "the model does not run on the example", type(self.model).__name__
            raise GraphError(what, where=where, remedy=remedy) from error

    def train(self, seen: SizedCalls, unused: set[str]) -> None:
        """A run in training mode, for parameters that evaluation has not used."""
        self.model.train()
        with self._costs_kept():
            try:
                trained = self._run(batched(self.example), self.ledger)
            except Exception as error:
                pass_on(error)
                # Training mode may need what an example lacks; what only it uses stays as it is.
                reason = f"used in training only, which can't be traced: {error}"
                for name in unused:
                    self.ledger.freeze_param(ParamView(name, ()), reason)
            else:
                seen.add(trained)

    def look_at_another_size(self, seen: SizedCalls) -> None:
        """A run at another size: some layers have nothing to do at the example's."""
        other = next(others(self.example), None)
        if other is None:
            return
        unused = self.unused()
        self.model.eval()
        with self._costs_kept():
            elsewhere = self._try(other, self.ledger)
        if elsewhere is not None and unused & self.ledger.used:
            seen.add(elsewhere)

    def look_aside(self, seen: SizedCalls, is_trained: bool) -> Aside:
        """What other ways through the code come to; `is_trained`: training is seen already."""
        model, ledger = self.model, self.ledger
        beside = methods_beside(model)
        names_sizes = ledger.resizes or ledger.reads or any(seen.factors.values())
        if not (beside or names_sizes or goes_by_mode(model)):
            return Aside()

        def run(
            training: bool, batch: Any, scratch: Ledger | None, ways: Beside
        ) -> SizedCalls | None:
            # What one run leaves behind (anchors of a size) would keep the next from coming that
            # way.
            with undisturbed(model):
                model.train(training)
                if scratch is None:
                    return self._run_plainly(batch, ways)
                return self._try(batch, scratch, ways)

        return look_aside(self.example, ledger, seen, run, beside, is_trained)

    @contextmanager
    def _costs_kept(self) -> Iterator[None]:
        """Runs inside add nothing to what an image costs, nor to what mixes channels."""
        ledger = self.ledger
        operations, mixings = list(ledger.operations), list(ledger.mixings)
        yield
        ledger.operations = operations
        ledger.mixings = mixings

    def _try(self, example: Any, ledger: Ledger, beside: Beside | None = None) -> SizedCalls | None:
        """A run, or None where the model does not run in this way."""
        try:
            return self._run(example, ledger, beside)
        except Exception as error:
            pass_on(error)
            return None

    def _run(self, example: Any, ledger: Ledger, beside: Beside | None = None) -> SizedCalls:
        """Push labels through the model into the ledger; gives what was seen of its calls."""
        by_width = self.attention == "width"
        labeller = Labeller(ledger, rule_for, batch=batch_of(example), by_width=by_width)
        labeller.vary(tensors_of(example))
        for name, tensor in self.tensors.items():
            labeller.name(tensor, ParamView.whole(name, tensor) if tensor.dim() else None)

        model, code = self.model, labeller.code
        fused = FusedAttention()  # outside of `code`, which reads off the stack where a call stands
        with torch.no_grad(), watching(model, code, beside, compare=False), fused, code, labeller:
            # Inside: what modules keep of their weights is to be followed from these.
            refresh(model)
            # A generator goes on running while its tensors are taken out.
            outputs = seen_in(call(model, example), model)

        for tensor in outputs.values():
            ledger.freeze(labeller.labels(tensor), OUTPUT)
            view = labeller.param(tensor)
            if view is not None:
                ledger.freeze_param(view, OUTPUT)
        labeller.sizes.settle()
        code.leave()
        return code

    def _run_plainly(self, example: Any, beside: Beside) -> SizedCalls | None:
        """A run without labels; None where the model does not run in this way.

        The methods beside forward that answer as it does are noted.
        """
        model, code = self.model, SizedCalls()
        try:
            with torch.no_grad(), watching(model, code, beside) as verdicts, code:
                seen_in(call(model, example), model)
        except Exception as error:
            pass_on(error)
            return None
        for name, by_method in verdicts.items():
            alike = tuple(method for method, difference in by_method.items() if not difference)
            if alike:
                self.ways[name] = alike
        code.leave()
        return code


def _graph(tracer: _Tracer, seen: SizedCalls, evaluated: _Evaluated, aside: Aside) -> ChannelGraph:
    """The graph, when all runs are over."""
    ledger, model = tracer.ledger, tracer.model
    component = settle(ledger)
    groups, frozen, homes = collect(ledger, component)
    layouts = Layouts(component, homes)

    aside_resizes = _known_aside(aside, seen, layouts)
    resizes = []
    for sized in ledger.resizes:
        is_aside = sized.call.site not in evaluated.turns.get(sized.module, ())
        resizes.append(layouts.resize(sized, aside=is_aside))
    resizes += [layouts.resize(sized, aside=True) for sized in aside_resizes]

    sized_reads = list(ledger.reads)
    if aside_resizes or not aside.lost:
        sized_reads += aside.reads
    reads = [layouts.read(sized, evaluated.reads) for sized in sized_reads]

    parts = _parts_of_code(model, ledger)
    divided = [*ledger.divisions, *_each_once(parts)]
    is_irregular = ledger.irregular or divided or resizes or ledger.conditions
    operations = [layouts.operation(operation) for operation in ledger.operations]
    weights = {operation.weight for operation in operations if operation.weight}
    weights |= ledger.positions.keys()
    return ChannelGraph(
        groups=tuple(groups),
        frozen=tuple(frozen),
        operations=tuple(operations),
        shapes=ledger.shapes,
        trainable=tracer.trainable,
        layers=tuple((module_of(name), name) for name in tracer.tensors if name in weights),
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
    """Add to `seen` what other ways came to, and give their resizes.

    Neither where channels got lost from sight on the way.
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


def _parts_of_code(model: nn.Module, ledger: Ledger) -> list[tuple[str, Labels]]:
    """The parts that code takes of channels.

    torch's own convolutions know their groups from their weights.
    """
    own = nn.modules.conv._ConvNd
    return [
        (module, labels)
        for module, labels in ledger.parts
        if not isinstance(model.get_submodule(module), own)
    ]


def _each_once(parts: list[tuple[str, Labels]]) -> Iterator[tuple[str, Labels]]:
    """Parts of channels as one line each, of which one is enough."""
    known: set[tuple[str, bytes]] = set()
    for module, labels in parts:
        line = labels.reshape(-1)
        key = (module, line.numpy().tobytes())
        if key not in known:
            known.add(key)
            yield module, line


def _frozen_turns(seen: SizedCalls) -> dict[str, dict[str, frozenset[int]]]:
    """How often the modules' forwards passed each place in their code."""
    return {
        module: {site: frozenset(times) for site, times in sites.items()}
        for module, sites in seen.turns.items()
    }


def _divides(sized: Sized, seen: SizedCalls) -> bool:
    """Whether the module that reads these sizes divides or multiplies by one of them."""
    divisors = seen.divisors.get(sized.module, ())
    return any(labels.shape[dim] in divisors for _, labels, dim in sized.sizes)
