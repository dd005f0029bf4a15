"""Pin the sizes that a module's code works out: its calls are given those of the smaller model.

Code such as `x.reshape(B, N, 3, heads, C // heads)` works sizes out from others that pruning
changes separately (`prunedge.graph.sizes`). Here the numbers are worked out that a pinned module
runs with:

- sizes: what a call names along each of its dimensions that holds channels;
- picks: the positions that a slice or an index by numbers takes along a dimension;
- reads: the widths from before pruning, for code that reads one and goes by it;
- factors: what a factor that is worked out from a width was meant to be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph
from prunedge.graph.observations import Read, Resize
from prunedge.graph.plan import Plan
from prunedge.graph.sizes import CodeCall, Pick, Pin, Pinning, pin, pins_of

_Sizes = dict[CodeCall, dict[int, Pin]]  # the index among a call's sizes -> the size there
_Picks = dict[CodeCall, dict[tuple[int, int], Pick]]  # (dimension, width before) -> positions
_Reads = dict[str, dict[tuple[int, int], int]]  # site -> (dimension, width now) -> width before


# -- which modules to pin --------------------------------------------------------------------------


def naming_sizes(graph: ChannelGraph, plan: Plan, *, off_path: bool) -> set[str]:
    """Modules with calls that name the sizes of channels of which the plan removes some."""
    modules = set()
    for call in graph.resizes:
        if call.off_path == off_path and _is_touched(call, plan):
            modules.add(call.module)
    return modules


def reading_sizes(graph: ChannelGraph, plan: Plan, *, off_path: bool = False) -> set[str]:
    """Modules with code that reads the sizes of channels of which the plan removes some.

    `off_path`: on other paths through the code than evaluation only. Where code does nothing with a
    width but divide values by it, what is meant when channels have left (the mean of those that
    stay?) can't be told, so that the module is left to its own code.
    """
    only_dividing = graph.dividing - {call.module for call in graph.resizes}
    modules = set()
    for read in graph.reads:
        if off_path and not read.off_path:
            continue
        if read.module not in only_dividing and _is_touched(read, plan):
            modules.add(read.module)
    return modules


def naming_any_sizes(graph: ChannelGraph) -> frozenset[str]:
    """Modules with calls that name the sizes of any channels, or use factors."""
    naming = {call.module for call in graph.resizes if not call.off_path}
    return frozenset(naming | set(graph.factors))


def _is_touched(site: Resize | Read, plan: Plan) -> bool:
    """Whether the plan removes channels whose sizes are named or read there."""
    names: set[str] = set()
    for _, layout, _ in site.sizes:
        names.update(layout.names)
    return not names.isdisjoint(plan.keep)


# -- what they are pinned to -----------------------------------------------------------------------


def pin_sizes(
    small: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    names: set[str],
    with_old_widths: Collection[str] = (),
) -> None:
    """Give the calls that name sizes in these modules those that the plan leaves.

    Code in the modules of `with_old_widths` reads the widths from before.
    """
    reads = _widths_read(small, graph, plan, names, with_old_widths)
    sizes = {name: _sizes_before(small, graph, name) for name in names}
    picks = {name: _picks_before(small, graph, name) for name in names}
    _add_picks(picks, graph, plan)
    changed = _add_sizes(sizes, graph, plan)
    for name in names:
        _add_fixed_sizes(sizes[name], graph, name, changed)
        if not (sizes[name] or picks[name] or reads[name] or name in graph.factors):
            continue

        module = small.get_submodule(name)
        open_sizes: set[tuple[CodeCall, int]] = set()
        for call, pins in sizes[name].items():
            open_sizes.update((call, index) for index in pins)
        pinning = Pinning(
            sizes[name],
            graph.sized_calls.get(name, {}),
            dict(pins_of(module).factors),
            picks[name],
            reads[name],
            wanted=dict(graph.factors.get(name, {})),
            open=open_sizes,
        )
        pin(module, pinning)


def _sizes_before(small: nn.Module, graph: ChannelGraph, name: str) -> _Sizes:
    """What a module's calls are pinned to already.

    Channels that have come down to one are none any more to the graph: a split keeps what it was
    pinned to.
    """
    known = graph.sized_calls.get(name, {})
    before = pins_of(small.get_submodule(name)).sizes
    return {call: dict(sizes) for call, sizes in before.items() if call.site in known}


def _add_sizes(
    sizes: dict[str, _Sizes], graph: ChannelGraph, plan: Plan
) -> set[tuple[str, CodeCall, int]]:
    """Add what the plan leaves of the sizes that calls name.

    Gives (module, call, index among its sizes) of each.
    """
    fresh: dict[tuple[str, CodeCall, int], Pin] = {}
    for resize in graph.resizes:
        if resize.module not in sizes or resize.picked:
            continue
        pins = sizes[resize.module].setdefault(resize.call, {})
        for index, layout, axis in resize.sizes:
            size = Pin(layout.number.shape[axis], len(layout.kept(plan)[axis]))
            first = fresh.setdefault((resize.module, resize.call, index), size)
            # Heads that are folded into a batch are as many more as that is larger in training.
            if first.own * size.now != size.own * first.now:
                raise _inconsistent(resize)
            own = pins[index].own if index in pins else first.own
            pins[index] = Pin(own, first.now)
    return set(fresh)


def _add_fixed_sizes(
    sizes: _Sizes, graph: ChannelGraph, name: str, changed: set[tuple[str, CodeCall, int]]
) -> None:
    """Pin the other sizes of a module's reshapes to what they are.

    Its code may work them out from those that change.
    """
    for call, shape in graph.reshaped.get(name, {}).items():
        pins = sizes.setdefault(call, {})
        for index, number in enumerate(shape):
            if number is not None and (name, call, index) not in changed:
                pins[index] = Pin(number, number)


def _picks_before(small: nn.Module, graph: ChannelGraph, name: str) -> _Picks:
    """What a module's calls are pinned to pick already.

    Where no channels are left to the graph, they go on with that.
    """
    in_graph = {resize.call for resize in graph.resizes if resize.module == name and resize.picked}
    known = graph.sized_calls.get(name, {})
    picks: _Picks = {}
    for call, before in pins_of(small.get_submodule(name)).picks.items():
        if call.site in known and call not in in_graph:
            picks[call] = {key: pick._replace(literal=None) for key, pick in before.items()}
    return picks


def _add_picks(picks: dict[str, _Picks], graph: ChannelGraph, plan: Plan) -> None:
    """Add what the plan leaves of the positions that calls pick."""
    fresh: dict[tuple[str, CodeCall, int, int], Pick] = {}
    for resize in graph.resizes:
        if resize.module not in picks:
            continue
        for dim, pick in _remaining_picks(resize, plan):
            if fresh.setdefault((resize.module, resize.call, dim, pick.width), pick) != pick:
                raise _inconsistent(resize)
            picks[resize.module].setdefault(resize.call, {})[dim, pick.width] = pick


def _remaining_picks(resize: Resize, plan: Plan) -> Iterator[tuple[int, Pick]]:
    """What is left of the positions that a call picks, counted among those left; by dimension."""
    for (dim, layout, axis), positions in zip(resize.sizes, resize.picked, strict=False):
        kept = layout.kept(plan)[axis]
        remaining = [position for position in positions if position in kept]
        yield dim, Pick(len(kept), tuple(np.searchsorted(kept, remaining).tolist()))


def _widths_read(
    small: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    names: set[str],
    with_old_widths: Collection[str],
) -> dict[str, _Reads]:
    """For each module and site in its code that reads a width: the width before any pruning."""
    before = {name: pins_of(small.get_submodule(name)).reads for name in names}
    reads: dict[str, _Reads] = {}
    for name, sites in before.items():
        reads[name] = {site: dict(widths) for site, widths in sites.items()}

    fresh: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
    for read in graph.reads:
        is_pinned = read.module in with_old_widths or before.get(read.module)
        if read.module not in names or not is_pinned:
            continue
        widths = fresh.setdefault((read.module, read.site), {})
        for dim, layout, axis in read.sizes:
            size = int(layout.number.shape[axis])
            now = len(layout.kept(plan)[axis])
            own = before[read.module].get(read.site, {}).get((dim, size), size)
            reads[read.module].get(read.site, {}).pop((dim, size), None)
            if widths.setdefault((dim, now), own) != own:
                raise GraphError(
                    "one place in its code reads several widths that have become the same "
                    f"({read.site})",
                    where=read.module or "the model",
                    remedy="keep these groups out of the plan",
                )
    for (name, site), widths in fresh.items():
        reads[name].setdefault(site, {}).update(widths)
    return reads


def _inconsistent(resize: Resize) -> GraphError:
    return GraphError(
        f"one call in its code names different sizes from time to time ({resize.call.site})",
        where=resize.module or "the model",
        remedy="keep these groups out of the plan",
    )


# -- as JSON ---------------------------------------------------------------------------------------


def pinning_to_json(pinning: Pinning) -> dict[str, Any]:
    """What a module is pinned to, as plain JSON values."""
    record: dict[str, Any] = {
        "places": {site: sorted(visits) for site, visits in pinning.visits.items()},
        "sizes": [],
        "factors": [[*call, factor] for call, factor in pinning.factors.items()],
        "picks": [],
    }
    for call, sizes in pinning.sizes.items():
        if sizes:
            by_index = {str(index): list(pin) for index, pin in sizes.items()}
            record["sizes"].append([*call, by_index])
    for call, picks in pinning.picks.items():
        if picks:
            by_dim = [[dim, *pick] for (dim, _), pick in picks.items()]
            record["picks"].append([*call, by_dim])
    if pinning.reads:
        record["reads"] = {}
        for site, widths in pinning.reads.items():
            record["reads"][site] = [[*key, own] for key, own in widths.items()]
    return record


def pinning_from_json(record: dict[str, Any]) -> Pinning:
    """The inverse of `pinning_to_json`."""
    sizes: _Sizes = {}
    for site, visit, by_index in record["sizes"]:
        pins = {int(index): Pin(*pair) for index, pair in by_index.items()}
        sizes[CodeCall(site, visit)] = pins
    picks: _Picks = {}
    for site, visit, by_dim in record.get("picks", ()):
        picks[CodeCall(site, visit)] = dict(map(_pick_from_json, by_dim))
    reads: _Reads = {}
    for site, widths in record.get("reads", {}).items():
        reads[site] = {(dim, now): own for dim, now, own in widths}

    factors = {CodeCall(site, visit): float(factor) for site, visit, factor in record["factors"]}
    visits = {site: frozenset(times) for site, times in record["places"].items()}
    return Pinning(sizes, visits, factors, picks, reads)


def _pick_from_json(saved: list[Any]) -> tuple[tuple[int, int], Pick]:
    """What a call picks along a dimension of a width; JSON knows no tuples."""
    dim, width, now, literal = saved
    if literal is not None:
        literal = tuple(literal)
    return (dim, width), Pick(width, tuple(now), literal)
