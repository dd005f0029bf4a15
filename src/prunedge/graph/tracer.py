"""Runs of one model with labels beside its tensors, which all write into one ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.branches import (
    OUTPUT,
    OtherPaths,
    batched,
    explore_other_paths,
    goes_by_mode,
    other_methods,
)
from prunedge.graph.forwards import OtherMethods, watching
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.inputs import batch_of, others, tensors_of
from prunedge.graph.labels import Labeller
from prunedge.graph.ledger import Ledger
from prunedge.graph.outputs import seen_in
from prunedge.graph.parameters import ParamView
from prunedge.graph.preserve import refresh, undisturbed
from prunedge.graph.rules import rule_for
from prunedge.graph.sizes import SizedCalls
from prunedge.utils.machine import pass_on

Attention = Literal["heads", "width"]


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


class Tracer:
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
        self.forward_methods: dict[
            str, tuple[str, ...]
        ] = {}  # module -> methods that answer as forward does

    def unused(self) -> set[str]:
        """The parameters that no run has used so far."""
        with_dimensions = {name for name in self.trainable if self.tensors[name].dim()}
        return with_dimensions - self.ledger.used

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
            raise GraphError(
                "the model does not run on the example",
                where=type(self.model).__name__,
                remedy=remedy,
            ) from error

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

    def explore_other_paths(self, seen: SizedCalls, is_trained: bool) -> OtherPaths:
        """What other paths through the code come to; `is_trained`: training is seen already."""
        model = self.model
        ledger = self.ledger
        methods = other_methods(model)
        names_sizes = ledger.resizes or ledger.reads or any(seen.factors.values())
        if not (methods or names_sizes or goes_by_mode(model)):
            return OtherPaths()

        def run(
            training: bool, batch: Any, scratch: Ledger | None, methods: OtherMethods
        ) -> SizedCalls | None:
            # What a run leaves behind (anchors of a size) would keep the next from coming that way.
            with undisturbed(model):
                model.train(training)
                if scratch is None:
                    return self._run_plainly(batch, methods)
                return self._try(batch, scratch, methods)

        return explore_other_paths(self.example, ledger, seen, run, methods, is_trained)

    @contextmanager
    def _costs_kept(self) -> Iterator[None]:
        """Runs inside add nothing to what an image costs, nor to what mixes channels."""
        ledger = self.ledger
        operations = list(ledger.operations)
        mixings = list(ledger.mixings)
        yield
        ledger.operations = operations
        ledger.mixings = mixings

    def _try(
        self, example: Any, ledger: Ledger, methods: OtherMethods | None = None
    ) -> SizedCalls | None:
        """A run, or None where the model does not run in this way."""
        try:
            return self._run(example, ledger, methods)
        except Exception as error:
            pass_on(error)
            return None

    def _run(self, example: Any, ledger: Ledger, methods: OtherMethods | None = None) -> SizedCalls:
        """Push labels through the model into the ledger; gives what was seen of its calls."""
        by_width = self.attention == "width"
        labeller = Labeller(ledger, rule_for, batch=batch_of(example), by_width=by_width)
        labeller.vary(tensors_of(example))
        for name, tensor in self.tensors.items():
            labeller.name(tensor, ParamView.whole(name, tensor) if tensor.dim() else None)

        model = self.model
        code = labeller.code
        fused = FusedAttention()  # outside of `code`, which reads off the stack where a call stands
        with torch.no_grad(), watching(model, code, methods, compare=False), fused, code, labeller:
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

    def _run_plainly(self, example: Any, methods: OtherMethods) -> SizedCalls | None:
        """A run without labels; None where the model does not run in this way.

        The methods beside forward that answer as it does are noted.
        """
        model = self.model
        code = SizedCalls()
        try:
            with torch.no_grad(), watching(model, code, methods) as verdicts, code:
                seen_in(call(model, example), model)
        except Exception as error:
            pass_on(error)
            return None
        for name, differences in verdicts.items():
            alike = tuple(method for method, difference in differences.items() if not difference)
            if alike:
                self.forward_methods[name] = alike
        code.leave()
        return code
