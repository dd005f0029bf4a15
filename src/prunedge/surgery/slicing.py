"""Network and plan in, a smaller network out, with the proof that nothing else changed."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunedge.errors import GraphError, SurgeryError, WeightsError
from prunedge.graph import ChannelGraph, call, norm_by_blocks
from prunedge.graph.branches import Beside, other_ways, watching
from prunedge.graph.channels import Resize
from prunedge.graph.inputs import batch_of
from prunedge.graph.outputs import seen_in
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import copied, refresh, undisturbed
from prunedge.graph.size_calls import Call, Pick, Pin, Pinning, pin, pinned_modules, pins_of, unpin
from prunedge.surgery.attention import slim
from prunedge.surgery.verify import STRICT, TOLERANCE, Proof, Verdict, aliases, masked_outputs, precise, precise_example, taken
from prunedge.utils.machine import pass_on, pass_on_reading
from prunedge.utils.sanitize import by_kind
from prunedge.utils.tensor_files import save_tensors
from prunedge.utils.tracing import timed

__all__ = [
    "TOLERANCE", "OptimState", "Surgery", "adopt", "masked_outputs", "mend", "operate", "register_size_attribute", "remove",
    "restore_network", "save_network", "sizes_of", "slice_state",
]  # fmt: skip

log = logging.getLogger(__name__)

OptimState = dict[str, dict[str, torch.Tensor]]
_GROWTHS = 3  # how often modules near to a failure are pinned, too
_PATIENCE = 30  # attempts after which groups that fail together are no longer told apart
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_REGISTERED: list[tuple[type[nn.Module], str, Callable[[Any], int]]] = []
# Attributes with other names (windows, strides, depths) may hold the same number by accident.
_SIZE_WORDS = (
    "head",
    "group",
    "dim",
    "channel",
    "width",
    "embed",
    "feature",
    "plane",
    "inner",
    "hidden",
    "chs",
    "_c",
    "inp",
    "oup",
    "size_per",
    "radix",
)
_INPUT_WORDS = {"num_channels", "in_channels", "in_chans", "in_features", "in_dim", "input_dim", "inplanes"}


@dataclass(frozen=True)
class Surgery:
    """A network after a plan: the plan as it was carried out, the groups that could not be proven, and the difference.

    `difference` is the largest deviation from the masked network, relative to the largest output.
    """

    network: nn.Module
    plan: Plan
    refused: Mapping[str, str]
    difference: float


def remove(network: nn.Module, graph: ChannelGraph, plan: Plan, *, refused: Literal["raise", "leave"] = "raise") -> nn.Module:
    """A new, smaller network; `network` stays as it was.

    The result equals, to 1e-4 of the largest output, the network with the removed slices set to zero: on the graph's example, and on other
    values at another size and batch where the network takes one. Where that can't be shown for some of the groups, SurgeryError names
    them (its `refused` maps each to the reason), or, with `refused="leave"`, they are left whole. `operate` gives the reasons as well.
    """
    if refused not in ("raise", "leave"):
        raise ValueError(f"refused must be 'raise' or 'leave', not {refused!r}")
    surgery = operate(network, graph, plan)
    if surgery.refused and refused == "raise":
        names = "; ".join(f"{name}: {why}" for name, why in surgery.refused.items())
        raise SurgeryError(
            "channels could not be removed safely", where=names, refused=surgery.refused,
            remedy='keep these groups out of the plan, or leave them whole with refused="leave"',
        )  # fmt: skip
    return surgery.network


@timed("surgery")
def operate(network: nn.Module, graph: ChannelGraph, plan: Plan) -> Surgery:
    """Carry out as much of the plan as can be proven right; groups that can't are left whole and reported.

    Modules whose code works out sizes from others are pinned (`graph.calls`) where nothing simpler is right.
    """
    _refuse_other_network(network, graph)
    search = _Search(network, graph)
    small, verdict, pinned = search.with_pins(plan)
    refused: dict[str, str] = {}
    rest = plan
    while small is None:
        refused.update(search.guilty(rest, verdict, pinned))
        rest = plan.without(refused)
        if not rest.keep:
            small, verdict = copied(network), Verdict(0.0)
            break
        small, verdict, pinned = search.with_pins(rest)
    if refused:
        for line in by_kind(refused):
            log.warning("left whole, could not be proven: %s", line)
    return Surgery(small, rest, refused, verdict.difference)


def _refuse_other_network(network: nn.Module, graph: ChannelGraph) -> None:
    """GraphError where the graph is of a network of other tensors: another one, or this one before channels were removed."""
    tensors = {**dict(network.named_buffers()), **dict(network.named_parameters())}
    for name, shape in graph.shapes.items():
        if name not in tensors:
            raise GraphError(f"the graph is not of this network: it has no {name}", remedy="trace the network as it is now")
        if tuple(tensors[name].shape) != tuple(shape):
            what = f"the graph is not of this network: {name} has shape {tuple(tensors[name].shape)}, and {tuple(shape)} there"
            raise GraphError(what, remedy="trace the network as it is now")


@dataclass(frozen=True)
class _Way:
    """How to attempt a plan: `pinned` are modules that are pinned beside those whose channels it removes; None where none are.

    With `told`, the code that reads how wide these channels are is told what that was before.
    """

    pinned: frozenset[str] | None
    told: bool = False


class _Search:
    """Attempts at parts of a plan, until it is known which groups can't be proven.

    Where an attempt fails says which groups to suspect: those whose channels the module there has to do with, then those of the module
    around it, and so on outwards.
    """

    def __init__(self, network: nn.Module, graph: ChannelGraph) -> None:
        self._network, self._graph = network, graph
        self._proof = Proof(network, graph)
        self._order = {name: number for number, (name, _) in enumerate(network.named_modules())}
        self._attempts = 0
        self._failed = Verdict(0.0)

    def with_pins(self, plan: Plan) -> tuple[nn.Module | None, Verdict, _Way]:
        """The first of several attempts that can be proven: no pins, those where the plan removes channels, more where it fails, all.

        Code that goes by a width is told that from before where pins alone are not enough.
        More are for code that takes a size from another tensor, of which the plan removes channels while it leaves its own whole.
        Where none can be proven, the one that came farthest, of those that pin no more than they have a reason to.
        """
        best: tuple[nn.Module | None, Verdict, _Way] | None = None
        for way in self._ways(plan):
            small, verdict = self.attempt(plan, way)
            if small is not None:
                return self._fitting(small, verdict, plan, way)
            self._failed = verdict
            last = way.pinned is not None and way.pinned == _sized(self._graph)
            if best is None or (not last and self._reached(verdict) > self._reached(best[1])):
                best = None, verdict, way
        assert best is not None
        return best

    def _fitting(self, small: nn.Module, verdict: Verdict, plan: Plan, way: _Way) -> tuple[nn.Module | None, Verdict, _Way]:
        """What was proven, where other ways through its code fit it, too; else with those modules pinned, or nothing."""
        wanting = _unfit(small, self._network, self._graph, plan)
        if not wanting:
            return small, verdict, way
        pinned = (way.pinned or frozenset()) | wanting.keys()
        ways = [_Way(pinned, way.told)]
        if not way.told and _reading(self._graph, plan):
            ways.append(_Way(pinned, told=True))
        found: tuple[nn.Module | None, Verdict, _Way] | None = None
        for more in ways:
            again, verdict = self.attempt(plan, more)
            if again is not None:
                wanting = _unfit(again, self._network, self._graph, plan)
                if not wanting:
                    return again, verdict, more
                name, reason = next(iter(wanting.items()))
                why = f"another way through the code of {name or 'the network'} does not fit any more ({reason})"
                verdict = Verdict(float("inf"), why, name)
            found = found or (None, verdict, more)
        assert found is not None
        return found

    def _ways(self, plan: Plan) -> Iterator[_Way]:
        """What to pin beside the modules that the plan touches. Goes by how the last attempt failed."""
        yield _Way(None)
        sized = _sized(self._graph)
        touched = _touched(self._graph, plan, aside=False)
        if touched:
            yield _Way(frozenset())
        more: frozenset[str] = frozenset()
        for _ in range(_GROWTHS):
            # What is called alike but for numbers is written alike.
            near = max((name for name in sized - touched - more if _around(name, self._failed.place)), key=len, default=None)
            grown = more | {name for name in sized - touched if near is not None and _kind(name) == _kind(near)}
            if grown == more:
                break
            more = grown
            yield _Way(more)
        if sized > touched | more:
            yield _Way(sized)
        if _reading(self._graph, plan):
            yield _Way(frozenset(), told=True)

    def _reached(self, verdict: Verdict) -> int:
        return self._order.get(verdict.place or "", -1)

    def attempt(self, plan: Plan, way: _Way) -> tuple[nn.Module | None, Verdict]:
        """The network after the plan, where it can be proven in this way."""
        self._attempts += 1
        pinned = set() if way.pinned is None else _touched(self._graph, plan, aside=False) | way.pinned
        told = _reading(self._graph, plan) if way.told else set()
        small, verdict = self._attempted(plan, pinned, told, mended=False)
        if small is None and pinned and self._is_pinned(verdict.place, pinned):
            # Code that is pinned may compare what comes with a number of heads that an attribute holds.
            return self._attempted(plan, pinned, told, mended=True)
        return small, verdict

    def _is_pinned(self, place: str | None, pinned: set[str]) -> bool:
        return place is not None and place in pinned

    def _attempted(self, plan: Plan, pinned: set[str], told: set[str], *, mended: bool) -> tuple[nn.Module | None, Verdict]:
        """The network after the plan with these pins; `mended`: the attributes of pinned modules are, too."""
        try:
            small = _sliced(self._network, self._graph, plan, pinned, told, mended=mended)
        except GraphError as error:  # a module that can't be pinned
            return None, Verdict(float("inf"), str(error))
        # Code that works sizes out from others may work out a scale too. In networks whose attention is still flat
        # such a mistake hides under any tolerance that float32 needs.
        strict = any(True for _ in pinned_modules(small))
        verdict, checked = self._compared(small, plan, strict)
        if not strict and verdict.why and (verdict.rounding or self._proof.is_torn(plan)):
            verdict, checked = self._compared(small, plan, True)
        if verdict.why:
            return None, verdict
        for name, module in list(pinned_modules(small)):
            pinning = pins_of(checked.get_submodule(name))
            if pinning.needed:
                pin(module, pinning)
            else:
                unpin(module)
        return small, verdict

    def _complete_pins(self, checked: nn.Module, plan: Plan) -> None:
        """What the pins do not know after one forward is found out on other ways through the code; whatever is open then stays as it is."""
        pinned = dict(pinned_modules(checked))
        aside = (_touched(self._graph, plan, aside=True) | _reading(self._graph, plan, aside=True)) & pinned.keys()
        try:
            if aside:
                _take_other_ways(checked, self._network, self._graph)
        except Exception as error:  # whatever the user's forward raises: `_unfit` meets it, too, and tells
            pass_on(error)
            for name in aside:
                pins_of(pinned[name]).needed = True
        for module in pinned.values():
            pins_of(module).close()

    def _compared(self, small: nn.Module, plan: Plan, strict: bool) -> tuple[Verdict, nn.Module]:
        dtype, tolerance = (torch.float64, STRICT) if strict else (torch.float32, TOLERANCE)
        checked = precise(small, dtype)
        try:
            return self._proof.compare(checked, plan, dtype, tolerance, lambda one: self._complete_pins(one, plan)), checked
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            if not strict:
                raise
            return Verdict(float("inf"), f"can't be compared in double precision ({type(error).__name__}: {str(error)[:120]})"), checked

    def guilty(self, plan: Plan, verdict: Verdict, way: _Way) -> dict[str, str]:
        """Groups of a plan that failed so, at least one, and why they can't be proven."""
        before: list[str] = []
        scope = verdict.place or ""
        while True:
            near = self._touching(scope, plan)
            fresh = [name for name in near if name not in before]
            found = self._unproven(plan, fresh, way) if fresh else {}
            if found:
                return {**found, **self._alike(plan, found, way)}
            # Each is fine by itself: then together, the nearest ones?
            if fresh and (before or len(fresh) > 1) and (why := self._why(plan, near, way)):
                return dict.fromkeys(near, why)
            if not scope:
                return dict.fromkeys(plan.keep, verdict.why)
            before = near
            scope = scope.rpartition(".")[0]

    def _touching(self, scope: str, plan: Plan) -> list[str]:
        """Groups of the plan whose channels the code in this module, or in those inside it, meets."""
        names = [group.name for group in self._graph.groups if group.name in plan.keep]
        if not scope:
            return names
        inside = {group.name for group in self._graph.groups for part in group.slices if f"{part.tensor}.".startswith(f"{scope}.")}
        for one in self._graph.reshapes:
            if f"{one.module}.".startswith(f"{scope}."):
                inside.update(one.layout.names)
        for resize in self._graph.resizes:
            if f"{resize.module}.".startswith(f"{scope}."):
                inside.update(name for _, layout, _ in resize.sizes for name in layout.names)
        return [name for name in names if name in inside]

    def _unproven(self, plan: Plan, names: list[str], way: _Way) -> dict[str, str]:
        """Those of these groups that can't be proven by themselves, with the reason."""
        why = self._why(plan, names, way)
        if not why:
            return {}
        if len(names) == 1 or self._attempts > _PATIENCE:
            return dict.fromkeys(names, why)
        half = len(names) // 2
        return {**self._unproven(plan, names[:half], way), **self._unproven(plan, names[half:], way)}

    def _alike(self, plan: Plan, found: Mapping[str, str], way: _Way) -> dict[str, str]:
        """Groups that are called like one that was found, but for numbers: where the last of them fails too, all do.

        The same code at its first and its last place bakes in a size, and each further proof would say so again.
        """
        alike: dict[str, str] = {}
        for name, why in found.items():
            family = [one for one in plan.keep if one not in found and one not in alike and _kind(one) == _kind(name)]
            if family and self._why(plan, family[-1:], way):
                alike.update(dict.fromkeys(family, why))
        return alike

    def _why(self, plan: Plan, names: list[str], way: _Way) -> str:
        return self.attempt(Plan({name: plan.keep[name] for name in names}), way)[1].why


