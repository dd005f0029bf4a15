"""Two inspections of four walls, whose cracks are drawn: of one it is known what changed, one shows another wall, one is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from prunedge.cli.app import main
from tests.edge.made_bundles import write_dark_pixels, write_darkest

SIDE = 288
GROWTH = 40  # pixels that the first crack of `grown.jpg` is longer
CRACKS = {"first": ((60, 70), (130, 100)), "second": ((200, 180), (200, 250))}
FRESH = ((40, 230), (110, 200))


def texture(seed: int) -> np.ndarray:
    """A wall (SIDE, SIDE, 3) uint8 with stains of every size, none of them dark."""
    draw = np.random.default_rng(seed)
    wall = np.zeros((SIDE, SIDE), np.float32)
    for size in (9, 24, 72):
        coarse = draw.uniform(-1, 1, (size, size)).astype(np.float32)
        wall += cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.repeat((165 + 28 * wall).clip(100, 250).astype(np.uint8)[..., None], 3, axis=2)


def cracked(wall: np.ndarray, *lines: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    drawn = wall.copy()
    for first, last in lines:
        cv2.line(drawn, first, last, (5, 5, 5), 4, cv2.LINE_AA)
    return drawn


def seen_from_elsewhere(photograph: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same from another place, in another light, with the camera's noise."""
    draw = np.random.default_rng(seed)
    corners = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], np.float32)
    matrix = cv2.getPerspectiveTransform(
        corners, corners + draw.uniform(-12, 12, (4, 2)).astype(np.float32)
    )
    pixels = cv2.warpPerspective(
        photograph, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    noise = draw.normal(0, 3, pixels.shape)
    return (pixels * 0.9 + 8 + noise).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """Photographs and their inspections, before and after."""

    root: Path
    bundle: Path

    def inspection(self, side: str) -> Path:
        return self.root / f"inspected-{side}"


def longer(line: tuple[tuple[int, int], tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    start, end = np.array(line, dtype=float)
    way = (end - start) / np.linalg.norm(end - start)
    far = np.round(end + GROWTH * way).astype(int)
    return line[0], (int(far[0]), int(far[1]))


def photographs(root: Path) -> None:
    before, after = root / "before", root / "after"
    before.mkdir()
    after.mkdir()
    first, second = CRACKS["first"], CRACKS["second"]

    def save(pixels: np.ndarray, file: Path) -> None:
        Image.fromarray(pixels).save(file, quality=90)

    grown, same = texture(1), texture(2)
    save(cracked(grown, first, second), before / "grown.jpg")
    save(
        seen_from_elsewhere(cracked(grown, longer(first), FRESH)),  # type: ignore[arg-type]
        after / "grown.jpg",
    )
    save(cracked(same, first, second), before / "same.jpg")
    save(seen_from_elsewhere(cracked(same, first, second), 5), after / "same.jpg")
    save(cracked(texture(3), first), before / "other.jpg")
    save(cracked(texture(4), first), after / "other.jpg")
    save(cracked(texture(5), first), before / "left.jpg")


def quiet(*arguments: object) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="session")
def command() -> Callable[..., int]:
    return quiet


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("scene")
    photographs(root)
    bundle = write_dark_pixels(root / "bundle", 144)
    made = Scene(root, bundle)
    for side in ("before", "after"):
        line = ("inspect", bundle, root / side, "--out", made.inspection(side))
        assert quiet(*line, "--mm-per-pixel", 0.5, "--threads", 1) == 0
    return made


@pytest.fixture(scope="session")
def patched(scene: Scene) -> Path:
    """One of the photographs as a classifier of patches sees it."""
    bundle = write_darkest(scene.root / "patches", 16)
    for side in ("before", "after"):
        photograph = scene.root / side / "same.jpg"
        line = ("inspect", bundle, photograph, "--out", scene.root / f"patches-{side}")
        assert quiet(*line, "--patch", 48, "--threads", 1) == 0
    return scene.root
