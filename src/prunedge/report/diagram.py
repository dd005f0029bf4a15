"""The channel graph as an image: one row a group, bars for its width, arcs from the groups that
feed it.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from prunedge.graph import ChannelGraph
from prunedge.utils.sanitize import shown
from prunedge.utils.wording import counted

# Pixels.
_ROW = 22
_TOP = 64
_NAME = 300  # of the names, which end where the bars begin
_BAR = 260
_MARGIN = 16
_ARCS = _NAME + _BAR + 120  # where the arcs begin

_INK = "#1c2733"
_BLUE = "#2563a8"
_PALE = "#9db8d6"
_GREY = "#8a8f98"


def escape(text: str) -> str:
    """A name as it may stand in SVG."""
    return html.escape(shown(text))


def diagram(graph: ChannelGraph, title: str = "") -> str:
    """SVG text: groups from top to bottom, the bar as long as the group is wide and as dark as its
    share of the MACs.

    An arc leads from each group to those whose makers consume it; what can't be removed stands
    below, in grey, with the reason.
    """
    tops = {group.name: _TOP + _ROW * row for row, group in enumerate(graph.groups)}
    bottom = _TOP + _ROW * len(graph.groups) + 16
    height = bottom + _ROW * len(graph.frozen) + _MARGIN
    width = _ARCS + 330

    heading = counted(graph.channels, "channel")
    if title:
        heading = f"{title}: {heading} in {counted(len(graph.groups), 'group')}"
    legend = "bar: channels; darker: more of the MACs; arcs: who consumes whom"
    shapes = [
        _text(_MARGIN, 26, heading, size=16),
        _text(_MARGIN, 46, legend, colour=_GREY),
        *_bars(graph, tops),
        *_arcs(graph, tops),
        *_frozen(graph, bottom),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        '<defs><marker id="tip" markerWidth="6" markerHeight="6" refX="5" refY="3" '
        f'orient="auto"><path d="M0 0L6 3L0 6z" fill="{_PALE}"/>'
        '</marker></defs><rect width="100%" height="100%" fill="white"/>'
        + "".join(shapes)
        + "</svg>\n"
    )


def _bars(graph: ChannelGraph, tops: Mapping[str, int]) -> Iterator[str]:
    """Each group's name, bar, and numbers."""
    total_macs = max(1, graph.macs())
    widest = max((group.size for group in graph.groups), default=1)
    for group in graph.groups:
        y = tops[group.name]
        share = graph.macs_of(group) / total_macs
        length = _BAR * group.size / widest
        opacity = 0.3 + 0.7 * min(1.0, 4 * share)
        yield _text(_NAME - 8, y + 14, group.name, anchor="end")
        yield (
            f'<rect x="{_NAME}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 8}" rx="2" '
            f'fill="{_BLUE}" fill-opacity="{opacity:.2f}">'
            f"<title>{escape(group.name)}: {counted(group.size, 'channel')}, "
            f"{share:.1%} of the MACs</title></rect>"
        )
        numbers = f"{group.size} · {share:.1%}"
        yield _text(_NAME + length + 6, y + 14, numbers, colour=_GREY)


def _arcs(graph: ChannelGraph, tops: Mapping[str, int]) -> Iterator[str]:
    """An arc from each group to those whose makers consume it."""
    for source, target in sorted(_edges(graph), key=lambda edge: (tops[edge[0]], tops[edge[1]])):
        if source == target:
            continue
        start = tops[source] + _ROW / 2
        end = tops[target] + _ROW / 2
        bend = _ARCS + 18 + 3.2 * abs(end - start) ** 0.6
        yield (
            f'<path d="M{_ARCS} {start:.0f} C{bend:.0f} {start:.0f} {bend:.0f} {end:.0f} {_ARCS} '
            f'{end:.0f}" fill="none" stroke="{_PALE}" '
            'stroke-width="1.3" marker-end="url(#tip)"/>'
        )


def _edges(graph: ChannelGraph) -> set[tuple[str, str]]:
    """The names of each group and of one that a layer which consumes it makes."""
    makers: dict[str, list[str]] = {}
    for group in graph.groups:
        for made in (*group.having("out"), *group.having("channel")):
            makers.setdefault(made.tensor, []).append(group.name)
    edges = set()
    for group in graph.groups:
        for consumed in group.having("in"):
            for fed in makers.get(consumed.tensor, ()):
                edges.add((group.name, fed))
    return edges


def _frozen(graph: ChannelGraph, top: int) -> Iterator[str]:
    """What can't be removed, and why."""
    for row, frozen in enumerate(graph.frozen):
        y = top + _ROW * row + 14
        yield _text(_NAME - 8, y, frozen.name, anchor="end", colour=_GREY)
        yield _text(_NAME, y, f"{frozen.size} stay: {frozen.reason}", colour=_GREY)


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = _INK, size: int = 12
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}">{escape(words)}</text>'
    )
