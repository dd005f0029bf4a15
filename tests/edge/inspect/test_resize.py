"""A model whose images are 32 high and 96 wide: damage is found at its place, however a photograph becomes one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge import open_bundle
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.inspect import Inspection, Settings, inspect_image
from prunedge.edge.inspect.overlay import draw_overlay
from prunedge.edge.manifest import View
from prunedge.edge.session import Session, open_session
from tests.edge.inspect.conftest import wall
from tests.edge.made_bundles import write_darkest

WIDE = Size(32, 96)
MODES: tuple[Resize, ...] = ("stretch", "pad", "crop")
WHOLE = View(kind="whole", width=300, height=300)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Resize:
    return request.param


def opened(folder: Path, mode: Resize, view: View | None = None) -> Session:
    return open_session(open_bundle(write_darkest(folder / f"b-{mode}", WIDE, mode, view)))


def holds(inspection: Inspection, x: int, y: int) -> bool:
    return any(
        region.left <= x < region.right and region.top <= y < region.bottom
        for region in inspection.regions
    )


def test_a_bundle_of_such_images_proves_itself(tmp_path: Path, mode: Resize) -> None:
    session = opened(tmp_path, mode)
    assert session.self_test().agreement == 1
    assert session.bundle.manifest.task.size.plain() == [32, 96]


def test_damage_is_found_at_its_place_in_patches(tmp_path: Path, mode: Resize) -> None:
    session = opened(tmp_path, mode)
    found = inspect_image(wall(480, 200, ((300, 90, 306, 96),)), session, Settings())
    assert found.patch == (96, 32)
    assert len(found.regions) == 1
    assert holds(found, 303, 93)
    (region,) = found.regions
    assert region.right - region.left <= 144
    assert region.bottom - region.top <= 48


@pytest.mark.parametrize(
    ("patch", "wanted"), [(48, (48, 16)), ((60, 60), (60, 60)), (None, (96, 32))]
)
def test_a_patch_has_the_model_s_aspect_unless_another_is_asked_for(
    tmp_path: Path, patch: int | tuple[int, int] | None, wanted: tuple[int, int]
) -> None:
    found = inspect_image(wall(200, 120), opened(tmp_path, "pad"), Settings(patch=patch))
    assert found.patch == wanted


def test_a_cropped_patch_of_another_aspect_leaves_nothing_out(tmp_path: Path) -> None:
    session = opened(tmp_path, "crop")
    for x, y in ((2, 2), (195, 2), (100, 60), (2, 115), (195, 115)):
        image = wall(200, 120, ((x - 2, y - 2, x + 2, y + 2),))
        found = inspect_image(image, session, Settings(patch=(60, 60)))
        assert found.patch == (60, 20)
        assert holds(found, x, y)


def test_a_whole_photograph_is_damaged_where_it_was_looked_at(tmp_path: Path, mode: Resize) -> None:
    session = opened(tmp_path, mode, WHOLE)
    image = wall(300, 300, ((140, 140, 160, 160),))
    found = inspect_image(image, session, Settings())
    (region,) = found.regions
    seen = (region.left, region.top, region.right, region.bottom)
    assert seen == ((0, 100, 300, 200) if mode == "crop" else (0, 0, 300, 300))
    # The map is of the whole photograph, whatever was seen of it.
    assert found.map.shape == (-(-300 // found.cell), -(-300 // found.cell))
    middle = len(found.map) // 2
    assert found.map[middle].min() > 0.5
    assert found.map[0].max() == pytest.approx(0 if mode == "crop" else found.map[middle].max())
    if mode == "crop":
        assert any("only its middle, 300 x 100 pixels" in note for note in found.notes)
    else:
        assert not found.notes
    drawn = np.asarray(draw_overlay(open_photo(image, 1), found, 0.5))
    assert drawn.shape[1] >= 300


def test_what_a_crop_leaves_out_is_not_found_and_said(tmp_path: Path) -> None:
    image = wall(300, 300, ((140, 10, 160, 30),))
    found = inspect_image(image, opened(tmp_path, "crop", WHOLE), Settings())
    assert not found.regions
    assert "was looked at" in found.notes[0]
    padded = inspect_image(image, opened(tmp_path, "pad", WHOLE), Settings())
    assert padded.regions
    assert not padded.notes


def test_a_photograph_of_the_model_s_aspect_is_cropped_of_nothing(tmp_path: Path) -> None:
    found = inspect_image(wall(300, 100), opened(tmp_path, "crop", WHOLE), Settings())
    assert not found.notes


def test_the_model_sees_what_training_saw(tmp_path: Path, mode: Resize) -> None:
    from prunedge.edge.image.read import read_image

    wall(190, 120, seed=3).save(tmp_path / "p.png")
    photo = open_photo(Image.open(tmp_path / "p.png"), 1)
    np.testing.assert_array_equal(
        photo.patch((0, 0, 190, 120), WIDE, mode), read_image(tmp_path / "p.png", WIDE, None, mode)
    )
