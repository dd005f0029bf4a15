"""What a comparison comes to, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from prunedge.edge.inspect.kept import KeptInspection
from prunedge.utils.wording import counted, figure

# What is said even where there is none, and what only where there is some.
ALWAYS = ("new", "grown", "gone", "unchanged")
WORDS = {
    "smaller": "smaller",
    "unclear": "that can't be told",
    "outside": "that one photograph alone shows",
}


def summary(counts: Mapping[str, int], not_compared: int) -> str:
    """`3 new, 2 grown, 1 gone, 14 unchanged, 1 photograph could not be compared`."""
    parts = [f"{counts[kind]:,} {kind}" for kind in ALWAYS[:2]]
    if counts["smaller"]:
        parts.append(f"{counts['smaller']:,} smaller")
    parts += [f"{counts[kind]:,} {kind}" for kind in ALWAYS[2:]]
    for kind in ("unclear", "outside"):
        if counts[kind]:
            parts.append(f"{counts[kind]:,} {WORDS[kind]}")
    if not_compared:
        parts.append(f"{counted(not_compared, 'photograph')} could not be compared")
    return ", ".join(parts)


def differences(old: KeptInspection, new: KeptInspection) -> list[str]:
    """In what the two inspections differ beside their photographs: what is new or gone may come
    from that.
    """
    first, second = old.about, new.about
    found = []
    if first["bundle"]["sha256"] != second["bundle"]["sha256"]:
        models = [
            f"{about['bundle']['name']} ({about['bundle']['model']}, "
            f"{about['bundle']['sha256'][:8]})"
            for about in (first, second)
        ]
        found.append(f"models: {models[0]} and {models[1]}")
    before, after = first["settings"], second["settings"]
    if old.threshold != new.threshold:
        found.append(f"thresholds: {figure(old.threshold, 4)} and {figure(new.threshold, 4)}")
    if before["damage"] != after["damage"]:
        found.append(
            f"classes of damage: {', '.join(before['damage'])} and {', '.join(after['damage'])}"
        )
    if before.get("view") != after.get("view") or before["overlap"] != after["overlap"]:
        found.append(f"patches: {_patches(before)} and {_patches(after)}")
    return found


def _patches(settings: Mapping[str, object]) -> str:
    view = settings.get("view")
    if not isinstance(view, Mapping):
        return "unknown"
    if view["kind"] == "whole":
        return "whole photographs"
    return f"{view['width']} x {view['height']} pixels, overlap {settings['overlap']}"
