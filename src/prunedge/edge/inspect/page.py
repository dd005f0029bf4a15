"""The page of an inspection: worst first, opens without a model. It holds small images and
links to the large ones.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from prunedge.edge.image.size import Size
from prunedge.edge.inspect.overlay import LEGEND, css_colours
from prunedge.utils.sanitize import shown

MOST_IMAGES = 200  # small images in the page; the others are in its table
THUMBNAIL = 360  # pixels of the longer side

STYLE = """
:root { --ink: #1d2733; --muted: #5c6875; --line: #e1e6eb; --accent: #0b6e99; --soft: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: #fff; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; } .note { color: var(--muted); font-size: .9rem; } a { color: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-top: 4px solid var(--accent); border-radius: .4rem; padding: .6rem .9rem; }
.card b { display: block; font-size: 1.6rem; line-height: 1.3; color: var(--accent); font-variant-numeric: tabular-nums; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; overflow: hidden; break-inside: avoid; }
figure a { display: block; background: var(--soft); } figure img { display: block; width: 100%; height: 15rem; object-fit: contain; }
figcaption { padding: .5rem .7rem .6rem; font-size: .85rem; overflow-wrap: anywhere; } figcaption b { display: block; font-size: .95rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, .words td { text-align: left; overflow-wrap: anywhere; } thead th { border-bottom: 2px solid var(--ink); }
td:first-child { min-width: 9rem; } .words td:first-child { width: 30%; min-width: 7rem; }
.bar { display: inline-block; width: 8rem; height: .8rem; vertical-align: middle; border: 1px solid var(--ink); }
@media print { main { max-width: none; padding: 0; } }
"""


def escape(text: str) -> str:
    """A name as it may stand in HTML."""
    return html.escape(shown(text))


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
    rest = [*damaged[MOST_IMAGES:], *(record for record in records if not record["regions"])]
    settings, bundle = about["settings"], about["bundle"]
    title = f"Inspection of {about['source']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        (
            f'<p class="note">{escape(about["date"].replace("T", " "))}, bundle '
            f"{escape(bundle['name'])} ({escape(bundle['model'])})</p>"
        ),
        _cards(records, damaged, skipped, rate),
        f"<p>Damage is {escape(' or '.join(settings['damage']))}; an area counts from a "
        f"probability of {settings['threshold']:.0%} on. "
        'The colours <span class="bar" style="background: linear-gradient(to right, '
        f'{css_colours()})"></span> run from 0 to 100 %.</p>',
    ]
    if damaged:
        parts += [
            '<h2>Damage, worst first</h2><p class="note">Ordered by the share of the image that '
            "is damaged. "
            'The percentage in a box, and "surest", are of the surest patch. '
            "Positions are pixels from the left and from the top. Click for the large "
            'image.</p><div class="gallery">',
            *(_figure(folder, record) for record in damaged[:MOST_IMAGES]),
            "</div>",
        ]
    if rest:
        parts += [f"<h2>{'Further images' if damaged else 'Images'}</h2>", _table(rest)]
    if skipped:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td></tr>" for name, reason in skipped
        )
        parts.append(f'<h2>Not inspected</h2><table class="words"><tbody>{rows}</tbody></table>')
    parts.append(_facts(about))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" '
        f'href="data:,"><style>{STYLE}</style></head><body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _cards(
    records: Sequence[Any], damaged: Sequence[Any], skipped: Sequence[Any], rate: float
) -> str:
    figures = [
        (f"{len(records):,}", "images inspected"),
        (f"{len(damaged):,}", "with damage"),
        (f"{sum(len(record['regions']) for record in damaged):,}", "damaged regions"),
        (f"{len(skipped):,}", "not inspected"),
        (f"{rate:.3g}", "images per second"),
    ]
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{value}</b>{name}</div>' for value, name in figures)
        + "</div>"
    )


def _figure(folder: Path, record: Mapping[str, Any]) -> str:
    name, worst, count = escape(record["name"]), record["regions"][0], len(record["regions"])
    lines = [
        f"{record['damaged_share']:.1%} damaged, surest {record['probability']:.0%}",
        f"{'1 region' if count == 1 else f'{count} regions, the worst'}: {escape(worst['label'])}, "
        f"{_size(worst)} "
        f"at {worst['left']}, {worst['top']}",
        _remarks(record),
    ]
    link = escape(quote(f"{record['name']}.overlay.jpg"))
    image = _thumbnail(folder / f"{record['name']}.overlay.jpg", record["key"])
    return (
        f'<figure><a href="{link}"><img src="{image}" alt="{name} with its damage" '
        'loading="lazy"></a>'
        f"<figcaption><b>{name}</b>{'<br>'.join(line for line in lines if line)}</figcaption></figure>"
    )


def _size(region: Mapping[str, Any]) -> str:
    if "width_mm" in region:
        return f"{region['width_mm']:,.4g} x {region['height_mm']:,.4g} mm"
    return f"{region['width']:,} x {region['height']:,} pixels"


def _remarks(record: Mapping[str, Any]) -> str:
    place = record["position"]
    where = f"{place['latitude']:.6f}, {place['longitude']:.6f}" if place else ""
    return escape(
        "; ".join(remark for remark in (record.get("taken", ""), where, *record["notes"]) if remark)
    )


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        "<tr><td><a "
        f'href="{escape(quote(record["name"] + ".overlay.jpg"))}">{escape(record["name"])}</a>'
        "<div "
        f'class="note">{_remarks(record)}</div></td><td>{len(record["regions"])}</td><td>{record["damaged_share"]:.1%}</td>'
        f"<td>{record['probability']:.0%}</td><td>{record['damaged']} of "
        f"{record['patches']}</td></tr>"
        for record in records
    )
    heads = "".join(
        f"<th>{name}</th>" for name in ("image", "regions", "damaged", "surest", "damaged patches")
    )
    return (
        "<div "
        f'class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _facts(about: Mapping[str, Any]) -> str:
    settings, bundle = about["settings"], about["bundle"]
    device = (_of_device(key, value) for key, value in about["device"].items())
    view = settings["view"]
    size = _in_words(bundle["input_size"])
    patch = (
        f"{view['width']} x {view['height']} pixels, {settings['overlap']:.0%} shared with the "
        f"next, seen at {size} pixels"
    )
    if view["kind"] == "whole":
        patch = f"the whole photograph, seen at {size} pixels"
    facts = {
        "bundle": f"{bundle['name']}: {bundle['model']}, classes {', '.join(bundle['classes'])}",
        "checksum of its manifest": bundle["sha256"],
        "damage": ", ".join(settings["damage"]),
        "threshold": f"{settings['threshold']:g}",
        "patch": patch,
        "scale": f"{settings['mm_per_pixel']:g} mm a pixel"
        if settings["mm_per_pixel"]
        else "not known",
        "device": ", ".join(device),
        "prunedge": about["versions"]["prunedge"],
    }
    rows = "".join(
        f"<tr><td>{key}</td><td>{escape(value)}</td></tr>" for key, value in facts.items()
    )
    return (
        f'<h2>How it was inspected</h2><table class="words"><tbody>{rows}</tbody></table>'
        '<p class="note">A model finds what it was trained on, and misses some of it: images '
        "without a region are not proven sound.</p>"
    )


def _in_words(input_size: int | list[int]) -> str:
    sides = [input_size, input_size] if isinstance(input_size, int) else input_size
    return Size(*sides).in_words()


def _of_device(key: str, value: Any) -> str:
    """A fact of the device in words."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    units = {"cores": "{} core(s)", "memory_mb": "{} MB of memory", "governor": "governor {}"}
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
