"""The page of an inspection: worst first, opens without a model. It holds small images and
links to the large ones.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from prunedge.edge.image.size import Size
from prunedge.edge.inspect.levels import Span, level_text
from prunedge.edge.inspect.measure_words import measures_in_words
from prunedge.edge.inspect.overlay import LEGEND, css_colours
from prunedge.edge.inspect.scale.scaling import scale_in_words
from prunedge.edge.inspect.widths import counts_in_words
from prunedge.edge.tasks import DEFINITIONS
from prunedge.utils.pages import render_template
from prunedge.utils.wording import counted, figure, first_of, percentage

MOST_IMAGES = 200  # small images in the page; the others are in its table
THUMBNAIL = 360  # pixels of the longer side
MOST_NAMES = 5  # of images that were not inspected, in the first sentence


def render_page(
    folder: Path,
    about: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    skipped: Sequence[tuple[str, str]],
    rate: float,
) -> str:
    """The page as HTML. `records` are the images' JSON, worst first; their overlays lie in
    `folder`.
    """
    damaged = [record for record in records if record["regions"]]
    sound = [record for record in records if not record["regions"]]
    settings = about["settings"]
    span = next((record["span"] for record in records if record.get("span")), None)
    return render_template(
        "inspection.html.j2",
        title=f"Inspection of {about['source']}",
        sentence=sentence_of(about, records, skipped),
        date=about["date"].replace("T", " "),
        bundle=about["bundle"],
        cards=_cards(records, damaged, skipped, rate),
        damage=settings["damage"],
        threshold=_threshold(settings["threshold"], span),
        ends=[level_text(level, span) for level in (0.0, 1.0)],
        level="probability" if span is None else "number",
        colours=css_colours(),
        figures=[_figure(folder, record) for record in damaged[:MOST_IMAGES]],
        images=[_row(record) for record in [*damaged[MOST_IMAGES:], *sound]],
        skipped=skipped,
        facts=facts_of(about, records),
    )


def sentence_of(
    about: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    skipped: Sequence[tuple[str, str]],
) -> str:
    """What the model is, how many images are damaged of how many, and which could not be
    inspected.
    """
    damaged = sum(bool(record["regions"]) for record in records)
    whole = "which looked at each photograph as one image, "
    if not records or any(record["patches"] > 1 for record in records):
        whole = ""
    sentence = f"{_model(about)}, {whole}found damage in {damaged:,} of "
    sentence += counted(len(records), "image")
    if not skipped:
        return f"{sentence}; none was left out."
    names = first_of([name for name, _ in skipped], MOST_NAMES)
    return f"{sentence}; not inspected: {names}."


def _model(about: Mapping[str, Any]) -> str:
    """What kind of model it is: what it answers, and to what."""
    bundle = about["bundle"]
    view = about["settings"]["view"]
    size = "" if view is None else f" of {view['width']} x {view['height']} pixels"
    shown = f"patches{size}"
    if view is not None and view["kind"] == "whole":
        shown = "whole photographs"
    kind = DEFINITIONS[bundle["task"]].in_words.format(shown=shown)
    return f"{bundle['name']}, {kind}"


def _cards(
    records: Sequence[Any], damaged: Sequence[Any], skipped: Sequence[Any], rate: float
) -> list[dict[str, str]]:
    regions = sum(len(record["regions"]) for record in damaged)
    return [
        {"name": "images inspected", "value": f"{len(records):,}"},
        {"name": "with damage", "value": f"{len(damaged):,}"},
        {"name": "damaged regions", "value": f"{regions:,}"},
        {"name": "not inspected", "value": f"{len(skipped):,}"},
        {"name": "images per second", "value": f"{rate:.3g}"},
    ]


def _figure(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    worst = record["regions"][0]
    count = len(record["regions"])
    which = "1 region" if count == 1 else f"{count} regions, the worst"
    lines = [
        f"{record['damaged_share']:.1%} damaged, {_surest(record)}",
        f"{which}: {worst['label']}, {_size(worst)} at {worst['left']}, {worst['top']}",
        measures_in_words(worst),
        _remarks(record),
    ]
    return {
        "name": record["name"],
        "link": _link(record),
        "thumbnail": _thumbnail(folder / f"{record['name']}.overlay.jpg", record["key"]),
        "lines": [line for line in lines if line],
    }


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": record["name"],
        "link": _link(record),
        "remarks": _remarks(record),
        "regions": len(record["regions"]),
        "share": f"{record['damaged_share']:.1%}",
        "surest": level_text(record["probability"], record.get("span")),
        "patches": f"{record['damaged']} of {record['patches']}",
    }


def _threshold(threshold: float, span: Span | None) -> str:
    return percentage(threshold) if span is None else figure(threshold, 4)


def _surest(record: Mapping[str, Any]) -> str:
    """What the surest patch says; of numbers, what the image is estimated at."""
    span = record.get("span")
    if span is None:
        return f"surest {level_text(record['probability'], None)}"
    each = [f"{name} {figure(number)}" for name, number in record["numbers"].items()]
    return f"{', '.join(each)}, highest {level_text(record['probability'], span)}"


def _link(record: Mapping[str, Any]) -> str:
    return quote(f"{record['name']}.overlay.jpg")


def _size(region: Mapping[str, Any]) -> str:
    if "width_mm" in region:
        return f"{region['width_mm']:,.4g} x {region['height_mm']:,.4g} mm"
    return f"{region['width']:,} x {region['height']:,} pixels"


def _remarks(record: Mapping[str, Any]) -> str:
    position = record["position"]
    where = f"{position['latitude']:.6f}, {position['longitude']:.6f}" if position else ""
    remarks = (record.get("taken", ""), where, *record["notes"])
    return "; ".join(remark for remark in remarks if remark)


def facts_of(about: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """What was inspected with what, in words."""
    settings = about["settings"]
    bundle = about["bundle"]
    return {
        "bundle": f"{bundle['name']}: {bundle['model']}, classes {', '.join(bundle['classes'])}",
        "checksum of its manifest": bundle["sha256"],
        "damage": ", ".join(settings["damage"]),
        "threshold": f"{settings['threshold']:g}",
        "patch": _patch(settings, bundle["input_size"]),
        "scale": scale_in_words(records),
        **_width_classes(settings, records),
        "device": ", ".join(_of_device(key, value) for key, value in about["device"].items()),
        "prunedge": about["versions"]["prunedge"],
    }


def _width_classes(
    settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """How many regions there are of each class of width; nothing without a table of these."""
    classes = settings.get("width_classes")
    if classes is None:
        return {}
    return {"largest widths": counts_in_words(records, classes["names"])}


def _patch(settings: Mapping[str, Any], input_size: int | list[int]) -> str:
    sides = [input_size, input_size] if isinstance(input_size, int) else input_size
    seen = f"seen at {Size(*sides).in_words()} pixels"
    view = settings["view"]
    if view["kind"] == "whole":
        return f"the whole photograph, {seen}"
    return (
        f"{view['width']} x {view['height']} pixels, {settings['overlap']:.0%} shared with the "
        f"next, {seen}"
    )


def _of_device(key: str, value: Any) -> str:
    """A fact of the device in words."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if key == "cores":
        return counted(value, "core")
    units = {"memory_mb": "{} MB of memory", "governor": "governor {}"}
    return units.get(key, "{}").format(value)


@lru_cache(maxsize=2 * MOST_IMAGES)
def _thumbnail(overlay: Path, key: str) -> str:
    """A small copy of an overlay as a data URL; `key` tells its versions apart."""
    with Image.open(overlay) as opened:
        small = opened.crop((0, 0, opened.width, opened.height - LEGEND))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
