"""The paths through a model's code that evaluation at the traced size does not take.

Training, another size of the image (anchors are made anew) and a method beside forward
(`forward_split`, which exporters take) come to reshapes of their own, which a smaller model must
know the sizes of, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.graph.forwards import OtherMethods
from prunedge.graph.inputs import batch_of, tensors_of
from prunedge.graph.ledger import Ledger, Sized
from prunedge.graph.sizes import CodeCall, Shape, SizedCalls, forward_methods

Run = Callable[[bool, Any, Ledger | None, OtherMethods], SizedCalls | None]
OUTPUT = "is the model's output"


@dataclass
class OtherPaths:
    """What the other paths through the code came to.

    `visits` are the sites that only they pass, `resizes`, `reads`, `factors` and `shapes` what is
    named there, and `lost` the atoms that could not be followed there.
    """

    resizes: list[Sized] = field(default_factory=list)
    reads: list[Sized] = field(default_factory=list)
    visits: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    factors: dict[str, dict[CodeCall, float]] = field(default_factory=dict)
    shapes: dict[str, dict[CodeCall, Shape]] = field(default_factory=dict)
    lost: list[np.ndarray] = field(default_factory=list)


def other_methods(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Each module's methods that take what its forward takes and are no part of it, by path."""
    methods = {}
    for path, module in model.named_modules():
        kind = type(module)
        main = getattr(module.forward, "__func__", kind.forward)
        others = [name for name in forward_methods(kind) if name != "forward"]
        if not others or not isinstance(main, FunctionType):
            continue
        takes = _takes(main)
        called = getattr(inspect.unwrap(main), "__code__", main.__code__).co_names
        candidates = [name for name in others if name not in (main.__name__, *called)]
        alike = [name for name in candidates if _takes(getattr(kind, name)) == takes]
        if main.__name__ != "forward" and _takes(kind.forward) == takes:
            alike.append("forward")  # another one was put in its place
        if alike:
            methods[path] = tuple(alike)
    return methods


def goes_by_mode(model: nn.Module) -> bool:
    """Whether code that is not torch's own asks whether it is training.

    Then training may come to reshapes of its own.
    """
    kinds: set[type] = set()
    for module in model.modules():
        kinds.update(type(module).__mro__)
    for kind in kinds:
        is_torchs = kind.__module__.startswith("torch.")
        if issubclass(kind, nn.Module) and not is_torchs and _reads_mode(vars(kind).values()):
            return True
    return any(_reads_mode(vars(module).values()) for module in model.modules())


def _reads_mode(members: Iterable[Any]) -> bool:
    """Whether the code of any of these functions, or of one inside of it, reads `training`."""
    functions = [inspect.unwrap(member) for member in members if isinstance(member, FunctionType)]
    waiting = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    while waiting:
        code = waiting.pop()
        if "training" in code.co_names:
            return True
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return False


def _takes(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def explore_other_paths(
    example: Any,
    ledger: Ledger,
    seen: SizedCalls,
    run: Run,
    methods: OtherMethods,
    trained: bool = False,
) -> OtherPaths:
    """Take the other paths, and note what they come to that `seen` did not.

    `run(training, example, ledger, methods)` runs the model, with labels where a ledger is given,
    and gives nothing where it does not run. Training is left out where it was `trained` already,
    with labels.
    """
    others = OtherPaths()
    known = {sized.module for sized in (*ledger.resizes, *ledger.reads)}
    for training, batch, tried in other_paths(example, methods):
        if training and trained:
            continue
        plain = run(training, batch, None, tried)
        if plain is None:
            continue
        if not (_new(plain, seen, others) or _reads_anew(plain, seen, known)):
            continue

        scratch = Ledger(ledger.shapes)
        scratch.atoms = ledger.atoms
        labelled = run(training, batch, scratch, tried)
        ledger.atoms = scratch.atoms
        if labelled is not None:
            _note_off_path(others, ledger, scratch, labelled, seen)
    return others


def _note_off_path(
    others: OtherPaths, ledger: Ledger, scratch: Ledger, labelled: SizedCalls, seen: SizedCalls
) -> None:
    """What a run with labels of its own ledger, `scratch`, has come to that `seen` did not."""
    new = _new(labelled, seen, others)
    for sized in scratch.resizes:
        if (sized.module, sized.call.site) in new:
            others.resizes.append(sized)
    for sized in scratch.reads:
        if sized.call.site not in seen.reads.get(sized.module, ()):
            others.reads.append(sized)

    lost = [atoms for atoms, reason in scratch.frozen if "does not follow" in reason]
    others.lost += lost
    if not lost:
        _add(ledger, scratch)

    for module, factors in labelled.factors.items():
        own = {call: factor for call, factor in factors.items() if (module, call.site) in new}
        others.factors.setdefault(module, {}).update(own)
    for module, shapes in labelled.shapes.items():
        come_to = {call: shape for call, shape in shapes.items() if (module, call.site) in new}
        others.shapes.setdefault(module, {}).update(come_to)
    others.visits.update(new)


def _add(ledger: Ledger, other: Ledger) -> None:
    """What another way through the code ties, keeps or picks holds for the model.

    It must go that way when it is smaller, too.
    """
    ledger.ties += other.ties
    ledger.conditions += other.conditions
    ledger.divisions += other.divisions
    ledger.pieces += other.pieces
    for atoms, reason in other.frozen:
        if reason != OUTPUT:
            ledger.frozen.append((atoms, reason))


def other_paths(example: Any, methods: OtherMethods) -> Iterator[tuple[bool, Any, OtherMethods]]:
    """How to run a model along its other paths.

    In which mode (true: training), on which example, and with which methods beside forward.
    """
    yield True, batched(example), {}
    larger = taller(example)
    if larger is not None:
        yield False, larger, {}
    if methods:
        yield False, example, methods


def _new(run: SizedCalls, seen: SizedCalls, others: OtherPaths) -> dict[tuple[str, str], set[int]]:
    """The sites in modules' code that are not known yet, with how often they were passed."""
    new = {}
    for module, sites in run.visits.items():
        known = seen.visits.get(module, {})
        for site, times in sites.items():
            if site not in known and (module, site) not in others.visits:
                new[module, site] = times
    return new


def _reads_anew(run: SizedCalls, seen: SizedCalls, modules: Collection[str]) -> bool:
    """Whether any of these modules, which meet channels, reads sizes at an unknown site."""
    return any(run.reads.get(module, set()) - seen.reads.get(module, set()) for module in modules)


def batched(example: Any) -> Any:
    """An example of a single input, twice: batch norm over single values does not train."""
    if batch_of(example) != 1:
        return example

    def twice(x: Any) -> Any:
        is_batch = isinstance(x, torch.Tensor) and x.dim() and len(x) == 1
        return torch.cat((x, x)) if is_batch else x

    return tree_map(twice, example)


def taller(example: Any) -> Any:
    """Images of twice the height; None where the example has none."""
    if not any(x.dim() == 4 for x in tensors_of(example)):
        return None

    def twice_as_tall(x: Any) -> Any:
        is_image = isinstance(x, torch.Tensor) and x.dim() == 4
        return torch.cat((x, x), -2) if is_image else x

    return tree_map(twice_as_tall, example)
