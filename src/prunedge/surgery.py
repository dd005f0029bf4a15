"""Network and plan in, a smaller network out, with the proof that nothing else changed."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from prunedge.attention import slim
from prunedge.errors import GraphError, SurgeryError, WeightsError
from prunedge.graph import ChannelGraph, Statistic, call, norm_by_blocks
from prunedge.graph.calls import Call, Pin, Pinning, pin, pinned_modules, pins_of, unpin
from prunedge.graph.concepts import KeptIndices
from prunedge.graph.undisturbed import copied, held_tensors, undisturbed
from prunedge.graph.ways import other_ways, watching
from prunedge.graph.zeroed import in_blocks, zeroed
from prunedge.plan import Plan
from prunedge.spans import timed

log = logging.getLogger(__name__)

OptimState = dict[str, dict[str, torch.Tensor]]
TOLERANCE = 1e-4  # relative to the largest output, float32: what the order of summation can change, with room to spare
STRICT = 1e-7  # the same for networks with pinned sizes, which are compared in float64
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
    "inp",
    "oup",
    "size_per",
    "radix",
)


@dataclass(frozen=True)
class Surgery:
    """A network after a plan: the plan as it was carried out, the groups that could not be proven, and the difference.

    `difference` is the largest deviation from the masked network, relative to the largest output.
    """

    network: nn.Module
    plan: Plan
    refused: Mapping[str, str]
    difference: float


def remove(network: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A new, smaller network; `network` stays as it was.

    The result equals, on the graph's example and to 1e-4 of the largest output, the network with the removed slices set to
    zero. Raises SurgeryError naming the groups for which that can't be shown.
    """
    surgery = operate(network, graph, plan)
    if surgery.refused:
        names = "; ".join(f"{name}: {why}" for name, why in surgery.refused.items())
        raise SurgeryError("channels could not be removed safely", where=names, remedy="keep these groups out of the plan")
    return surgery.network


@timed("surgery")
def operate(network: nn.Module, graph: ChannelGraph, plan: Plan) -> Surgery:
    """Carry out as much of the plan as can be proven right; groups that can't are left whole and reported.

    Modules whose code works out sizes from others are pinned (`graph.calls`) where nothing simpler is right.
    """
    pinned: set[str] = set()
    small, difference, why = _with_or_without_pins(network, graph, plan, pinned)
    if small is not None:
        return Surgery(small, plan, {}, difference)
    refused: dict[str, str] = {}
    families: dict[str, list[str]] = {}
    for name in plan.keep:
        families.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    for names in families.values():
        refused.update(_unproven(network, graph, plan, names, pinned))
    rest = plan.without(refused)
    small, difference, reason = _attempt(network, graph, rest, pinned)
    if small is None:
        # Each group is fine by itself but not together: trust none of them.
        refused, rest = dict.fromkeys(plan.keep, reason or why), Plan({})
        small, difference, _ = copied(network), 0.0, ""
    log.warning("left whole, could not be proven: %s", ", ".join(refused))
    return Surgery(small, rest, refused, difference)


def _unproven(network: nn.Module, graph: ChannelGraph, plan: Plan, names: list[str], pinned: set[str]) -> dict[str, str]:
    """Those of these groups, alike in all but their numbers, that can't be proven right, with the reason.

    Adds to `pinned` the modules that have to be for those that can.
    """
    small, _, why = _with_or_without_pins(network, graph, Plan({name: plan.keep[name] for name in names}), pinned)
    if small is not None:
        return {}
    if len(names) == 1:
        return {names[0]: why}
    half = len(names) // 2
    first, last = (_with_or_without_pins(network, graph, Plan({name: plan.keep[name]}), set()) for name in (names[0], names[-1]))
    if first[0] is None and last[0] is None:
        # The same code at its first and its last place: it bakes in a size, and each further proof would say so again.
        return dict.fromkeys(names, first[2])
    halves = names[:half], names[half:]
    return {name: why for part in halves for name, why in _unproven(network, graph, plan, part, pinned).items()}