def _unfit(small: nn.Module, whole: nn.Module, graph: ChannelGraph, plan: Plan) -> dict[str, str]:
    """Modules whose code does not fit what is left of them in training, at another size, or in a method beside forward; and why."""
    aside = _touched(graph, plan, aside=True) | _reading(graph, plan, aside=True)
    if not aside:
        return {}
    probes = aside - {name for name, _ in pinned_modules(small)}
    wanting: dict[str, str] = {}
    try:
        _pin_sizes(small, graph, plan, probes)
        wanting = _take_other_ways(small, whole, graph)
        for name in probes:
            if pins_of(small.get_submodule(name)).needed:
                wanting.setdefault(name, "its code names sizes from before")
    except Exception as error:  # whatever the user's forward raises
        pass_on(error)
        wanting = dict.fromkeys(aside, f"{type(error).__name__}: {str(error)[:120]}")
    finally:
        for name in probes & {name for name, _ in pinned_modules(small)}:
            unpin(small.get_submodule(name))
    return wanting


def _take_other_ways(network: nn.Module, whole: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Run a network as tracing did beside evaluation: modules of which a method no longer answers as forward does, and how.

    Raises what the network raises on a way that the whole one takes.
    """
    found: dict[str, str] = {}
    for training, example, methods in other_ways(graph.example, graph.ways):
        try:
            verdicts = _take(network, training, example, methods)
        except Exception as error:
            pass_on(error)
            if _takes(whole, training, example, methods):
                raise
            continue
        for _, module in pinned_modules(network):
            pins_of(module).settle()
        for name, methods_of in verdicts.items():
            for method, why in methods_of.items():
                if why:
                    found[name] = f"{method}: {why}"
    return found


def _take(network: nn.Module, training: bool, example: Any, methods: Beside) -> dict[str, dict[str, str]]:
    """Run a network in this mode on this example, and its methods beside forward: what these do otherwise than it."""
    dtype = next((x.dtype for x in network.parameters() if x.is_floating_point()), torch.float32)
    with undisturbed(network), torch.no_grad(), watching(network, None, methods) as verdicts:
        network.train(training)
        seen_in(call(network, precise_example(example, dtype)), network)
    return verdicts


def _takes(network: nn.Module, training: bool, example: Any, methods: Beside) -> bool:
    try:
        _take(network, training, example, methods)
    except Exception as error:  # whatever the user's forward raises: it was not made for this
        pass_on(error)
        return False
    return True


def _touched(graph: ChannelGraph, plan: Plan, *, aside: bool) -> set[str]:
    """Modules with calls that name the sizes of channels of which the plan removes some."""
    return {
        one.module
        for one in graph.resizes
        if one.aside == aside and any(name in plan.keep for _, layout, _ in one.sizes for name in layout.names)
    }


def _reading(graph: ChannelGraph, plan: Plan, *, aside: bool = False) -> set[str]:
    """Modules with code that reads the sizes of channels of which the plan removes some; `aside`: on other ways than evaluation only.

    Where all that may go by the width are values that are divided by it, what is meant when channels have left (the mean of those that
    stay?) can't be told, so that the module is left to its own code.
    """
    alone = graph.dividing - {one.module for one in graph.resizes}
    return {
        one.module
        for one in graph.reads
        if (one.aside or not aside)
        and one.module not in alone
        and any(name in plan.keep for _, layout, _ in one.sizes for name in layout.names)
    }


def _sized(graph: ChannelGraph) -> frozenset[str]:
    """Modules with calls that name the sizes of any channels, or use factors."""
    return frozenset({one.module for one in graph.resizes if not one.aside} | set(graph.factors))


def _around(module: str, place: str | None) -> bool:
    """Whether the code of this module was running at the place."""
    return place is not None and f"{place}.".startswith(f"{module}." if module else "")


def _kind(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _like(old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(values, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else values


@timed("cut")
def _sliced(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str], told: set[str], *, mended: bool) -> nn.Module:
    tensors = aliases(network)
    swapped = {id(tensors[name]): _like(tensors[name], taken(tensors[name], dims)) for name, dims in graph.kept(plan).items()}
    small = copied(network, swapped)
    mend(small)
    _note_groups(network, small)
    pinned = pinned | {name for name, _ in pinned_modules(network)}
    told = told | {name for name, module in pinned_modules(network) if pins_of(module).reads}
    # What is told the widths from before may compare them with what it keeps.
    _mend_sizes(small, graph, plan, told if mended else pinned | told)
    _mend_inputs(small, network, told)
    _pin_sizes(small, graph, plan, pinned | told, told)
    _slim_attention(small)
    with torch.no_grad():
        refresh(small)
    return small


def _note_groups(network: nn.Module, small: nn.Module) -> None:
    """Note the groups of convolutions that have changed: the weights of one that has lost all groups but one do not tell."""
    before = dict(network.named_modules())
    noted = dict(small.__dict__.get("_prunedge_sizes", {}))
    for name, module in small.named_modules():
        if isinstance(module, _CONVOLUTIONS) and module.groups != before[name].groups:
            noted[f"{name}.groups".lstrip(".")] = module.groups
    if noted:
        small.__dict__["_prunedge_sizes"] = noted


def register_size_attribute(kind: type[nn.Module], attribute: str, size: Callable[[Any], int]) -> None:
    """Say how a size that a layer's Python code keeps follows from its weights: it is set after each surgery.

    For example `register_size_attribute(MyAttention, "inner", lambda layer: layer.out.in_features)`. Needed only where
    prunedge reports a group as left whole because the smaller network doesn't run.
    """
    _REGISTERED.append((kind, attribute, size))


def mend(network: nn.Module) -> None:
    """Bring the sizes that layers keep beside their weights in line with the weights."""
    for module in network.modules():
        _renew(module)
        if isinstance(module, _CONVOLUTIONS):
            _mend_convolution(module)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
            held = next((t for t in (module.weight, module.running_mean) if t is not None), None)
            if held is not None:
                module.num_features = len(held)
        elif isinstance(module, nn.GroupNorm) and module.affine and len(module.weight) != module.num_channels:
            if norm_by_blocks(module.num_groups, module.num_channels):
                module.num_groups = len(module.weight) // (module.num_channels // module.num_groups)
            module.num_channels = len(module.weight)
        elif isinstance(getattr(module, "normalized_shape", None), tuple) and isinstance(module.weight, torch.Tensor):
            module.__dict__["normalized_shape"] = tuple(module.weight.shape)
        elif isinstance(module, nn.PReLU):
            module.num_parameters = len(module.weight)
        elif isinstance(module, nn.Transformer):
            layer = next((one for one in module.modules() if isinstance(one, nn.MultiheadAttention)), None)
            if layer is not None:
                module.d_model = layer.out_proj.weight.shape[0]
        elif isinstance(module, nn.RNNBase):
            _mend_recurrent(module)
        elif isinstance(module, nn.RNNCellBase):
            module.input_size = module.weight_ih.shape[1]
            module.hidden_size = module.weight_hh.shape[1]
    for kind, attribute, size in _REGISTERED:
        for module in network.modules():
            if isinstance(module, kind):
                setattr(module, attribute, size(module))


def _renew(module: nn.Module) -> None:
    """Compute the weights anew that torch's old norms of weights keep from their last call, so that they have the size of today."""
    for hook in module._forward_pre_hooks.values():
        with torch.no_grad():
            if isinstance(hook, SpectralNorm):
                setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))
            elif isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module))


