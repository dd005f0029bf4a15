"""Photographs with masks as a data set: what masks mean, how they move, what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prunedge as pe
from prunedge.config import RunConfig
from prunedge.data.dataset import Dataset
from prunedge.data.judged import Sight, read_judged
from prunedge.data.mask_array import resized_mask
from prunedge.data.patches import cut_patches
from prunedge.data.transforms import augment, draw, moved
from prunedge.edge.image.size import Size, resized
from prunedge.edge.tasks.mask_targets import IGNORE, MaskTargets
from prunedge.errors import ConfigError, DataError
from tests.masked_images import numbers_with, write_kinds, write_lines, write_pair

SHARED = Path(__file__).parents[3] / "shared" / "data"


def loaded(root: Path, **settings: object) -> Dataset:
    return pe.load_folder(root / "photos", masks=root / "masks", **{"size": 32, **settings})


def all_masks(data: Dataset) -> dict[str, np.ndarray]:
    """The mask of each image by its name."""
    masks = {}
    for split in data.splits().values():
        for sample, mask in zip(split.samples, split.targets(), strict=True):
            masks[sample.path.name] = mask
    return masks


def test_black_and_white_masks_are_two_classes_and_the_task_is_segmentation(tmp_path: Path) -> None:
    data = loaded(write_lines(tmp_path))
    assert data.spec.name == "segmentation"
    assert data.classes == ("background", "damage")
    assert data.outputs == 2
    masks = all_masks(data)
    assert len(masks) == 40
    for index in range(40):
        np.testing.assert_array_equal(
            masks[f"{index:03d}.png"], numbers_with(index, line=index % 5 > 0)
        )


def test_masks_of_numbers_have_the_names_beside_them(tmp_path: Path) -> None:
    data = loaded(write_kinds(tmp_path))
    assert data.classes == ("sound", "crack", "spalling")
    for name, mask in all_masks(data).items():
        index = int(name[:3])
        np.testing.assert_array_equal(
            mask, numbers_with(index, line=index % 3 > 0, blot=index % 2 > 0)
        )


@pytest.mark.parametrize(
    ("values", "mode", "names", "wanted"),
    [
        ((0, 1, 2), "L", None, ("background", "class 1", "class 2")),
        ((0, 1, 2), "P", None, ("background", "class 1", "class 2")),
        ((0, 1, 255), "L", None, ("background", "damage")),
        ((0, 1, 1), "L", None, ("background", "damage")),
        ((0, 255, 255), "L", "crack", ("background", "crack")),
        ((0, 3, 40), "P", None, ("background", "class 3", "class 40")),
    ],
)
def test_what_the_values_of_a_set_mean(
    tmp_path: Path, values: tuple[int, ...], mode: str, names: str | None, wanted: tuple[str, ...]
) -> None:
    for index in range(12):
        numbers = numbers_with(index, line=True, blot=True)
        write_pair(tmp_path, f"{index}", numbers, values=values, seed=index)
        file = tmp_path / "masks" / f"{index}.png"
        if mode == "P":
            image = Image.open(file)
            image.putpalette([channel for value in range(256) for channel in (value, 0, 0)])
            image.save(file)
    if names is not None:
        (tmp_path / "masks" / "classes.txt").write_text(names)
    data = loaded(tmp_path)
    assert data.classes == wanted
    mask = all_masks(data)["1.png"]
    numbers = numbers_with(1, line=True, blot=True)
    if values == (0, 1, 255):
        numbers = np.where(numbers == 2, IGNORE, numbers)
    elif len(wanted) == 2:
        numbers = numbers > 0
    np.testing.assert_array_equal(mask, numbers)


def test_bilevel_and_deep_masks_are_black_and_white(tmp_path: Path) -> None:
    write_lines(tmp_path, 12)
    for index in range(12):
        file = tmp_path / "masks" / f"{index:03d}.png"
        white = np.asarray(Image.open(file)) > 0
        deep = Image.fromarray(white.astype(np.uint16) * 65535)
        (Image.fromarray(white) if index % 2 else deep).save(file)
    data = loaded(tmp_path)
    np.testing.assert_array_equal(all_masks(data)["001.png"], numbers_with(1))
    np.testing.assert_array_equal(all_masks(data)["002.png"], numbers_with(2))


def test_a_mask_moves_as_its_image_does() -> None:
    masks = np.random.default_rng(0).integers(0, 3, (40, 6, 6), dtype=np.uint8)
    pixels = np.repeat(masks[..., None] * np.uint8(100), 3, axis=3)
    for kind in ("flips", "full"):
        changes = draw(40, torch.Generator().manual_seed(3), kind)
        changes = replace(changes, brightness=torch.ones(40), contrast=torch.ones(40))
        image = augment(pixels, changes)
        np.testing.assert_array_equal(image[:, 0], moved(masks, changes) * 100.0)
        assert not np.array_equal(moved(masks, changes), masks)
    wide = np.random.default_rng(1).integers(0, 3, (40, 4, 8), dtype=np.uint8)
    turned = moved(wide, draw(40, torch.Generator().manual_seed(0), "full"))
    assert turned.shape == wide.shape


def test_batches_are_moved_with_their_images(tmp_path: Path) -> None:
    data = loaded(write_lines(tmp_path))
    seen = []
    for images, masks in data.train.batches(7, shuffle_seed=1, augment="flips"):
        dark = images.mean(1) < -1
        assert masks.dtype == torch.uint8
        torch.testing.assert_close(dark, masks == 1)
        seen.append(masks)
    assert sum(map(len, seen)) == len(data.train)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_masks_are_resized_as_images_are(resize: str) -> None:
    numbers = np.zeros((20, 40), np.uint8)
    numbers[5:15, 10:20] = 1
    size = Size(16, 16)
    mask = resized_mask(numbers, size, resize)  # type: ignore[arg-type]
    image = resized(
        Image.fromarray(np.repeat(numbers[..., None] * np.uint8(255), 3, 2)), size, resize
    )  # type: ignore[arg-type]
    assert mask.shape == (16, 16)
    counting = mask != IGNORE
    assert counting.all() == (resize != "pad")
    # But for the edges, which are grey in the image.
    is_clear = counting & ((image[..., 0] < 60) | (image[..., 0] > 195))
    np.testing.assert_array_equal(mask[is_clear] == 1, image[..., 0][is_clear] > 127)
    assert (mask == 1).any()


def test_a_cache_without_room_gives_the_same_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = loaded(write_lines(tmp_path), cache_dir=tmp_path / "kept")
    monkeypatch.setattr("prunedge.data.cache._used", lambda home: -(10**12))
    anew = loaded(tmp_path, cache_dir=tmp_path / "none")
    assert kept.train.masks is not None
    assert anew.train.masks is not None
    assert kept.train.masks.cache is not None
    assert anew.train.masks.cache is None
    np.testing.assert_array_equal(kept.train.targets(), anew.train.targets())
    assert kept.fingerprint == anew.fingerprint


def test_another_mask_is_another_fingerprint_though_it_shows_the_same_classes(
    tmp_path: Path,
) -> None:
    before = loaded(write_lines(tmp_path)).fingerprint
    assert loaded(tmp_path).fingerprint == before
    file = tmp_path / "masks" / "001.png"
    Image.fromarray(np.asarray(Image.open(file))[:, ::-1].copy()).save(file)
    assert loaded(tmp_path).fingerprint != before


def shown_in(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.setdiff1d(mask, [0, IGNORE]).tolist())


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_targets_are_what_masks_show_at_the_size_that_a_model_sees(
    tmp_path: Path, resize: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of one pixel is lost where each fourth pixel is kept, and at an edge that is cut."""
    for index in range(40):
        numbers = np.zeros((64, 96), np.uint8)
        numbers[:, 7 * index % 96] = 1
        write_pair(tmp_path, f"{index:02d}", numbers, seed=index)
    data = loaded(tmp_path, size=16, resize=resize)
    full = 0
    for split in data.splits().values():
        masks = split.targets()
        for sample, mask in zip(split.samples, masks, strict=True):
            assert sample.target == shown_in(mask)
        full += split.counts()["damage"]
        assert split.counts()["damage"] == (masks == 1).any((1, 2)).sum()
    assert 4 <= full < 20
    assert f"{40 - full} of 40 masks with damage show none at 16 px" in caplog.text
    shown = []
    for _, masks in data.train.batches(4, shuffle_seed=0, balanced=True):
        shown += (masks == 1).flatten(1).any(1).tolist()
    assert np.mean(shown) == pytest.approx(0.5, abs=0.05)

    sight = Sight(data.labelling, Size(16, 16), resize)  # type: ignore[arg-type]
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks")
    for sample, mask in zip(judged.split.samples, judged.split.targets(), strict=True):
        assert sample.target == shown_in(mask)
    again = loaded(tmp_path, size=16, resize=resize)
    assert again.train.samples == data.train.samples