def _with_or_without_pins(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str]) -> tuple[nn.Module | None, float, str]:
    """The first of three attempts that can be proven: no pins, those where the plan removes channels, and all.

    The last is for code that takes a size from another tensor, of which the plan removes channels while it leaves its own whole.
    """
    small, difference, why = _attempt(network, graph, plan, set())
    tried: set[str] = set()
    for sized in _sized(graph, plan):
        if small is None and sized > tried:
            small, difference, why = _attempt(network, graph, plan, sized)
            tried = sized
            if small is not None:
                pinned |= sized
    if small is not None and (wanting := _unfit(small, graph, plan)):
        # What the proof runs is right, and other ways through the code are not.
        small, difference, why = _attempt(network, graph, plan, tried | wanting.keys())
        pinned |= wanting.keys()
        if small is not None and (wanting := _unfit(small, graph, plan)):
            name, reason = next(iter(wanting.items()))
            why = f"another way through the code of {name or 'the network'} does not fit any more ({reason})"
            return None, float("inf"), why
    return small, difference, why


def _unfit(small: nn.Module, graph: ChannelGraph, plan: Plan) -> dict[str, str]:
    """Modules whose code does not fit what is left of them in training, at another size, or in a method beside forward; and why."""
    aside = _touched(graph, plan, aside=True)
    if not aside:
        return {}
    probes = aside - {name for name, _ in pinned_modules(small)}
    wanting: dict[str, str] = {}
    try:
        _pin_sizes(small, graph, plan, probes)
        wanting = _take_other_ways(small, graph)
        for name in probes:
            if pins_of(small.get_submodule(name)).needed:
                wanting.setdefault(name, "its code names sizes from before")
    except Exception as error:  # whatever the user's forward raises
        wanting = dict.fromkeys(aside, f"{type(error).__name__}: {str(error)[:120]}")
    finally:
        for name in probes & {name for name, _ in pinned_modules(small)}:
            unpin(small.get_submodule(name))
    return wanting