def _mend_recurrent(module: nn.RNNBase) -> None:
    first = dict(module.named_parameters())
    module.input_size = first["weight_ih_l0"].shape[1]
    module.hidden_size = len(first["weight_ih_l0"]) // {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    if module.proj_size:
        module.proj_size = len(first["weight_hr_l0"])


def _mend_convolution(module: nn.modules.conv._ConvNd) -> None:
    outs, ins = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = outs, ins * module.groups
        return
    if module.groups == module.in_channels > 1 and ins == 1:
        module.groups = outs // (module.out_channels // module.groups)
    module.out_channels, module.in_channels = outs, ins * module.groups


def _pin_sizes(network: nn.Module, graph: ChannelGraph, plan: Plan, names: set[str], told: Collection[str] = ()) -> None:
    """Give the calls that name sizes in these modules those that are left of them; those of `told` read the widths from before."""
    reads = _read_anew(network, graph, plan, names, told)
    pins: dict[str, dict[Call, dict[int, Pin]]] = {}
    picks = {name: _picks_before(network, graph, name) for name in names}
    for name in names:
        # Channels that have come down to one are none any more to the graph: a split keeps what it was pinned to.
        before, known = pins_of(network.get_submodule(name)), graph.sized_calls.get(name, {})
        pins[name] = {call: dict(sizes) for call, sizes in before.sizes.items() if call.site in known}
    fresh: dict[tuple[str, Call, int], Pin] = {}
    chosen: dict[tuple[str, Call, int, int], Pick] = {}
    for one in graph.resizes:
        if one.module not in pins:
            continue
        for dim, pick in _picked_anew(one, plan):
            if chosen.setdefault((one.module, one.call, dim, pick.width), pick) != pick:
                raise _differing(one)
            picks[one.module].setdefault(one.call, {})[dim, pick.width] = pick
        if one.picked:
            continue
        sizes = pins[one.module].setdefault(one.call, {})
        for place, layout, axis in one.sizes:
            size = Pin(layout.number.shape[axis], len(layout.kept(plan)[axis]))
            first = fresh.setdefault((one.module, one.call, place), size)
            # Heads that are folded into a batch are as many more as that is larger in training.
            if first.own * size.now != size.own * first.now:
                raise _differing(one)
            sizes[place] = Pin(sizes[place].own if place in sizes else first.own, first.now)
    for name, found in pins.items():
        module = network.get_submodule(name)
        # The other sizes of its reshapes are what they are: its code may work them out from those that change.
        for reshape, shape in graph.reshaped.get(name, {}).items():
            sizes = found.setdefault(reshape, {})
            for place, number in enumerate(shape):
                if number is not None and (name, reshape, place) not in fresh:
                    sizes[place] = Pin(number, number)
        if found or picks[name] or reads[name] or name in graph.factors:
            places = {(asked, place) for asked, sizes in found.items() for place in sizes}
            factors, wanted = dict(pins_of(module).factors), dict(graph.factors.get(name, {}))
            turns = graph.sized_calls.get(name, {})
            pin(module, Pinning(found, turns, factors, picks[name], reads[name], wanted, places))


