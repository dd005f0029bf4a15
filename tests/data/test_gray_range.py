"""Greys of more than eight bits: one range for all images of a set, from those that are trained on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import check, load
from prunedge.data.gray_range import Shade, usual_range
from prunedge.edge.image.read import Greys, read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError
from tests.data.shards import write_shard
from tests.deep_images import HIGH, LOW, colour_png, save, scene, write_deep
from tests.tiny_images import write_tiny


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("png", LOW, HIGH),
        ("big-endian", 7300, 8200),
        ("int32", -40, 120),
        ("float", -0.02, 0.3),
        ("float", 1e5, 3e5),
    ],
)
def test_the_range_comes_from_the_training_images_and_keeps_the_levels(
    kind: str, low: float, high: float, tmp_path: Path
) -> None:
    found = load(write_deep(tmp_path / "d", 20, kind, low, high), size=32)
    assert found.greys is not None
    assert found.extremes is not None
    assert low <= found.greys.low < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < found.greys.high <= high
    pixels = found.train.pixels([0, 1])
    assert pixels.min() < 40
    assert pixels.max() > 215
    assert len(np.unique(pixels[0])) > 50
    again = np.stack(
        [read_image(sample.path, square(32), found.greys) for sample in found.train.samples[:2]]
    )
    np.testing.assert_array_equal(pixels, again)
    assert load(tmp_path / "d", size=32).fingerprint == found.fingerprint


def test_images_are_not_stretched_one_by_one(tmp_path: Path) -> None:
    found = load(write_deep(tmp_path / "d", 20), size=32)
    assert found.greys is not None
    dark = save(tmp_path / "dark.png", np.full((32, 32), found.greys.low + 10), "png")
    light = save(tmp_path / "light.png", np.full((32, 32), found.greys.high - 10), "png")
    greys = [int(read_image(file, square(32), found.greys)[0, 0, 0]) for file in (dark, light)]
    assert greys[0] < 40
    assert greys[1] > 215


def test_a_given_range_is_taken_and_the_cache_tells_ranges_apart(tmp_path: Path) -> None:
    write_deep(tmp_path / "d", 20)
    usual, wide = load(tmp_path / "d", size=32), load(tmp_path / "d", size=32, range="0:4095")
    assert wide.greys == Greys(0, 4095)
    assert wide.fingerprint != usual.fingerprint
    assert wide.train.cache != usual.train.cache
    assert wide.train.pixels([0]).max() <= round(HIGH / 4095 * 255)
    assert [s.path for s in wide.train.samples] == [s.path for s in usual.train.samples]
    assert load(tmp_path / "d", size=32, range=(0, 4095)).train.cache == wide.train.cache


def test_without_room_for_the_cache_the_range_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.data import cache

    write_deep(tmp_path / "d", 20)
    kept = load(tmp_path / "d", size=32)
    monkeypatch.setattr(
        cache.decode_all, "__kwdefaults__", {**cache.decode_all.__kwdefaults__, "limit": 10}
    )
    anew = load(tmp_path / "d", size=32, cache_dir=tmp_path / "other")
    assert anew.train.cache is None
    assert anew.fingerprint == kept.fingerprint
    np.testing.assert_array_equal(anew.train.pixels([3]), kept.train.pixels([3]))


def test_eight_bits_are_as_they_were_and_take_no_range(tmp_path: Path) -> None:
    found = load(write_tiny(tmp_path / "d", 20), size=32)
    assert found.greys is None
    first = found.train.samples[0].path
    with Image.open(first) as opened:
        np.testing.assert_array_equal(found.train.pixels([0])[0], np.asarray(opened))
    assert load(tmp_path / "d", size=32, range="0:255").fingerprint == found.fingerprint
    with pytest.raises(DataError, match="range='0:4095' is for greys of more than eight bits"):
        load(tmp_path / "d", size=32, range="0:4095")


def test_test_images_have_no_say_in_the_range(tmp_path: Path) -> None:
    for side, low in (("train", 1000), ("val", 1000), ("test", 30_000)):
        write_deep(tmp_path / "d" / side, 8, low=low, high=low + 100)
    found = load(tmp_path / "d", size=32)
    assert found.greys is not None
    assert found.greys.high <= 1100
    assert found.test.pixels([0]).min() == 255


def test_a_few_strange_images_and_dead_pixels_don_t_spoil_the_range(tmp_path: Path) -> None:
    write_deep(tmp_path / "d", 30)
    save(tmp_path / "d" / "crack" / "white.png", np.full((32, 32), 65535), "png")
    for file in sorted((tmp_path / "d" / "sound").glob("*.png")):
        with Image.open(file) as opened:
            values = np.array(opened)
        values[5, 5] = 65535
        save(file, values, "png")
    found = load(tmp_path / "d", size=32)
    assert found.greys is not None
    assert found.greys.high < HIGH + 100
    assert len(np.unique(found.train.pixels([0])[0])) > 40


def test_a_rare_class_keeps_its_greys() -> None:
    usual = [Shade("16 bits", 20, 60, 18, 66, "") for _ in range(97)]
    hot = [Shade("16 bits", 300, 400, 290, 410, "") for _ in range(3)]
    found = usual_range([*usual, *hot], np.eye(2, dtype=int)[[0] * 97 + [1] * 3])
    assert found.low == 18
    assert found.high == 410


def test_images_of_one_grey_alone_have_a_range_too() -> None:
    assert usual_range(
        [Shade("floats", 5, 5, 5, 5, "")] * 3, np.eye(2, dtype=int)[[0, 0, 1]]
    ) == Greys(5, 6)


@pytest.mark.parametrize("kinds", [("png", "tiny"), ("float", "int32"), ("float", "tiny")])
def test_kinds_that_have_no_range_in_common_are_refused_with_the_remedy(
    kinds: tuple[str, str], tmp_path: Path
) -> None:
    for place, kind in enumerate(kinds):
        folder = tmp_path / f"set{place}"
        write_tiny(folder, 12) if kind == "tiny" else write_deep(folder, 12, kind)
        for file in sorted(folder.rglob("*.*")):
            target = tmp_path / "d" / file.parent.name / f"{place}_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    with pytest.raises(
        DataError,
        match=r"24 images of .* and 24 images of .* no range of greys in common.*range='LOW:HIGH'",
    ):
        load(tmp_path / "d", size=32)
    found = load(tmp_path / "d", size=32, range="900:1200")
    assert found.greys == Greys(900, 1200, mixed="tiny" in kinds)
    report = check(tmp_path / "d", size=32)
    assert "no range of greys in common" in report.problems[0]
    assert len(report.levels.depths) == 2


def test_a_image_that_holds_no_numbers_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    write_deep(tmp_path / "d", 20, "float")
    values = scene(0, False)
    values[0, 0] = np.nan
    save(tmp_path / "d" / "crack" / "bad.tif", values, "float")
    with pytest.raises(
        DataError,
        match=r"1 of 41 images can't be read: crack/bad\.tif \(1 of its 1,024 values are no numbers",
    ):
        load(tmp_path / "d", size=32)
    found = load(tmp_path / "d", size=32, skip_unreadable=True)
    assert [path.name for path in found.skipped] == ["bad.tif"]
    assert "no numbers" in check(tmp_path / "d", size=32).unreadable["crack/bad.tif"]


def test_shards_have_a_range_as_well(tmp_path: Path) -> None:
    write_deep(tmp_path / "d", 20)
    members = []
    for i, file in enumerate(sorted((tmp_path / "d").rglob("*.png"))):
        members += [
            (f"{i:04d}.png", file.read_bytes()),
            (f"{i:04d}.cls", file.parent.name.encode()),
        ]
    found = load(write_shard(tmp_path / "s" / "0.tar", members), size=32)
    assert found.greys is not None
    assert LOW <= found.greys.low < LOW + 40
    assert len(np.unique(found.train.pixels([0]))) > 50


def test_check_tells_depth_range_and_levels(tmp_path: Path) -> None:
    levels = check(write_deep(tmp_path / "d", 20), size=32).levels
    assert levels.depths == {"16 bits": 40}
    assert levels.range is not None
    assert levels.least is not None
    assert levels.most is not None
    assert LOW <= levels.least < levels.most <= HIGH
    assert 40 < levels.seen == levels.stored <= 147
    coarse = check(tmp_path / "d", size=32, range="0:65535")
    assert coarse.levels.seen <= 2
    assert any("is the range right? (--range)" in problem for problem in coarse.problems)
    shallow = check(write_tiny(tmp_path / "e", 20), size=32)
    assert shallow.levels.depths == {"8 bits": 40}
    assert shallow.levels.range is None


def test_colours_of_sixteen_bits_are_told_by_check_and_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, label in enumerate(("crack", "sound")):
        for i in range(12):
            values = np.stack([1000 + scene(100 * place + i, label == "crack") * 3000] * 3, axis=2)
            colour_png(tmp_path / "d" / label / f"{i}.png", values.astype(np.uint16))
    report = check(tmp_path / "d", size=32)
    assert report.levels.depths == {"colours of 16 bits": 24}
    assert report.levels.seen <= 16
    assert any(
        "colours of 16 bits, of which only the upper 8 are read" in problem
        for problem in report.problems
    )
    assert "24 images have colours of 16 bits" in caplog.text


def test_a_deep_image_in_memory_reads_as_its_file(tmp_path: Path) -> None:
    file = save(tmp_path / "p.tif", scene(0, True) * 100 - 50, "float")
    np.testing.assert_array_equal(
        read_image(io.BytesIO(file.read_bytes()), square(16), Greys(-50, 50)),
        read_image(file, square(16), Greys(-50, 50)),
    )