def _take_other_ways(network: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Run a network as tracing did beside evaluation: modules of which a method no longer answers as forward does, and how."""
    found: dict[str, str] = {}
    precise = next((x.dtype for x in network.parameters() if x.is_floating_point()), torch.float32)
    for training, example, methods in other_ways(graph.example, graph.ways):
        with undisturbed(network), torch.no_grad(), watching(network, None, methods) as verdicts:
            network.train(training)
            call(network, _precise_example(example, precise))
        for _, module in pinned_modules(network):
            pins_of(module).settle()
        for name, methods_of in verdicts.items():
            for method, why in methods_of.items():
                if why:
                    found[name] = f"{method}: {why}"
    return found


def _touched(graph: ChannelGraph, plan: Plan, *, aside: bool) -> set[str]:
    """Modules with calls that name the sizes of channels that the plan removes."""
    return {
        one.module
        for one in graph.resizes
        if one.aside == aside and any(name in plan.keep for _, layout, _ in one.sizes for name in layout.names)
    }


def _sized(graph: ChannelGraph, plan: Plan) -> tuple[set[str], set[str]]:
    """Modules with calls that name the sizes of channels: those of which the plan removes some; and all, with those that use factors."""
    every = {one.module for one in graph.resizes if not one.aside} | set(graph.factors)
    return _touched(graph, plan, aside=False), every


@timed("prove")
def _attempt(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str]) -> tuple[nn.Module | None, float, str]:
    try:
        small = _sliced(network, graph, plan, pinned)
    except GraphError as error:  # a module that can't be pinned
        return None, float("inf"), str(error)
    # Code that works sizes out from others may work out a scale too. In networks whose attention is still flat
    # such a mistake hides under any tolerance that float32 needs.
    strict = any(True for _ in pinned_modules(small))
    dtype, tolerance = (torch.float64, STRICT) if strict else (torch.float32, TOLERANCE)
    try:
        wanted = masked_outputs(network, graph, plan, dtype=dtype)
    except Exception as error:  # whatever the user's forward raises
        if not strict:
            raise
        return None, float("inf"), f"can't be compared in double precision ({type(error).__name__}: {str(error)[:120]})"
    try:
        precise = _precise(small, dtype)
        found = _outputs(precise, _precise_example(graph.example, dtype))
    except Exception as error:  # whatever the user's forward raises
        return None, float("inf"), f"the smaller network does not run ({type(error).__name__}: {str(error)[:120]})"
    difference = _difference(found, wanted)
    if difference <= tolerance:
        for _, module in pinned_modules(precise):
            pins_of(module).settle()
        aside = _touched(graph, plan, aside=True) & {name for name, _ in pinned_modules(small)}
        try:
            if aside:
                _take_other_ways(precise, graph)
        except Exception:  # whatever the user's forward raises: `_unfit` meets it, too, and tells
            for name in aside:
                pins_of(precise.get_submodule(name)).needed = True
        for name, module in list(pinned_modules(small)):
            pinning = pins_of(precise.get_submodule(name))
            pinning.close()
            if pinning.needed:
                pin(module, pinning)
            else:
                unpin(module)
        return small, difference, ""
    return None, difference, f"differs from the masked network by {difference:.1e} of its largest output"


def masked_outputs(network: nn.Module, graph: ChannelGraph, plan: Plan, *, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """What the network at its full size gives on the graph's example when the plan's slices are zero: what the smaller one must equal.

    Calls that mix channels (layer norm, means over channels, softmax) are taken over the channels that stay. Networks of less precision
    than `dtype` run in it. The network's weights are as before in the end.
    """
    slices = _slices(network, graph.removed(plan, roles=("in",)), graph.removed(plan))
    with zeroed(slices), _OverWhatStays(graph.statistics, plan):
        return _outputs(_precise(network, dtype), _precise_example(graph.example, dtype))


class _OverWhatStays(TorchDispatchMode):
    """Runs the calls that mix channels on the positions that stay, and puts the answer back in its place."""

    def __init__(self, statistics: tuple[Statistic, ...], plan: Plan) -> None:
        super().__init__()
        self._kept: dict[tuple[str, int], dict[int, torch.Tensor]] = {}
        self._calls: Counter[str] = Counter()
        for one in statistics:
            for dim, layout in one.layouts:
                stays = torch.as_tensor(layout.mask(plan))
                # None of it stays where a whole head leaves: what is mixed inside it no longer matters.
                if stays.any() and not stays.all():
                    before = self._kept.setdefault((one.op, one.call), {})
                    before[dim] = stays & before[dim] if dim in before else stays
        self._counted = {one.op for one in statistics}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(func), kwargs or {}
        if name not in self._counted:
            return func(*args, **kwargs)
        kept = self._kept.get((name, self._calls[name]))
        self._calls[name] += 1
        if "_weight_norm_interface" in name:
            # A filter of zeros has no direction: 0 / 0.
            out = func(*args, **kwargs) if kept is None else _over(func, args, kwargs, _places(kept))
            return tree_map(lambda x: x.nan_to_num(), out)
        return func(*args, **kwargs) if kept is None else _over(func, args, kwargs, _places(kept))


def _places(kept: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    return {dim: stays.nonzero().flatten() for dim, stays in kept.items()}


def _over(func: Any, args: Any, kwargs: Any, kept: dict[int, torch.Tensor]) -> Any:
    base, x = func._schema.name.split("::")[1], args[0]
    for dim, places in kept.items():
        x = x.index_select(dim, places)
    if base == "_weight_norm_interface":
        return _restored(func(x, *args[1:], **kwargs), args[0].shape, kept)
    if base == "native_layer_norm":
        (dim, places), first = next(iter(kept.items())), args[0].dim() - len(args[1])
        affine = [None if one is None else one.index_select(dim - first, places) for one in args[2:4]]
        return _restored(func(x, list(x.shape[first:]), *affine, *args[4:], **kwargs), args[0].shape, kept)
    if base == "native_group_norm":
        affine = [None if one is None else one.index_select(0, kept[1]) for one in args[1:3]]
        return _restored(func(x, *affine, args[3], len(kept[1]), *args[5:], **kwargs), args[0].shape, kept)
    if base.startswith("_scaled_dot_product"):
        # Its default scale is the root of the width; zeros in the sums change nothing.
        return func(*args, **{**kwargs, "scale": len(next(iter(kept.values()))) ** -0.5})
    out = func(x, *args[1:], **kwargs)
    return _restored(out, args[0].shape, kept) if any(word in base for word in ("softmax", "convolution", "batch_norm")) else out


def _restored(out: Any, shape: torch.Size, kept: dict[int, torch.Tensor]) -> Any:
    """Results that still have the shortened dimensions, at their full length with zeros where channels are removed."""
    short = list(shape)
    for dim, places in kept.items():
        short[dim] = len(places)

    def back(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor) or list(tensor.shape) != short:
            return tensor
        for dim, places in kept.items():
            size = list(tensor.shape)
            size[dim] = shape[dim]
            tensor = tensor.new_zeros(size).index_copy(dim, places, tensor)
        return tensor

    return tree_map(back, out)


def _precise(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network itself, or a copy of one in less precision: rounding would hide what the proof looks for."""
    if all(_exact(x.dtype, dtype) for x in _aliases(network).values()):
        return network
    held = {id(x): x.detach().to(dtype) for x in held_tensors(network) if x.is_floating_point()}
    return copied(network, held).to(dtype)


def _precise_example(example: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda x: x if not isinstance(x, torch.Tensor) or _exact(x.dtype, dtype) else x.to(dtype), example)


def _exact(own: torch.dtype, wanted: torch.dtype) -> bool:
    return not own.is_floating_point or torch.finfo(own).bits >= torch.finfo(wanted).bits


def _outputs(network: nn.Module, example: Any) -> list[torch.Tensor]:
    with undisturbed(network), torch.no_grad():
        network.eval()
        return [x for x in tree_flatten(call(network, example))[0] if isinstance(x, torch.Tensor)]


def _difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        gap = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12)
        worst = max(worst, float(gap) if torch.isfinite(gap) else float("inf"))
    return worst