def _read_anew(
    network: nn.Module, graph: ChannelGraph, plan: Plan, names: set[str], told: Collection[str]
) -> dict[str, dict[str, dict[tuple[int, int], int]]]:
    """For each module and place in its code that reads a width, what it is told there: the width before anything was removed."""
    before = {name: pins_of(network.get_submodule(name)).reads for name in names}
    found = {name: {site: dict(widths) for site, widths in reads.items()} for name, reads in before.items()}
    fresh: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
    for one in graph.reads:
        if one.module not in names or not (one.module in told or before[one.module]):
            continue
        widths = fresh.setdefault((one.module, one.site), {})
        for dim, layout, axis in one.sizes:
            size, now = int(layout.number.shape[axis]), len(layout.kept(plan)[axis])
            own = before[one.module].get(one.site, {}).get((dim, size), size)
            found[one.module].get(one.site, {}).pop((dim, size), None)
            if widths.setdefault((dim, now), own) != own:
                raise GraphError(
                    f"one place in its code reads several widths that have become the same ({one.site})",
                    where=one.module or "the network", remedy="keep these groups out of the plan",
                )  # fmt: skip
    for (name, site), widths in fresh.items():
        found[name].setdefault(site, {}).update(widths)
    return found


def _picks_before(network: nn.Module, graph: ChannelGraph, name: str) -> dict[Call, dict[tuple[int, int], Pick]]:
    """What a module's calls are pinned to pick already: where no channels are left to the graph, they go on with that."""
    met = {one.call for one in graph.resizes if one.module == name and one.picked}
    known = graph.sized_calls.get(name, {})
    before = {call: picks for call, picks in pins_of(network.get_submodule(name)).picks.items() if call.site in known}
    return {
        call: {key: one._replace(said=None) for key, one in picks.items()} for call, picks in before.items() if call not in met
    }  # fmt: skip


