"""A stand-in for prunedge.edge.inspect until that branch is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

from prunedge.edge.pictures import read_picture
from prunedge.errors import DataError


@dataclass(frozen=True)
class Settings:
    """How to inspect."""

    damage: tuple[str, ...] = ()
    threshold: float = 0.5
    patch: int | None = None
    overlap: float = 0.5
    batch: int = 16
    mm_per_pixel: float | None = None
    max_megapixels: float = 200.0


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    name: str
    width: int
    height: int
    patches: int
    damaged: bool
    regions: tuple[Any, ...]
    probability: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def damage_classes(classes: list[str], wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The classes that are damage."""
    if unknown := [name for name in wanted if name not in classes]:
        raise DataError(f"the network knows no class '{unknown[0]}'", remedy=f"--damage takes some of: {', '.join(classes)}")
    return wanted or tuple(classes[:1])


def inspect_picture(
    picture: Path, session: Any, settings: Settings, *, name: str | None = None, progress: Callable[[int, int, str], None] | None = None
) -> Inspection:
    """Inspect."""
    started = perf_counter()
    with suppress_bombs():
        pixels = read_picture(picture, session.bundle.manifest.input_size)
        with Image.open(picture) as opened:
            width, height = opened.size
    classes = session.bundle.manifest.classes
    found = session.predict(pixels[None])[0]
    value = float(sum(found[classes.index(label)] for label in damage_classes(classes, settings.damage)))
    return Inspection(name or picture.name, width, height, 1, value >= settings.threshold, (), value, perf_counter() - started)


def suppress_bombs() -> Any:
    """Nothing."""
    import warnings

    return warnings.catch_warnings(action="error")