def _aliases(network: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _like(old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(values, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else values


def _take(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    taken = tensor.detach()
    for dim, indices in dims.items():
        view, where = in_blocks(taken, dim, indices)
        taken = view.index_select(dim, where).reshape(*taken.shape[:dim], len(indices), *taken.shape[dim + 1 :])
    return taken if dims else taken.clone()


@timed("cut")
def _sliced(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str]) -> nn.Module:
    tensors = _aliases(network)
    swapped = {id(tensors[name]): _like(tensors[name], _take(tensors[name], dims)) for name, dims in graph.kept(plan).items()}
    small = copied(network, swapped)
    mend(small)
    _note_groups(network, small)
    pinned = pinned | {name for name, _ in pinned_modules(network)}
    _mend_sizes(small, graph, plan, pinned)
    _pin_sizes(small, graph, plan, pinned)
    _slim_attention(small)
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


def _slices(network: nn.Module, consumed: KeptIndices, removed: KeptIndices) -> Iterator[tuple[torch.Tensor, int, np.ndarray]]:
    """The removed slices of the network's weights."""
    trainable, tensors = dict(network.named_parameters()), _aliases(network)
    for name, dims in {**{n: d for n, d in removed.items() if n in trainable}, **consumed}.items():
        for dim, indices in {**removed.get(name, {}), **dims}.items():
            yield tensors[name], dim, indices


def register_size_attribute(kind: type[nn.Module], attribute: str, size: Callable[[Any], int]) -> None:
    """Say how a size that a layer's Python code keeps follows from its weights: it is set after each surgery.

    For example `register_size_attribute(MyAttention, "inner", lambda layer: layer.out.in_features)`. Needed only where
    prunedge reports a group as left whole because the smaller network doesn't run.
    """
    _REGISTERED.append((kind, attribute, size))


def mend(network: nn.Module) -> None:
    """Bring the sizes that layers keep beside their weights in line with the weights."""
    for module in network.modules():
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
    for kind, attribute, size in _REGISTERED:
        for module in network.modules():
            if isinstance(module, kind):
                setattr(module, attribute, size(module))


def _mend_convolution(module: nn.modules.conv._ConvNd) -> None:
    outs, ins = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = outs, ins * module.groups
        return
    if module.groups == module.in_channels > 1 and ins == 1:
        module.groups = outs // (module.out_channels // module.groups)
    module.out_channels, module.in_channels = outs, ins * module.groups


def _pin_sizes(network: nn.Module, graph: ChannelGraph, plan: Plan, names: set[str]) -> None:
    """Give the calls that name sizes in these modules those that are left of them."""
    pins: dict[str, dict[Call, dict[int, Pin]]] = {}
    for name in names:
        # Channels that have come down to one are none any more to the graph: a split keeps what it was pinned to.
        before, known = pins_of(network.get_submodule(name)), graph.sized_calls.get(name, {})
        pins[name] = {call: dict(sizes) for call, sizes in before.sizes.items() if call.site in known}
    fresh: dict[tuple[str, Call, int], int] = {}
    for one in graph.resizes:
        if one.module not in pins:
            continue
        sizes = pins[one.module].setdefault(one.call, {})
        for place, layout, axis in one.sizes:
            now = len(layout.kept(plan)[axis])
            if fresh.setdefault((one.module, one.call, place), now) != now:
                raise GraphError(
                    f"one call in its code names different sizes from time to time ({one.call.site})", where=one.module or "the network",
                    remedy="keep these groups out of the plan",
                )  # fmt: skip
            sizes[place] = Pin(sizes[place].own if place in sizes else layout.number.shape[axis], now)
    for name, found in pins.items():
        module = network.get_submodule(name)
        # The other sizes of its reshapes are what they are: its code may work them out from those that change.
        for reshape, shape in graph.reshaped.get(name, {}).items():
            sizes = found.setdefault(reshape, {})
            for place, size in enumerate(shape):
                if size is not None and (name, reshape, place) not in fresh:
                    sizes[place] = Pin(size, size)
        if found or name in graph.factors:
            places = {(asked, place) for asked, sizes in found.items() for place in sizes}
            factors, wanted = dict(pins_of(module).factors), dict(graph.factors.get(name, {}))
            pin(module, Pinning(found, graph.sized_calls[name], factors, wanted, places))


def _mend_sizes(network: nn.Module, graph: ChannelGraph, plan: Plan, pinned: set[str]) -> None:
    """Give modules whose code divides channels into blocks the new numbers of heads, widths and channels.

    Which of its integers hold them is read off their values and names; a wrong guess fails the proof. What was
    set is noted on the network, since its weights alone don't tell it.
    """
    sizes: dict[str, Any] = {}
    batch = len(next(x for x in tree_flatten(graph.example)[0] if isinstance(x, torch.Tensor) and x.dim()))
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
        if one.module in pinned or isinstance(module, nn.MultiheadAttention):
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
        }
    return found


@timed("slice state")
def slice_state(state: OptimState, graph: ChannelGraph, plan: Plan) -> OptimState:
    """The optimizer's state (parameter name -> {buffer name: tensor}) with the same channels removed as the weights."""
    kept = graph.kept(plan)
    return {
        name: {
            key: _take(value, kept[name]) if name in kept and tuple(value.shape) == graph.shapes[name] else value.clone()
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
    if wrong:
        raise WeightsError("the saved weights do not fit the network", where="; ".join(sorted(wrong)[:8]))
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
                raise WeightsError("the saved sizes do not fit the network", where=f"{name}: no such module")
            if "places" not in found:
                raise WeightsError(
                    "the network was saved by prunedge 0.1, which knew the calls that it had pinned by their numbers", where=name,
                    remedy="prune it again with this version",
                )  # fmt: skip
            turns = {site: frozenset(times) for site, times in found["places"].items()}
            calls = {Call(site, turn): {int(place): Pin(*numbers) for place, numbers in one.items()} for site, turn, one in found["sizes"]}
            factors = {Call(site, turn): float(factor) for site, turn, factor in found["factors"]}
            pin(small.get_submodule(name), Pinning(calls, turns, factors))
    _slim_attention(small)
    return small


def save_network(network: nn.Module, file: Path) -> None:
    """Write a network's tensors, and what else `restore_network` needs, as safetensors."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    save_file(tensors, file, {"sizes": json.dumps(dict(sizes_of(network)))})


def restore_network(network: nn.Module, file: Path) -> nn.Module:
    """A network of that name at its full width becomes the pruned one that `save_network` wrote.

    Raises WeightsError when the file can't be read or doesn't fit.
    """
    try:
        with safe_open(file, "pt") as opened:
            sizes = json.loads((opened.metadata() or {}).get("sizes", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"can't read the weights: {error}", where=file, remedy="the file is damaged; make it again") from None
    return adopt(network, tensors, sizes)