def _picked_anew(one: Resize, plan: Plan) -> Iterator[tuple[int, Pick]]:
    """What is left of the positions that a call picks, as positions among those that are left; by dimension."""
    for (dim, layout, axis), positions in zip(one.sizes, one.picked, strict=False):
        kept = layout.kept(plan)[axis]
        stay = [place for place in positions if place in kept]
        yield dim, Pick(len(kept), tuple(np.searchsorted(kept, stay).tolist()))


def _differing(one: Resize) -> GraphError:
    return GraphError(
        f"one call in its code names different sizes from time to time ({one.call.site})", where=one.module or "the network",
        remedy="keep these groups out of the plan",
    )  # fmt: skip


def _mend_sizes(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str]) -> None:
    """Give modules whose code divides channels into blocks the new numbers of heads, widths and channels.

    Which of its integers hold them is read off their values and names; a wrong guess fails the proof. What was
    set is noted on the network, since its weights alone don't tell it.
    """
    sizes: dict[str, Any] = {}
    batch = batch_of(graph.example)
    for one in graph.reshapes:
        if one.module in pinned:
            continue
        kept = [len(indices) for indices in one.layout.kept(plan)]
        shape = one.layout.number.shape
        changed = {old: new for old, new in zip(shape, kept, strict=True) if old != new}
        if not changed:
            continue
        for start in range(len(shape) - 1):
            changed.setdefault(prod(shape[start:]), prod(kept[start:]))
        for old, new in list(changed.items()):
            if old % batch == 0 and new % batch == 0:
                changed.setdefault(old // batch, new // batch)  # code may fold the heads into the batch
        module = network.get_submodule(one.module)
        for name, value in list(vars(module).items()):
            key = f"{one.module}.{name}".lstrip(".")
            if isinstance(module, nn.MultiheadAttention) and name != "num_heads":
                continue  # the rest follows from its weights
            if type(value) is int and value in changed and key not in sizes and any(word in name for word in _SIZE_WORDS):
                setattr(module, name, changed[value])
                sizes[key] = changed[value]
    sizes.update(_mend_read(network, graph, plan, pinned, sizes.keys()))
    if sizes:
        network.__dict__["_prunedge_sizes"] = {**network.__dict__.get("_prunedge_sizes", {}), **sizes}


def _mend_read(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str], known: Collection[str]) -> dict[str, Any]:
    """Give attributes that the code reads where it names sizes of channels those that are left: {path: what was set}.

    An attribute counts where it holds the size that a call names, or the list of all of them, in every call that may read it. A
    wrong guess fails the proof.
    """
    guesses: dict[str, list[Any]] = {}
    for one in graph.resizes:
        module = network.get_submodule(one.module)
        if one.module in pinned or one.picked or isinstance(module, nn.MultiheadAttention):
            continue
        own = [layout.number.shape[axis] for _, layout, axis in one.sizes]
        now = [len(layout.kept(plan)[axis]) for _, layout, axis in one.sizes]
        for name in _reads(type(module), one.call.site):
            value = vars(module).get(name)
            path = f"{one.module}.{name}".lstrip(".")
            if type(value) is int and value in own:
                guesses.setdefault(path, []).extend(new for old, new in zip(own, now, strict=True) if old == value)
            elif isinstance(value, (list, tuple)) and len(own) > 1 and list(value) == own:
                guesses.setdefault(path, []).append(type(value)(now))
    found = {}
    for path, several in guesses.items():
        owner, _, name = path.rpartition(".")
        held, value = vars(network.get_submodule(owner)), several[0]
        if path not in known and all(one == value for one in several) and value != held[name]:
            held[name] = found[path] = value
    return found


