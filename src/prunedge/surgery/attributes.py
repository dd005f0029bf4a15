"""Sizes that a user's modules hold in attributes: guessed by values and names, and set anew.

A wrong guess fails the proof. What was set is noted on the model (`resize.note_sizes`).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from math import prod
from typing import Any

from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.graph.inputs import batch_of
from prunedge.graph.observations import Reshape, Resize
from prunedge.graph.plan import Plan
from prunedge.surgery.resize import CONVOLUTIONS, attribute_path, note_sizes

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
_INPUT_WORDS = {
    "num_channels",
    "in_channels",
    "in_chans",
    "in_features",
    "in_dim",
    "input_dim",
    "inplanes",
}


def resize_attributes(
    model: nn.Module, graph: ChannelGraph, plan: Plan, left_alone: Collection[str]
) -> None:
    """Give modules whose code divides channels the new numbers of heads, widths and channels.

    Modules of `left_alone` keep their attributes.
    """
    sizes: dict[str, Any] = {}
    batch = batch_of(graph.example)
    for reshape in graph.reshapes:
        if reshape.module not in left_alone:
            changes = _changed_sizes(reshape, plan, batch)
            _set_block_sizes(model, reshape.module, changes, sizes)
    _set_named_sizes(model, graph, plan, left_alone, sizes)
    note_sizes(model, sizes)


def _changed_sizes(reshape: Reshape, plan: Plan, batch: int) -> dict[int, int]:
    """Sizes of the blocks that a reshape divides channels into: before -> after the plan."""
    shape = reshape.layout.number.shape
    kept = [len(indices) for indices in reshape.layout.kept(plan)]
    changes: dict[int, int] = {}
    for old, new in zip(shape, kept, strict=True):
        if old != new:
            changes[old] = new
    if not changes:
        return {}

    # Code may hold several dimensions joined, and may fold the heads into the batch.
    for start in range(len(shape) - 1):
        changes.setdefault(prod(shape[start:]), prod(kept[start:]))
    for old, new in list(changes.items()):
        if old % batch == 0 and new % batch == 0:
            changes.setdefault(old // batch, new // batch)
    return changes


def _set_block_sizes(
    model: nn.Module, path: str, changes: Mapping[int, int], sizes: dict[str, Any]
) -> None:
    """Set a module's integers that are sizes by value and name; notes in `sizes` what was set."""
    module = model.get_submodule(path)
    for name, value in list(vars(module).items()):
        if isinstance(module, nn.MultiheadAttention) and name != "num_heads":
            continue  # the rest follows from its weights
        key = attribute_path(path, name)
        is_size = type(value) is int and value in changes
        if is_size and key not in sizes and any(word in name for word in _SIZE_WORDS):
            setattr(module, name, changes[value])
            sizes[key] = changes[value]


def _set_named_sizes(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    left_alone: Collection[str],
    sizes: dict[str, Any],
) -> None:
    """Set attributes that code reads on its way to a call that names sizes of channels.

    An attribute is set where it holds the size that the call names, or the list of all of them, and
    where all calls that may read it agree.
    """
    proposals: dict[str, list[Any]] = {}
    for call in graph.resizes:
        module = model.get_submodule(call.module)
        if call.module in left_alone or call.picked or isinstance(module, nn.MultiheadAttention):
            continue
        for name, values in _proposed(module, call, plan):
            proposals.setdefault(attribute_path(call.module, name), []).extend(values)

    known = set(sizes)
    for path, values in proposals.items():
        owner, _, name = path.rpartition(".")
        attributes = vars(model.get_submodule(owner))
        value = values[0]
        is_agreed = all(other == value for other in values)
        if path not in known and is_agreed and value != attributes[name]:
            attributes[name] = value
            sizes[path] = value


def _proposed(module: nn.Module, call: Resize, plan: Plan) -> list[tuple[str, list[Any]]]:
    """Attributes that may hold the sizes a call names, and what they would become."""
    before = [layout.number.shape[axis] for _, layout, axis in call.sizes]
    after = [len(layout.kept(plan)[axis]) for _, layout, axis in call.sizes]
    proposed: list[tuple[str, list[Any]]] = []
    for name in _attributes_read(type(module), call.call.site):
        value = vars(module).get(name)
        if type(value) is int and value in before:
            values = [new for old, new in zip(before, after, strict=True) if old == value]
            proposed.append((name, values))
        elif isinstance(value, (list, tuple)) and len(before) > 1 and list(value) == before:
            proposed.append((name, [type(value)(after)]))
    return proposed


def _attributes_read(kind: type[nn.Module], site: str) -> set[str]:
    """The names of attributes in the code of the methods on the way to a call."""
    names: set[str] = set()
    for step in site.split(">"):
        method = step.partition(":")[0].rpartition(".")[2]
        function = inspect.unwrap(getattr(kind, method, None) or (lambda: None))
        code = getattr(function, "__code__", None)
        names.update(getattr(code, "co_names", ()))
    return names


def resize_inputs(small: nn.Module, model: nn.Module, left_alone: Collection[str]) -> None:
    """Bring what modules say of the width of their input in line with the layers that read it.

    Some compare the two.
    """
    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if name in left_alone or isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            continue
        small_module = small.get_submodule(name)
        for attribute in _INPUT_WORDS & vars(module).keys():
            before = vars(module)[attribute]
            after = _width_read(module, small_module, before)
            is_old = type(before) is int and vars(small_module)[attribute] == before
            if is_old and after != before:
                setattr(small_module, attribute, after)
                sizes[attribute_path(name, attribute)] = after
    note_sizes(small, sizes)


def _width_read(module: nn.Module, small_module: nn.Module, width: int) -> int:
    """How many channels the layers that read `width` of them read now.

    `width` where they differ.
    """
    widths = set()
    for name, layer in module.named_children():
        if _inputs(layer) == width:
            widths.add(_inputs(small_module.get_submodule(name)))
    return widths.pop() if len(widths) == 1 else width


def _inputs(layer: nn.Module) -> int:
    """How many channels a layer reads; -1 of other modules."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels
    return -1