def test_damage_that_no_mask_shows_at_that_size_is_refused(tmp_path: Path) -> None:
    for index in range(12):
        numbers = np.zeros((64, 64), np.uint8)
        numbers[:, 0] = 1
        write_pair(tmp_path, f"{index}", numbers, seed=index)
    with pytest.raises(DataError, match="none of 12 masks shows damage at 8 px"):
        loaded(tmp_path, size=8)


def test_photographs_that_can_t_be_read_are_left_out_with_their_masks(tmp_path: Path) -> None:
    write_lines(tmp_path, 20)
    (tmp_path / "photos" / "003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 20 images can't be read: 003.png \("):
        loaded(tmp_path)
    assert len(all_masks(loaded(tmp_path, skip_unreadable=True))) == 19
    sight = Sight(MaskTargets(("background", "damage")), Size(32, 32))
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks")
    assert [*judged.unreadable] == ["003.png"]


def test_splits_have_each_class_in_the_same_share_and_folders_may_be_splits(tmp_path: Path) -> None:
    data = loaded(write_kinds(tmp_path / "a", 60), seed=3)
    for split in data.splits().values():
        shares = {name: count / len(split) for name, count in split.counts().items()}
        assert shares["crack"] == pytest.approx(2 / 3, abs=0.12)
        assert shares["spalling"] == pytest.approx(1 / 2, abs=0.12)

    for index, side in enumerate(("train", "val", "test") * 5):
        write_pair(tmp_path / "b", f"{side}/{index}", numbers_with(index), seed=index)
    data = loaded(tmp_path / "b")
    assert all("val" in sample.path.parts for sample in data.val.samples)
    assert [len(split) for split in data.splits().values()] == [5, 5, 5]