def _reads(kind: type[nn.Module], site: str) -> set[str]:
    """The names of attributes in the code of the methods on the way to a call."""
    names: set[str] = set()
    for part in site.split(">"):
        method = part.partition(":")[0].rpartition(".")[2]
        function = inspect.unwrap(getattr(kind, method, None) or (lambda: None))
        names.update(getattr(getattr(function, "__code__", None), "co_names", ()))
    return names


def _mend_inputs(small: nn.Module, network: nn.Module, told: Collection[str]) -> None:
    """Bring what modules say of the width of their input in line with the layers in them that read it; some compare the two."""
    sizes: dict[str, int] = {}
    for name, module in network.named_modules():
        if name in told or isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            continue
        mended = small.get_submodule(name)
        for attribute in _INPUT_WORDS & vars(module).keys():
            value = vars(module)[attribute]
            widths = {_inputs(mended.get_submodule(child)) for child, layer in module.named_children() if _inputs(layer) == value}
            now = widths.pop() if len(widths) == 1 else value
            if type(value) is int and now != value and vars(mended)[attribute] == value:
                setattr(mended, attribute, now)
                sizes[f"{name}.{attribute}".lstrip(".")] = now
    if sizes:
        small.__dict__["_prunedge_sizes"] = {**small.__dict__.get("_prunedge_sizes", {}), **sizes}


