"""A comparison as plain JSON and as a table. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from prunedge.edge.inspect.compare.changes import Change
from prunedge.edge.inspect.compare.extents import Extent
from prunedge.edge.inspect.compare.pair import Pair
from prunedge.edge.inspect.compare.pairing import Unpaired

MEASURES = ("length", "mean_width", "largest_width", "longest", "area")
COLUMNS = (
    "old_image",
    "new_image",
    "number",
    "change",
    "label",
    "old_regions",
    "new_regions",
    "left",
    "top",
    "right",
    "bottom",
    "uncertainty_px",
    "length_uncertainty_px",
    "old_probability",
    "new_probability",
    "remarks",
)


def pair_to_json(pair: Pair, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A pair as comparison.json has it. `records` are what either inspection found in its
    photograph.
    """
    changes = []
    for number, (change, label) in enumerate(zip(pair.changes, pair.labels, strict=True), 1):
        changes.append({"number": number, "label": label, **_change_to_json(change, pair, records)})
    registration = pair.registration
    return {
        "old": pair.old,
        "new": pair.new,
        "width": pair.size[0],
        "height": pair.size[1],
        "registration": {
            "matrix": registration.matrix.tolist(),
            "matches": len(registration.points),
            "error_px": registration.error,
            "overlap": registration.overlap,
        },
        "mm_per_pixel": pair.mm_per_pixel,
        "notes": list(pair.notes),
        "changes": changes,
    }


def _change_to_json(
    change: Change, pair: Pair, records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    left, top, right, bottom = change.box
    probabilities = []
    for numbers, record in zip((change.old, change.new), records, strict=True):
        each = [record["regions"][number - 1]["probability"] for number in numbers]
        probabilities.append(max(each) if each else change.elsewhere)
    return {
        "change": change.kind,
        "old_regions": list(change.old),
        "new_regions": list(change.new),
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "uncertainty_px": change.uncertainty,
        "length_uncertainty_px": change.length_uncertainty,
        "is_cut": change.is_cut,
        "old_probability": probabilities[0],
        "new_probability": probabilities[1],
        "before": _extent_to_json(change.before, pair.mm_per_pixel),
        "after": _extent_to_json(change.after, pair.mm_per_pixel),
    }


def _extent_to_json(extent: Extent | None, mm: float | None) -> dict[str, float] | None:
    """The measures in pixels of the old photograph, and in millimetres where its scale is known."""
    if extent is None:
        return None
    record = {}
    for name in MEASURES:
        value = getattr(extent, name)
        if value is None:
            continue
        record[f"{name}_px"] = value
        if mm is not None:
            is_area = name == "area"
            record[f"{name}_mm2" if is_area else f"{name}_mm"] = value * mm ** (1 + is_area)
    return record


def table(pairs: Sequence[Mapping[str, Any]], not_compared: Sequence[Unpaired]) -> str:
    """A line for each place, and for each photograph that could not be compared."""
    lines = []
    measures: dict[str, None] = {}  # in their order
    for pair in pairs:
        for change in pair["changes"]:
            line = {**change, "old_image": _cell(pair["old"]), "new_image": _cell(pair["new"])}
            line["label"] = _cell(change["label"])
            line["remarks"] = _cell("; ".join(remarks_of(change, pair)))
            for side in ("old", "new"):
                line[f"{side}_regions"] = " ".join(map(str, change[f"{side}_regions"]))
            for side, extent in (("old", change["before"]), ("new", change["after"])):
                for name, value in (extent or {}).items():
                    line[f"{side}_{name}"] = value
                    measures[f"old_{name}"] = None
                    measures[f"new_{name}"] = None
            lines.append(line)
    for each in not_compared:
        names = {"old_image": _cell(each.old or ""), "new_image": _cell(each.new or "")}
        lines.append({**names, "change": "not compared", "remarks": _cell(each.reason)})

    text = io.StringIO()
    place = COLUMNS.index("uncertainty_px")
    columns = [*COLUMNS[:place], *measures, *COLUMNS[place:]]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def remarks_of(change: Mapping[str, Any], pair: Mapping[str, Any]) -> list[str]:
    """What is to be said of a place beside its measures."""
    remarks = []
    if change["is_cut"]:
        remarks.append("reaches beyond what both photographs show: compared inside alone")
    if change["change"] == "unclear":
        remarks.append("no point near it is found in both photographs, or it is too small")
    return remarks


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@") else text