def test_what_is_wrong_names_file_cause_and_remedy(tmp_path: Path) -> None:
    write_kinds(tmp_path, 12)
    masks = tmp_path / "masks"

    Image.fromarray(np.zeros((10, 20), np.uint8)).save(masks / "003.png")
    with pytest.raises(DataError, match=r"1 of 12 masks.*003 \(its mask is 20x10 and not 32x32\)"):
        loaded(tmp_path)
    assert len(all_masks(loaded(tmp_path, skip_unreadable=True))) == 11

    Image.fromarray(np.full((32, 32), 3, np.uint8)).save(masks / "003.png")
    with pytest.raises(
        DataError, match=r"003.png has the number 3, and the classes are 3 \(sound, cr"
    ):
        loaded(tmp_path)

    colours = np.zeros((32, 32, 3), np.uint8)
    colours[:5, :, 0] = 255
    Image.fromarray(colours).save(masks / "003.png")
    with pytest.raises(DataError, match=r"003 \(its mask has colours and no palette"):
        loaded(tmp_path)

    (masks / "003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="003 \\("):
        loaded(tmp_path)

    (masks / "003.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 photographs have no mask: 003.*all black"):
        loaded(tmp_path)


@pytest.mark.parametrize("tile", [None, 16])
def test_turned_photographs_whose_masks_may_lie_either_way_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tile: int | None
) -> None:
    """Upside down and mirrored, and on their side where they are square: no size tells."""
    write_lines(tmp_path, 12)
    for index, orientation in enumerate((3, 2, 6, 1, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = tmp_path / "photos" / f"{index:03d}.png"
        image = Image.open(file)
        file.unlink()
        image.save(file.with_suffix(".jpg"), exif=exif, quality=100)
    # This mask says itself how it lies.
    turned = Image.Exif()
    turned[0x0112] = 3
    mask = tmp_path / "masks" / "004.png"
    Image.open(mask).save(mask, exif=turned)
    loaded(tmp_path, tile=tile)
    said = [line for line in caplog.messages if "EXIF" in line]
    assert len(said) == 1
    assert "3 of 12 photographs are turned or mirrored by their EXIF" in said[0]
    assert "000.jpg" in said[0]


def test_a_mask_that_several_photographs_share_is_refused(tmp_path: Path) -> None:
    """It shows the damage of one of them at most."""
    write_lines(tmp_path, 12)
    for folder in ("a", "b"):
        (tmp_path / "photos" / folder).mkdir()
    (tmp_path / "photos" / "001.png").rename(tmp_path / "photos" / "a" / "001.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "b" / "001.png")
    said = r"2 photographs share the mask 001.png: a/001.png, b/001.png"
    with pytest.raises(DataError, match=said):
        loaded(tmp_path)
    with pytest.raises(DataError, match=said):
        cut_patches(tmp_path / "photos", tmp_path / "masks", tmp_path / "out", size=16)
    for folder in ("a", "b"):
        mask = tmp_path / "masks" / folder / "001.png"
        mask.parent.mkdir()
        mask.write_bytes((tmp_path / "masks" / "001.png").read_bytes())
    assert len(all_masks(loaded(tmp_path))) == 12

    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "002.jpg")
    with pytest.raises(DataError, match=r"share the mask 002.png: 002.jpg, 002.png"):
        loaded(tmp_path)


def test_photographs_without_a_mask_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lines(tmp_path, 20)
    (tmp_path / "masks" / "003.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(all_masks(loaded(tmp_path, skip_unreadable=True))) == 19
    assert "skipped a photograph without a mask: 003" in caplog.text


def test_empty_masks_everywhere_and_no_masks_at_all_are_refused(tmp_path: Path) -> None:
    for index in range(4):
        write_pair(tmp_path, f"{index}", np.zeros((32, 32), np.uint8), seed=index)
    with pytest.raises(DataError, match="all 4 masks are empty"):
        loaded(tmp_path)
    (tmp_path / "other").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "other" / "x.png")
    with pytest.raises(DataError, match="none of 4 photographs has a mask here"):
        pe.load_folder(tmp_path / "photos", masks=tmp_path / "other", size=32)


def test_masks_and_tasks_that_read_none_exclude_each_other(tmp_path: Path) -> None:
    write_lines(tmp_path, 4)
    with pytest.raises(ConfigError, match="acts only with task='segmentation'"):
        loaded(tmp_path, task="classification")
    for load in (pe.load_folder, pe.load_manifest):
        with pytest.raises(DataError, match="needs masks, or annotations: masks='MASKS'"):
            load(tmp_path / "photos", task="segmentation", size=32)
    config = {"data": "x", "model": "y", "masks": str(tmp_path / "masks")}
    assert RunConfig.make("x", **config).task.metric == "iou"
    with pytest.raises(ConfigError, match=r"balance='loss' can't be had.*balance='sampler'"):
        RunConfig.make("x", **config, balance="loss")


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ("s3://bucket/masks", r"masks behind a URL.*: copy them into a folder"),
        ("", r"no folder.*: name the one that the masks lie in"),
    ],
)
def test_masks_lie_in_a_folder(tmp_path: Path, masks: str, said: str) -> None:
    write_lines(tmp_path, 4)
    with pytest.raises(ConfigError, match=said):
        RunConfig.make("x", data="x", model="y", masks=masks)
    with pytest.raises(ConfigError, match=said):
        pe.load_folder(tmp_path / "photos", masks=masks, size=32)
    sight = Sight(MaskTargets(("background", "damage")), Size(32, 32))
    with pytest.raises(DataError, match=said.partition(".*")[0]):
        read_judged(tmp_path / "photos", sight, masks=masks)


def test_other_masks_are_matched_to_a_model_s_classes_by_name(tmp_path: Path) -> None:
    write_kinds(tmp_path / "kinds", 12)
    names = tmp_path / "kinds" / "masks" / "classes.txt"
    sight = Sight(MaskTargets(("sound", "spalling", "crack")), Size(32, 32))
    judged = read_judged(tmp_path / "kinds" / "photos", sight, masks=names.parent)
    place = [sample.path.name for sample in judged.split.samples].index("001.png")
    wanted = np.array([0, 2, 1])[numbers_with(1, line=True, blot=True)]
    np.testing.assert_array_equal(judged.split.targets([place])[0], wanted)

    names.write_text("sound\ncrack\nrust\n")
    judged = read_judged(tmp_path / "kinds" / "photos", sight, masks=names.parent)
    assert judged.left_out == {"class 'rust'": 6}

    # Nobody named the classes of black and white: they are the model's.
    write_lines(tmp_path / "lines", 10)
    sight = Sight(MaskTargets(("free", "crack")), Size(32, 32))
    judged = read_judged(tmp_path / "lines" / "photos", sight, masks=tmp_path / "lines" / "masks")
    assert len(judged.split) == 10
    np.testing.assert_array_equal(judged.split.targets([1])[0], numbers_with(1))


def test_the_masks_of_brick_walls_are_read_as_they_are() -> None:
    walls = SHARED / "masonry" / "originals"
    if not walls.is_dir():
        pytest.skip(f"needs {walls}")
    photos = walls / "crack_detection_224_images"
    masks = walls / "crack_detection_224_masks"
    data = pe.load_folder(photos, masks=masks, size=56, group_by=r"^([a-z]_\d+)")
    assert data.classes == ("background", "damage")
    assert sum(map(len, data.splits().values())) == 240
    cracked = np.mean([(split.targets() == 1).mean() for split in data.splits().values()])
    assert 0.02 < cracked < 0.08
    sides = [{sample.source for sample in split.samples} for split in data.splits().values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 76