def _inputs(layer: nn.Module) -> int:
    """How many channels a layer reads; -1 where it is none."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels if isinstance(layer, _CONVOLUTIONS) else -1


def _slim_attention(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            slim(module)


def sizes_of(network: nn.Module) -> Mapping[str, Any]:
    """What surgery has changed in its modules beside the weights, fit for JSON.

    {path of an attribute: integer}, and {path of a module followed by `()`: the sizes that its calls are pinned to}.
    """
    found: dict[str, Any] = dict(network.__dict__.get("_prunedge_sizes", {}))
    for name, module in pinned_modules(network):
        pinning = pins_of(module)
        found[f"{name}()"] = {
            "places": {site: sorted(times) for site, times in pinning.turns.items()},
            "sizes": [[*call, {str(place): list(one) for place, one in sizes.items()}] for call, sizes in pinning.sizes.items() if sizes],
            "factors": [[*call, factor] for call, factor in pinning.factors.items()],
            "picks": [[*call, [[dim, *one] for (dim, _), one in picks.items()]] for call, picks in pinning.picks.items() if picks],
        }
        if pinning.reads:
            widths = {site: [[*key, own] for key, own in widths.items()] for site, widths in pinning.reads.items()}
            found[f"{name}()"]["reads"] = widths
    return found


@timed("slice state")
def slice_state(state: OptimState, graph: ChannelGraph, plan: Plan) -> OptimState:
    """The optimizer's state (parameter name -> {buffer name: tensor}) with the same channels removed as the weights."""
    kept = graph.kept(plan)
    return {
        name: {
            key: taken(value, kept[name]) if name in kept and tuple(value.shape) == graph.shapes[name] else value.clone()
            for key, value in buffers.items()
        }
        for name, buffers in state.items()
    }


