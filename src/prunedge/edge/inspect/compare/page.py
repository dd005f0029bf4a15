"""The page of a comparison: what changed first, both photographs of a pair beside each other."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from PIL import Image

from prunedge.edge.inspect.compare.drawing import COLOURS
from prunedge.edge.inspect.compare.records import remarks_of
from prunedge.edge.inspect.measure_words import with_uncertainty
from prunedge.utils.pages import render_template
from prunedge.utils.wording import counted, figure

MOST_PICTURES = 100  # pairs whose pictures are in the page; the others are linked
MOST_ROWS = 100  # places of a pair in its table; comparison.csv has all
THUMBNAIL = 560  # pixels of the longer side
CHANGED = ("new", "grown", "smaller", "gone", "unclear")
WORDS = {"unclear": "can't be told", "outside": "outside of the other photograph"}


def render_comparison(
    comparison: Mapping[str, Any], thumbnails: Mapping[str, tuple[str, str]]
) -> str:
    """The page as HTML, from comparison.json and small pictures (data URLs) by the old
    photograph's name.
    """
    old, new = comparison["old"], comparison["new"]
    pairs = sorted(comparison["pairs"], key=_weight)
    changed = [pair for pair in pairs if _has_changed(pair)]
    quiet = [pair for pair in pairs if not _has_changed(pair)]
    return render_template(
        "comparison.html.j2",
        title=f"Compared: {old['source']}, {_day(old)} and {_day(new)}",
        summary=comparison["summary"],
        differences=comparison["differences"],
        legend=[(kind, WORDS.get(kind, kind), colour) for kind, colour in COLOURS.items()],
        pairs=[_pair(pair, thumbnails.get(pair["old"])) for pair in changed],
        quiet=[_pair(pair, None) for pair in quiet],
        not_compared=[_not_compared(each) for each in comparison["not_compared"]],
        facts=_facts(old, new),
    )


def thumbnail(picture: Image.Image) -> str:
    """A small copy as a data URL."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _has_changed(pair: Mapping[str, Any]) -> bool:
    return any(change["change"] in CHANGED for change in pair["changes"])


def _weight(pair: Mapping[str, Any]) -> tuple[Any, ...]:
    """What pairs are ordered by: how much is new or grew, then how much is gone, then the name."""
    added, taken = 0.0, 0.0
    for change in pair["changes"]:
        if change["change"] == "outside":
            continue
        before, after = change["before"] or {}, change["after"] or {}
        difference = after.get("area_px", 0) - before.get("area_px", 0)
        if change["change"] in ("new", "grown"):
            added += max(0, difference)
        elif change["change"] in ("gone", "smaller"):
            taken -= min(0, difference)
    pixels = pair["width"] * pair["height"]
    return -added / pixels, -taken / pixels, pair["old"]


def _pair(pair: Mapping[str, Any], pictures: tuple[str, str] | None) -> dict[str, Any]:
    kinds = [change["change"] for change in pair["changes"]]
    counts = [f"{kinds.count(kind)} {WORDS.get(kind, kind)}" for kind in COLOURS if kind in kinds]
    rows = [_row(change, pair) for change in pair["changes"][:MOST_ROWS]]
    return {
        "name": pair["old"],
        "other": pair["new"] if pair["new"] != pair["old"] else "",
        "counts": ", ".join(counts) or "no damage in either",
        "links": [quote(f"{pair['old']}{suffix}") for suffix in (".before.jpg", ".after.jpg")],
        "pictures": pictures,
        "laid": _laid(pair),
        "unit": "px" if pair["mm_per_pixel"] is None else "mm",
        "rows": rows,
        "more": len(pair["changes"]) - len(rows),
    }


def _laid(pair: Mapping[str, Any]) -> str:
    """How well the two lie on each other."""
    registration = pair["registration"]
    remarks = list(pair["notes"])
    if registration["matches"]:
        error = figure(registration["error_px"], 2)
        remarks.insert(
            0,
            f"laid on each other by {counted(registration['matches'], 'point')}, "
            f"{error} pixels off (root mean square)",
        )
    return "; ".join(remarks)


def _row(change: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    mm = pair["mm_per_pixel"]
    return {
        "number": change["number"],
        "kind": change["change"],
        "word": WORDS.get(change["change"], change["change"]),
        "colour": COLOURS[change["change"]],
        "label": change["label"],
        "length": both(change, ("length", "longest"), mm, change["length_uncertainty_px"]),
        "width": both(change, ("mean_width",), mm, change["uncertainty_px"]),
        "area": both(change, ("area",), mm, None),
        "surest": [_share(change["old_probability"]), _share(change["new_probability"])],
        "remarks": "; ".join(remarks_of(change, pair)),
    }


def both(
    change: Mapping[str, Any], names: Sequence[str], mm: float | None, uncertainty: float | None
) -> str:
    """A measure before and after: the first of these names that both have, or that the one has
    that is there. Both values have as many decimals as their `uncertainty` (pixels).
    """
    sides = (change["before"], change["after"])
    there = [side for side in sides if side is not None]
    for name in names:
        key = f"{name}_px"
        if all(key in side for side in there):
            factor = 1.0 if mm is None else mm ** (2 if name == "area" else 1)
            values = [side[key] * factor if side else None for side in sides]
            return _in_words(values, None if uncertainty is None else uncertainty * factor)
    return ""


def _in_words(values: Sequence[float | None], uncertainty: float | None) -> str:
    """`14.2 → 20.7 ± 0.6`, `none → 20.7 ± 0.6`; without an uncertainty the values alone."""
    if not uncertainty:
        return " → ".join("none" if value is None else figure(value) for value in values)
    words, doubt = [], ""
    for value in values:
        if value is None:
            words.append("none")
            continue
        word, _, doubt = with_uncertainty(value, uncertainty).partition(" ± ")
        words.append(word)
    return f"{' → '.join(words)} ± {doubt}"


def _share(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.0%}"


def _not_compared(each: Mapping[str, Any]) -> dict[str, str]:
    names = dict.fromkeys(name for name in (each["old"], each["new"]) if name)
    return {"name": " and ".join(names), "reason": each["reason"]}


def _day(about: Mapping[str, Any]) -> str:
    return str(about["date"])[:10]


def _facts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What each inspection was, beside each other."""
    facts = []
    for name, key in (("folder", "folder"), ("photographs", "source"), ("date", "date")):
        facts.append((name, str(old[key]), str(new[key])))
    facts.append(("images", f"{old['images']:,}", f"{new['images']:,}"))
    for name, key in (("bundle", "name"), ("model", "model"), ("its manifest", "sha256")):
        facts.append((name, old["bundle"][key], new["bundle"][key]))
    for name, key in (("threshold", "threshold"), ("damage", "damage")):
        values = []
        for about in (old, new):
            value = about["settings"][key]
            values.append(", ".join(value) if isinstance(value, list) else figure(value, 4))
        facts.append((name, values[0], values[1]))
    return facts
