"""Photographs with masks, cut into tiles as they are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import prunedge as pe
from prunedge.config import RunConfig
from prunedge.data.dataset import Dataset, Sample
from prunedge.data.judged import Sight, own_judged, read_judged
from prunedge.data.stored import looks_of
from prunedge.data.tiles import boxes_of, own_parts, tile_of, tile_path
from prunedge.edge.image.size import Size
from prunedge.edge.tasks.mask_targets import IGNORE, MaskTargets
from prunedge.errors import ConfigError, DataError
from tests.masked_images import numbers_with, write_pair

SIDE = 16


def write_walls(root: Path, count: int = 12) -> Path:
    """Photographs of 40 x 24 pixels, every third without damage."""
    for index in range(count):
        numbers = numbers_with(index, line=index % 3 > 0, side=40)[:24]
        write_pair(root, f"wall{index}", numbers, seed=index)
    return root


def loaded(root: Path, **settings: object) -> Dataset:
    given = {"size": SIDE, "tile": SIDE, **settings}
    return pe.load_folder(root / "photos", masks=root / "masks", **given)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    side=st.integers(1, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)
def test_tiles_cover_a_photograph_and_lie_within_it(
    width: int, height: int, side: int, overlap: float
) -> None:
    covered = np.zeros((height, width), int)
    boxes = list(boxes_of(width, height, side, overlap))
    assert len(set(boxes)) == len(boxes)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(side, width), min(side, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    if not overlap:
        assert len(boxes) == -(-width // side) * -(-height // side) or side > min(width, height)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    side=st.integers(1, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)
def test_each_pixel_of_a_photograph_counts_in_one_tile_whose_middle_is_near(
    width: int, height: int, side: int, overlap: float
) -> None:
    counted = np.zeros((height, width), int)
    boxes = list(boxes_of(width, height, side, overlap))
    own = own_parts(boxes)
    assert list(own) == boxes
    for box, (left, top, right, bottom) in own.items():
        assert box[0] <= left < right <= box[2]
        assert box[1] <= top < bottom <= box[3]
        counted[top:bottom, left:right] += 1
        # No other tile has this corner farther inside.
        middle = (box[0] + box[2]) / 2
        others = [(other[0] + other[2]) / 2 for other in boxes if other[0] <= left < other[2]]
        assert abs(left + 0.5 - middle) <= min(abs(left + 0.5 - other) for other in others) + 1
    assert (counted == 1).all()


def test_a_tile_without_its_neighbour_counts_no_pixel_that_it_has_not() -> None:
    own = own_parts([(0, 0, 8, 8), (20, 0, 28, 8), (24, 0, 32, 8)])
    assert [*own.values()] == [(0, 0, 8, 8), (20, 0, 26, 8), (26, 0, 32, 8)]


def test_a_tile_s_path_says_what_it_is() -> None:
    path = tile_path(Path("a/b.jpg"), (0, 16, 16, 32))
    assert tile_of(path) == (Path("a/b.jpg"), (0, 16, 16, 32))
    assert tile_of(Path("a/b.jpg")) is None
    assert tile_of(Path("a/b.tile")) is None


def test_each_tile_is_the_part_of_photograph_and_mask_that_it_names(tmp_path: Path) -> None:
    data = loaded(write_walls(tmp_path), overlap=0.25)
    seen = 0
    for split in data.splits().values():
        pixels = split.pixels(list(range(len(split))))
        for sample, image, mask in zip(split.samples, pixels, split.targets(), strict=True):
            tile = tile_of(sample.path)
            assert tile is not None
            file, (left, top, right, bottom) = tile
            whole = np.asarray(Image.open(file).convert("RGB"))
            np.testing.assert_array_equal(image, whole[top:bottom, left:right])
            drawn = np.asarray(Image.open(tmp_path / "masks" / file.name)) > 0
            part = drawn[top:bottom, left:right]
            counts = mask != IGNORE
            assert counts.all() or split is not data.train
            np.testing.assert_array_equal(mask[counts], part[counts])
            assert sample.target == ((1,) if part.any() else ())
            seen += 1
    assert seen == 12 * 3 * 2
    assert {(look.width, look.height) for look in looks_of(data.train)} == {(SIDE, SIDE)}


@pytest.mark.parametrize(("overlap", "size"), [(0.5, SIDE), (0.25, 2 * SIDE), (0.0, SIDE)])
def test_pixels_of_overlaps_count_once_where_models_are_judged(
    tmp_path: Path, overlap: float, size: int
) -> None:
    write_walls(tmp_path, 20)
    data = loaded(tmp_path, overlap=overlap, size=size)
    times = (size // SIDE) ** 2
    train = data.train.targets()
    assert IGNORE not in train
    for split in (data.val, data.test):
        photographs = {sample.path.parent for sample in split.samples}
        pixels = [np.asarray(Image.open(tmp_path / "masks" / file.name)) for file in photographs]
        masks = split.targets()
        assert (masks != IGNORE).sum() == times * sum(one.size for one in pixels)
        assert (masks == 1).sum() == times * sum(int((one > 0).sum()) for one in pixels)
        np.testing.assert_array_equal(split.targets([1]), masks[[1]])

    sight = Sight(data.labelling, Size(SIDE, SIDE), tile=SIDE)
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks", side="all")
    assert (judged.split.targets() != IGNORE).sum() == 20 * 24 * 40


def test_no_split_parts_the_tiles_of_a_photograph(tmp_path: Path) -> None:
    data = loaded(write_walls(tmp_path))
    sides = [{sample.path.parent for sample in split.samples} for split in data.splits().values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    groups = loaded(tmp_path, group_by=r"wall(\d)")
    assert {sample.source for sample in groups.train.samples} <= {str(i) for i in range(10)}


def sources_by_photograph(samples: Iterable[Sample]) -> dict[str, set[str | None]]:
    """The sources that the tiles of each photograph have."""
    sources = defaultdict(set)
    for sample in samples:
        sources[sample.path.parent.name].add(sample.source)
    return dict(sources)


def write_bridges(root: Path) -> Path:
    """Photographs of three bridges, several of each, of names without a number."""
    for index, name in enumerate("abcdefghijkl"):
        numbers = numbers_with(index, line=index % 3 > 0, side=40)[:24]
        write_pair(root, f"bridge{index % 3}/wall{name}", numbers, seed=index)
    return root


@pytest.mark.parametrize(
    ("group_by", "wanted"),
    [
        ("parent", {"bridge0", "bridge1", "bridge2"}),
        (r"(\d+)", {"0", "1", "2"}),
        (r"wall(\w)", set("abcdefghijkl")),
        ("similar", None),
        (None, None),
    ],
)
def test_tiles_have_the_group_of_their_photograph(
    tmp_path: Path, group_by: str | None, wanted: set[str] | None
) -> None:
    data = loaded(write_bridges(tmp_path), group_by=group_by)
    samples = [sample for split in data.splits().values() for sample in split.samples]
    sources = sources_by_photograph(samples)
    assert len(sources) == 12
    assert all(len(each) == 1 and None not in each for each in sources.values())
    if wanted is not None:
        assert set.union(*sources.values()) == wanted
    sides = [{sample.path.parent for sample in split.samples} for split in data.splits().values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12

    sight = Sight(data.labelling, Size(SIDE, SIDE), tile=SIDE)
    other = read_judged(
        tmp_path / "photos", sight, masks=tmp_path / "masks", side="all", group_by=group_by
    )
    plain = loaded(tmp_path)
    for judged in (other, own_judged(plain, "all", group_by)):
        sources = sources_by_photograph(judged.split.samples)
        assert len(sources) == 12
        assert all(len(each) == 1 and None not in each for each in sources.values())
        if wanted is not None:
            assert set.union(*sources.values()) == wanted


def test_no_pattern_is_searched_in_what_a_tile_is_called(tmp_path: Path) -> None:
    data = loaded(write_bridges(tmp_path))
    for group in (
        lambda: loaded(tmp_path, group_by=r"-(\d+)"),
        lambda: own_judged(data, "all", r"-(\d+)"),
    ):
        with pytest.raises(DataError, match=r"doesn't match 72 of 72 images, bridge0/walla.png"):
            group()


def test_photographs_in_one_folder_can_be_grouped_by_their_folder(tmp_path: Path) -> None:
    data = loaded(write_walls(tmp_path))
    judged = own_judged(data, "all", "parent")
    assert set(judged.sources) == {"photos"}


def test_a_balanced_epoch_has_as_many_tiles_with_damage_as_without(tmp_path: Path) -> None:
    data = loaded(write_walls(tmp_path, 20))
    plain = float(np.mean([bool(sample.target) for sample in data.train.samples]))
    assert plain < 0.45
    shown = []
    for _, masks in data.train.batches(8, shuffle_seed=0, balanced=True):
        shown += masks.flatten(1).any(1).tolist()
    assert np.mean(shown) == pytest.approx(0.5, abs=0.02)


def test_turned_photographs_and_small_ones_are_cut_as_they_are_seen(tmp_path: Path) -> None:
    write_walls(tmp_path, 8)
    # Stored on its side, by a camera that says so; the mask is drawn upright.
    numbers = np.zeros((24, 40), np.uint8)
    numbers[:, 30:36] = 1
    write_pair(tmp_path, "wall8", numbers)
    file = tmp_path / "photos" / "wall8.png"
    image = Image.open(file).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    file.unlink()
    image.save(tmp_path / "photos" / "wall8.tif", exif=exif)
    write_pair(tmp_path, "small", np.ones((10, 40), np.uint8))
    data = loaded(tmp_path)
    for split in data.splits().values():
        pixels = split.pixels(list(range(len(split)))).mean(3)
        for sample, image_of, mask in zip(split.samples, pixels, split.targets(), strict=True):
            if sample.path.parent.name == "wall8.tif":
                counts = mask != IGNORE
                np.testing.assert_array_equal((image_of < 100)[counts], mask[counts] == 1)
            if sample.path.parent.name == "small.png":
                assert (mask[mask != IGNORE] == 1).all()


def test_a_photograph_that_changed_is_read_anew_and_a_bad_one_is_named(tmp_path: Path) -> None:
    before = loaded(write_walls(tmp_path)).fingerprint
    write_pair(tmp_path, "wall1", numbers_with(9, side=40)[:24], seed=1)
    assert loaded(tmp_path).fingerprint != before
    (tmp_path / "photos" / "wall1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 12 masks can't be used: wall1 \("):
        loaded(tmp_path)
    assert len({s.source for s in loaded(tmp_path, skip_unreadable=True).train.samples}) < 12


def test_other_photographs_are_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    write_walls(tmp_path, 4)
    sight = Sight(MaskTargets(("background", "damage")), Size(SIDE, SIDE), tile=SIDE)
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks")
    assert len(judged.split) == 4 * 6
    assert len(set(judged.sources)) == 4


def test_tiles_need_masks_and_overlap_needs_tiles() -> None:
    for settings, said in (
        ({"tile": 64}, "tile= cuts photographs with masks= alone"),
        ({"overlap": 0.5, "masks": "m"}, "overlap= acts only with tile="),
    ):
        with pytest.raises(ConfigError, match=said):
            RunConfig.make("x", data="d", model="m", **settings)
