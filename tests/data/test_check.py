"""The check finds what is wrong with the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import check
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
    assert report.conflicts == (("2.png", "same.png"),)
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
            "6.0 images",
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
