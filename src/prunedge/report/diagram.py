"""The channel graph as an image: one row a group, bars for its width, arcs from the groups that
feed it.
"""

from __future__ import annotations

import html

from prunedge.graph import ChannelGraph
from prunedge.utils.sanitize import shown

_ROW, _TOP, _NAME, _BAR, _MARGIN = 22, 64, 300, 260, 16
_INK, _BLUE, _PALE, _GREY = "#1c2733", "#2563a8", "#9db8d6", "#8a8f98"


def escape(text: str) -> str:
    """A name as it may stand in SVG."""
    return html.escape(shown(text))


def diagram(graph: ChannelGraph, title: str = "") -> str:
    """SVG text: groups from top to bottom, the bar as long as the group is wide and as dark as its
    share of the MACs.

    An arc leads from each group to those whose makers consume it; what can't be removed stands
    below, in grey, with the reason.
    """
    places = {group.name: _TOP + _ROW * row for row, group in enumerate(graph.groups)}
    makers: dict[str, list[str]] = {}
    for group in graph.groups:
        for part in (*group.having("out"), *group.having("channel")):
            makers.setdefault(part.tensor, []).append(group.name)
    total, widest = max(1, graph.macs()), max((group.size for group in graph.groups), default=1)
    shapes: list[str] = []
    for group in graph.groups:
        y, share = places[group.name], graph.macs_of(group) / total
        length = _BAR * group.size / widest
        shapes.append(_text(_NAME - 8, y + 14, group.name, anchor="end"))
        shapes.append(
            f'<rect x="{_NAME}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 8}" rx="2" '
            f'fill="{_BLUE}" fill-opacity="{0.3 + 0.7 * min(1.0, 4 * share):.2f}">'
            f"<title>{escape(group.name)}: {group.size} channels, "
            f"{share:.1%} of the MACs</title></rect>"
        )
        shapes.append(
            _text(_NAME + length + 6, y + 14, f"{group.size} · {share:.1%}", colour=_GREY)
        )
    arcs = {
        (group.name, fed)
        for group in graph.groups
        for part in group.having("in")
        for fed in makers.get(part.tensor, ())
    }
    start = _NAME + _BAR + 120
    for source, target in sorted(arcs, key=lambda arc: (places[arc[0]], places[arc[1]])):
        if source != target:
            y1, y2 = places[source] + _ROW / 2, places[target] + _ROW / 2
            bend = start + 18 + 3.2 * abs(y2 - y1) ** 0.6
            shapes.append(
                f'<path d="M{start} {y1:.0f} C{bend:.0f} {y1:.0f} {bend:.0f} {y2:.0f} {start} '
                f'{y2:.0f}" fill="none" stroke="{_PALE}" '
                'stroke-width="1.3" marker-end="url(#tip)"/>'
            )
    bottom = _TOP + _ROW * len(graph.groups) + 16
    for row, one in enumerate(graph.frozen):
        shapes.append(
            _text(_NAME - 8, bottom + _ROW * row + 14, one.name, anchor="end", colour=_GREY)
        )
        shapes.append(
            _text(_NAME, bottom + _ROW * row + 14, f"{one.size} stay: {one.reason}", colour=_GREY)
        )
    height, width = bottom + _ROW * len(graph.frozen) + _MARGIN, start + 330
    head = (
        f"{title}: {graph.channels} channels in {len(graph.groups)} groups"
        if title
        else f"{graph.channels} channels"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        '<defs><marker id="tip" markerWidth="6" markerHeight="6" refX="5" refY="3" '
        f'orient="auto"><path d="M0 0L6 3L0 6z" fill="{_PALE}"/>'
        f'</marker></defs><rect width="100%" height="100%" fill="white"/>'
        + _text(_MARGIN, 26, head, size=16)
        + _text(
            _MARGIN,
            46,
            "bar: channels; darker: more of the MACs; arcs: who consumes whom",
            colour=_GREY,
        )
        + "".join(shapes)
        + "</svg>\n"
    )


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = _INK, size: int = 12
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}">{escape(words)}</text>'
    )
