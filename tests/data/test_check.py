"""The check finds what is wrong with the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.cli.check_tables import print_check
from prunedge.data import check
from prunedge.data.duplicates import Conflict
from tests.data.scenes import write_scene
from tests.tiny_images import write_tiny

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_clean_images(tmp_path: Path) -> None:
    for i in range(120):
        write_scene(tmp_path / "ab"[i % 2] / f"{i}.png", i, 32)
    report = check(tmp_path, size=32)
    assert report.counts == {
        "train": {"a": 42, "b": 42},
        "val": {"a": 9, "b": 9},
        "test": {"a": 9, "b": 9},
    }
    assert report.imbalance == 1
    assert report.majority == 0.5
    assert report.sizes.smallest == report.sizes.largest == report.sizes.median == (32, 32)
    assert report.modes == {"RGB": 120}
    assert report.formats == {"PNG": 120}
    assert report.sources is None
    assert not report.duplicates
    assert not report.leaks
    assert report.problems == ()
    assert json.loads(json.dumps(report.to_json()))["counts"]["train"] == {"a": 42, "b": 42}


def test_copies_on_two_sides_are_found(tmp_path: Path) -> None:
    lines = ["path,label,source,split"]
    for i in range(40):
        side = "train" if i < 24 else "val" if i < 32 else "test"
        image = write_scene(tmp_path / f"{i}.png", i, 64)
        lines.append(f"{i}.png,{'ab'[i % 2]},s{i % 20 if i in (0, 20) else i},{side}")
        if i == 2:
            image.save(tmp_path / "same.png")
            lines.append("same.png,b,other,test")
        if i == 4:
            worse = image.resize((50, 50)).point(lambda v: min(255, int(v * 1.1)))
            worse.save(tmp_path / "worse.jpg", quality=70)
            lines.append("worse.jpg,a,another,val")
    lines.append("0.png,a,s25,train")
    (tmp_path / "manifest.csv").write_text(
        "\n".join(lines[:-1]).replace("20.png,a,s0,train", "20.png,a,s25,train")
    )
    report = check(tmp_path, size=64)
    assert {(t.image, t.split, t.like, t.like_split, t.identical) for t in report.duplicates} == {
        ("same.png", "test", "2.png", "train", True),
        ("worse.jpg", "val", "4.png", "train", False),
    }
    assert report.leaks == {"s25": ("train", "val")}
    assert report.conflicts == (Conflict(("2.png", "same.png"), ("a", "b")),)
    said = " | ".join(report.problems)
    assert "1 source on two sides" in said
    assert "1 image of val and test also in" in said
    assert "different labels" in said


def test_even_surfaces_are_not_twins(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.normal(120, 3, (32, 32)).astype(np.uint8)).save(path)
    assert check(tmp_path, size=32, max_distance=20).duplicates == ()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of mixed depths and one that can't be read."""
    root = tmp_path_factory.mktemp("odd")
    numbers = np.random.default_rng(0)
    for i in range(40):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        deep = numbers.integers(0, 4095, (40, 60), dtype=np.uint16)
        pixels = deep if i % 3 == 0 else (deep >> 4).astype(np.uint8)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i}.png")
    (root / "a" / "broken.png").write_bytes(b"x")
    return root


def test_what_is_left_out_is_told_once_also_of_mixed_depths(
    odd: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check(odd, size=32)
    assert sum("skipped an unreadable image" in line for line in caplog.messages) == 1
    print_check(report)
    said = capsys.readouterr().out
    assert "sizes      40x60 pixels (height x width); none enlarged to 32x32" in said
    assert "26 grey, 14 grey (16 bits)" in said
    assert "26 of 8 bits, 14 of 16 bits" in said


def test_levels_are_the_files_whatever_size_the_model_sees(odd: Path, tmp_path: Path) -> None:
    found = [check(odd, size=size).levels for size in (16, 64)]
    assert found[0] == found[1]
    eight = [check(write_tiny(tmp_path, 12), size=size).levels for size in (16, 64)]
    assert eight[0] == eight[1]
    assert eight[0].stored is None, "eight bits lose nothing"


def test_images_that_show_nothing_are_told(tmp_path: Path) -> None:
    for i in range(120):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1) if i else (5, 90), (i, 2 * i % 256, 0)).save(folder / f"{i}.png")
    assert any("120 images have a side of less than 8" in one for one in check(tmp_path).problems)


def test_unreadable_rare_skewed_and_masks(tmp_path: Path) -> None:
    write_tiny(tmp_path, 60, 16)
    for i in range(50):
        (tmp_path / "crack" / f"{i:03d}.png").unlink()
    (tmp_path / "sound" / "000.png").write_bytes(b"x")
    write_scene(tmp_path / "sound" / "001.jpg", 1, 24)
    report = check(tmp_path, size=20)
    assert list(report.unreadable) == ["sound/000.png"]
    assert report.imbalance == 6
    assert report.sizes.enlarged == 69
    assert report.sizes.largest == (24, 24)
    assert report.masks == ("sound/001.jpg", "sound/001.png")
    said = " | ".join(report.problems)
    assert all(
        words in said
        for words in (
            "1 image can't be read",
            "few images of crack",
            "of the training images sound; rarest crack: train ",
            "--balance sampler and choose by --metric balanced_accuracy or recall@alarms=0.05",
            "2 images share",
        )
    )


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_real_patches_that_were_split_by_photograph_have_no_leaks() -> None:
    report = check(SHARED / "masonry", size=48)
    assert report.classes == ("crack", "noncrack")
    assert report.sources == 240
    assert not report.leaks
    assert not any(duplicate.identical for duplicate in report.duplicates)