def adopt(network: nn.Module, tensors: Mapping[str, torch.Tensor], sizes: Mapping[str, Any] | None = None) -> nn.Module:
    """The network with these weights, whatever their widths: rebuilds a pruned network from its saved tensors and `sizes_of` it.

    `tensors` is a whole state dict; a tensor may be narrower than the network's own, never wider or of another rank.
    Raises WeightsError naming each tensor that is missing, unknown or doesn't fit.
    """
    own = network.state_dict(keep_vars=True)
    wrong = [f"{name}: missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name}: unknown" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        have, want = tuple(tensors[name].shape), tuple(own[name].shape)
        if len(have) != len(want) or any(h > w or h < 1 for h, w in zip(have, want, strict=True)):
            wrong.append(f"{name}: {have} does not fit {want}")
        elif tensors[name].is_floating_point() != own[name].is_floating_point():
            wrong.append(f"{name}: {tensors[name].dtype} does not fit {own[name].dtype}")
    if wrong:
        remedy = "is it the network of that name, and has its code changed since?"
        raise WeightsError("the saved weights do not fit the network", where="; ".join(sorted(wrong)[:8]), remedy=remedy)
    small = copied(network, {id(own[name]): _like(own[name], value.clone()) for name, value in tensors.items()})
    mend(small)
    attributes = {path: size for path, size in (sizes or {}).items() if not path.endswith("()")}
    for path, size in attributes.items():
        module, _, name = path.rpartition(".")
        held = vars(small.get_submodule(module))
        # JSON knows no tuples.
        held[name] = tuple(size) if isinstance(held.get(name), tuple) else size
    if attributes:
        small.__dict__["_prunedge_sizes"] = attributes
        mend(small)  # what follows from the groups of convolutions
    for path, found in (sizes or {}).items():
        if path not in attributes:
            name = path.removesuffix("()")
            if name not in dict(small.named_modules()):
                remedy = "is it the network of that name, and has its code changed since?"
                raise WeightsError("the saved sizes do not fit the network", where=f"{name}: no such module", remedy=remedy)
            turns = {site: frozenset(times) for site, times in found["places"].items()}
            calls = {Call(site, turn): {int(place): Pin(*numbers) for place, numbers in one.items()} for site, turn, one in found["sizes"]}
            factors = {Call(site, turn): float(factor) for site, turn, factor in found["factors"]}
            picks = {Call(site, turn): dict(map(_pick, several)) for site, turn, several in found.get("picks", ())}
            reads = {site: {(dim, now): own for dim, now, own in widths} for site, widths in found.get("reads", {}).items()}
            pin(small.get_submodule(name), Pinning(calls, turns, factors, picks, reads))
    _slim_attention(small)
    with torch.no_grad():
        refresh(small)
    return small


def _pick(saved: list[Any]) -> tuple[tuple[int, int], Pick]:
    """What a call picks along a dimension of a width, from JSON, which knows no tuples."""
    dim, width, now, said = saved
    return (dim, width), Pick(width, tuple(now), None if said is None else tuple(said))


def save_network(network: nn.Module, file: Path) -> None:
    """Write a network's tensors, and what else `restore_network` needs, as safetensors."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    save_tensors(tensors, file, {"sizes": json.dumps(dict(sizes_of(network)))})


def restore_network(network: nn.Module, file: Path) -> nn.Module:
    """A network of that name at its full width becomes the pruned one that `save_network` wrote.

    Raises WeightsError when the file can't be read or doesn't fit.
    """
    try:
        with safe_open(file, "pt") as opened:
            sizes = json.loads((opened.metadata() or {}).get("sizes", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
    except (OSError, SafetensorError) as error:
        pass_on_reading(error, file)
        raise WeightsError(f"can't read the weights: {error}", where=file, remedy="the file is damaged; make it again") from None
    return adopt(network, tensors, sizes)
