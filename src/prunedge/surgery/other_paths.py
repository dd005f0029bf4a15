"""Whether a smaller model fits other paths through its code than evaluation at the traced size.

Training, another size of the image, and methods beside forward (`prunedge.graph.branches`) may come
to code that the proof does not run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prunedge.graph import ChannelGraph, call
from prunedge.graph.branches import other_paths
from prunedge.graph.forwards import OtherMethods, watching
from prunedge.graph.outputs import seen_in
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import undisturbed
from prunedge.graph.sizes import pinned_modules, pins_of, unpin
from prunedge.surgery.answers import precise_example
from prunedge.surgery.pins import naming_sizes, pin_sizes, reading_sizes
from prunedge.utils.machine import pass_on


def off_the_traced_path(graph: ChannelGraph, plan: Plan) -> set[str]:
    """Modules whose code names or reads sizes that the plan changes, on other paths alone."""
    return naming_sizes(graph, plan, off_path=True) | reading_sizes(graph, plan, off_path=True)


def misfits(small: nn.Module, model: nn.Module, graph: ChannelGraph, plan: Plan) -> dict[str, str]:
    """Modules whose code does not fit what is left of them on some other way, and why."""
    off_path = off_the_traced_path(graph, plan)
    if not off_path:
        return {}

    # Pinned for a moment, their code shows whether it names sizes from before.
    probed = off_path - {name for name, _ in pinned_modules(small)}
    try:
        pin_sizes(small, graph, plan, probed)
        reasons = run_other_paths(small, model, graph)
        for name in probed:
            if pins_of(small.get_submodule(name)).needed:
                reasons.setdefault(name, "its code names sizes from before")
    except Exception as error:  # whatever the user's forward raises
        pass_on(error)
        reasons = dict.fromkeys(off_path, f"{type(error).__name__}: {str(error)[:120]}")
    finally:
        for name in probed & {name for name, _ in pinned_modules(small)}:
            unpin(small.get_submodule(name))
    return reasons


def run_other_paths(small: nn.Module, model: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Run a smaller model as tracing ran the whole one beside evaluation.

    Gives the modules of which a method no longer answers as forward does, and how. Raises what the
    smaller model raises on a way that the whole one takes.
    """
    reasons: dict[str, str] = {}
    for training, example, methods in other_paths(graph.example, graph.forward_methods):
        try:
            verdicts = _take(small, training, example, methods)
        except Exception as error:
            pass_on(error)
            if _takes(model, training, example, methods):
                raise
            continue
        for _, module in pinned_modules(small):
            pins_of(module).settle()
        for name, reason_by_method in verdicts.items():
            for method, reason in reason_by_method.items():
                if reason:
                    reasons[name] = f"{method}: {reason}"
    return reasons


def _take(
    model: nn.Module, training: bool, example: Any, methods: OtherMethods
) -> dict[str, dict[str, str]]:
    """Run a model and its methods beside forward; gives where their answers differ from forward."""
    floating = (x.dtype for x in model.parameters() if x.is_floating_point())
    dtype = next(floating, torch.float32)
    with undisturbed(model), torch.no_grad(), watching(model, None, methods) as verdicts:
        model.train(training)
        seen_in(call(model, precise_example(example, dtype)), model)
    return verdicts


def _takes(model: nn.Module, training: bool, example: Any, methods: OtherMethods) -> bool:
    try:
        _take(model, training, example, methods)
    except Exception as error:  # whatever the user's forward raises: it was not made for this
        pass_on(error)
        return False
    return True
