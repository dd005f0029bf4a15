"""Masks without numbers, links that lead to themselves, folders where an image should be: named, one by one."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import cut_patches, load
from prunedge.edge.inspect.sources import open_source
from prunedge.errors import DataError
from tests.tiny_images import write_tiny


def write_scenes(root: Path) -> tuple[Path, Path]:
    """Two photographs, and their masks as floats."""
    for number in range(2):
        draw = np.random.default_rng(number)
        (root / "photos").mkdir(exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 48), dtype=np.uint8)).save(
            root / "photos" / f"{number}.png"
        )
        mask = np.zeros((32, 48), np.float32)
        mask[:, :8] = 255
        Image.fromarray(mask).save(root / "masks" / f"{number}.tif")
    return root / "photos", root / "masks"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mask_without_numbers_is_refused(tmp_path: Path, value: float) -> None:
    photos, masks = write_scenes(tmp_path)
    mask = np.asarray(Image.open(masks / "1.tif")).copy()
    mask[3, 4] = value
    Image.fromarray(mask).save(masks / "1.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            DataError, match=r"1 of 2 .*1 \(its mask: 1 of its 1,536 values are no numbers"
        ):
            cut_patches(photos, masks, tmp_path / "out", size=16)
    assert not (tmp_path / "out").exists()


def test_masks_of_large_floats_are_refused_without_overflowing(tmp_path: Path) -> None:
    """Nothing says what such a number means."""
    photos, masks = write_scenes(tmp_path)
    mask = np.zeros((32, 48), np.float32)
    mask[:, :8] = 1e30
    Image.fromarray(mask).save(masks / "1.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="neither numbers up to 255 nor black and white"):
            cut_patches(photos, masks, tmp_path / "out", size=16)


def test_a_link_to_itself_is_named_and_the_rest_read(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", 8, 16)
    (data / "crack" / "loop.png").symlink_to("loop.png")
    (data / "crack" / "nowhere.png").symlink_to("gone.png")
    with pytest.raises(
        DataError, match=r"2 of 18 .*crack/loop.png \(.*crack/nowhere.png \(no such file\)"
    ) as error:
        load(data, size=16)
    assert "Errno" not in str(error.value)
    assert len(load(data, size=16, skip_unreadable=True).skipped) == 2


def test_a_link_to_itself_among_what_is_inspected(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", 2, 16)
    (data / "crack" / "loop").symlink_to("loop")
    assert open_source(str(data)).total == 4


def test_a_folder_in_a_row_of_a_table(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", 8, 16)
    rows = [f"{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    (data / "folder.png").mkdir()
    (data / "m.csv").write_text("\n".join(["path,label", *rows, "folder.png,crack"]))
    with pytest.raises(DataError, match=r"folder.png \(this is a folder, not a file\)") as error:
        load(data / "m.csv", size=16)
    assert "Errno" not in str(error.value)


def test_a_row_with_more_cells_than_the_header(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", 8, 16)
    rows = [f"{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    rows[2] += ",extra"
    (data / "m.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match="line 4: 3 cells, and the header has 2"):
        load(data / "m.csv", size=16)
    rows[2] = rows[2].removesuffix("extra") + " "  # an empty cell at the end is none
    (data / "m.csv").write_text("\n".join(["path,label", *rows]))
    assert load(data / "m.csv", size=16).classes == ("crack", "sound")
