"""Patches: where they lie, how they are labelled, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import cut_patches, load
from prunedge.data.masks import damage, pair_up
from prunedge.data.patch_grid import corners, damaged_shares
from prunedge.edge.image.size import square
from prunedge.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def photo(path: Path, width: int = 48, height: int = 32, seed: int = 0, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **how)
    return path


def mask(
    path: Path,
    box: tuple[int, int, int, int] | None,
    width: int = 48,
    height: int = 32,
    value: int = 255,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((height, width), np.uint8)
    if box is not None:
        values[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(values).save(path)
    return path


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pair(root: Path, name: str, box: tuple[int, int, int, int] | None, seed: int = 0) -> None:
    photo(root / "photos" / f"{name}.png", seed=seed)
    mask(root / "masks" / f"{name}.png", box)


def test_squares_reach_every_edge() -> None:
    assert corners(40, 16, square(16), square(16)).tolist() == [[0, 0], [16, 0], [24, 0]]
    assert corners(16, 16, square(16), square(5)).tolist() == [[0, 0]]
    assert corners(20, 20, square(16), square(4)).tolist() == [[0, 0], [4, 0], [0, 4], [4, 4]]


def test_shares_are_those_counted_one_by_one() -> None:
    values = np.random.default_rng(0).random((30, 50)) < 0.3
    at = corners(50, 30, square(12), square(7))
    expected = [values[y : y + 12, x : x + 12].mean() for x, y in at]
    assert damaged_shares(values, at, square(12)) == pytest.approx(expected)


def test_labels_pixels_and_manifest(tmp_path: Path) -> None:
    pair(tmp_path, "site1/one", (0, 0, 16, 8))  # half of the first square of six
    pair(
        tmp_path, "site2/one", (16, 0, 17, 1), seed=1
    )  # a single pixel of the second: too faint at 1 %
    report = cut_patches(tmp_path / "photos", tmp_path / "masks", tmp_path / "out", size=16)
    assert report.counts == {"damaged": 1, "intact": 10}
    assert report.faint == 1
    assert report.photos == 2
    rows = rows_of(report.manifest)
    assert {row["source"] for row in rows} == {"site1/one", "site2/one"}
    damaged = next(row for row in rows if row["label"] == "damaged")
    assert (damaged["source"], damaged["x"], damaged["y"], damaged["damage"]) == (
        "site1/one",
        "0",
        "0",
        "0.5",
    )
    whole = np.asarray(Image.open(tmp_path / "photos" / "site1" / "one.png"))
    assert (np.asarray(Image.open(tmp_path / "out" / damaged["path"])) == whole[:16, :16]).all()
    assert report.to_json()["manifest"] == str(report.manifest)


def test_the_patches_load_without_parting_photographs(tmp_path: Path) -> None:
    for i in range(12):
        pair(tmp_path, f"p{i}", (0, 0, 16, 32), seed=i)
    cut_patches(
        tmp_path / "photos",
        tmp_path / "masks",
        tmp_path / "out",
        size=16,
        damaged="crack",
        intact="sound",
    )
    data = load(tmp_path / "out", size=16)
    assert data.classes == ("crack", "sound")
    parts = [{sample.source for sample in split.samples} for split in data.splits().values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12


def test_surplus_of_intact_patches_and_groups(tmp_path: Path) -> None:
    for i in range(4):
        pair(tmp_path, f"bridge{i // 2}_{i}", (0, 0, 16, 16), seed=i)
    report = cut_patches(
        tmp_path / "photos",
        tmp_path / "masks",
        tmp_path / "out",
        size=16,
        intact_per_damaged=2,
        group_by=r"bridge\d",
    )
    assert report.counts == {"damaged": 4, "intact": 8}
    assert report.surplus == 12
    assert {row["source"] for row in rows_of(report.manifest)} == {"bridge0", "bridge1"}


def test_masks_beside_photographs_or_by_another_name(tmp_path: Path) -> None:
    photo(tmp_path / "side" / "a.jpg")
    mask(tmp_path / "side" / "a.png", None)
    photo(tmp_path / "side" / "b.png")
    mask(tmp_path / "side" / "b_mask.png", None)
    photo(tmp_path / "side" / "c.jpg")
    found = {
        p.name: (p.photo.name, p.mask and p.mask.name)
        for p in pair_up(tmp_path / "side", tmp_path / "side")
    }
    assert found == {"a": ("a.jpg", "a.png"), "b": ("b.png", "b_mask.png"), "c": ("c.jpg", None)}
    photo(tmp_path / "deep" / "x" / "d.jpg")
    mask(tmp_path / "deep" / "masks" / "d-GT.png", None)
    assert [
        p.mask.name for p in pair_up(tmp_path / "deep", tmp_path / "deep" / "masks") if p.mask
    ] == ["d-GT.png"]
    photo(tmp_path / "side" / "c.jpeg")
    with pytest.raises(DataError, match="can't tell photographs from masks"):
        pair_up(tmp_path / "side", tmp_path / "side")


def test_what_a_mask_means(tmp_path: Path) -> None:
    image, box = photo(tmp_path / "p.png"), (0, 0, 10, 10)
    assert damage(mask(tmp_path / "grey.png", box, value=200), image, None).sum() == 100
    assert damage(mask(tmp_path / "numbers.png", box, value=2), image, None).sum() == 100
    assert damage(mask(tmp_path / "faint.png", box, value=90), image, None).sum() == 0
    assert damage(mask(tmp_path / "faint.png", box, value=90), image, 50).sum() == 100
    assert damage(mask(tmp_path / "black.jpg", box, value=4), image, None).sum() == 0, (
        "noise of a black JPEG"
    )
    Image.open(mask(tmp_path / "g.png", box)).convert("1").save(tmp_path / "bilevel.png")
    assert damage(tmp_path / "bilevel.png", image, None).sum() == 100


def test_a_photograph_that_the_camera_stored_on_its_side(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # stored 48x32, seen 32x48
    image = photo(tmp_path / "p.jpg", exif=turned)
    upright = damage(mask(tmp_path / "upright.png", (0, 0, 8, 4), 32, 48), image, None)
    assert upright.shape == (48, 32)
    assert upright[:4, :8].all()
    assert upright.sum() == 32
    stored = damage(mask(tmp_path / "stored.png", (0, 0, 8, 4)), image, None)
    assert stored.shape == (48, 32)
    assert stored[:8, -4:].all()
    assert stored.sum() == 32


def test_small_and_unmasked_photographs(tmp_path: Path) -> None:
    pair(tmp_path, "a", (0, 0, 16, 16))
    photo(tmp_path / "photos" / "bare.png", seed=2)
    photo(tmp_path / "photos" / "small.png", 10, 10)
    mask(tmp_path / "masks" / "small.png", None, 10, 10)
    where = (tmp_path / "photos", tmp_path / "masks")
    with pytest.raises(DataError, match="1 of 3 photographs have no mask: bare"):
        cut_patches(*where, tmp_path / "out", size=16)
    skipped = cut_patches(*where, tmp_path / "skipped", size=16, unmasked="skip")
    assert skipped.unmasked == ("bare",)
    assert skipped.small == ("small",)
    assert skipped.counts["intact"] == 5
    assert (
        cut_patches(*where, tmp_path / "intact", size=16, unmasked="intact").counts["intact"] == 11
    )


def test_everything_that_does_not_fit_is_named_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    pair(tmp_path, "good", (0, 0, 16, 16))
    for name in ("misfit", "broken"):
        photo(tmp_path / "photos" / f"{name}.png")
    mask(tmp_path / "masks" / "misfit.png", None, 20, 20)
    (tmp_path / "masks" / "broken.png").write_bytes(b"")
    where = (tmp_path / "photos", tmp_path / "masks", tmp_path / "out")
    with pytest.raises(
        DataError, match=r"2 of 3 .*broken \(.*misfit \(its mask is 20x20 and not 48x32\)"
    ):
        cut_patches(*where, size=16)
    (tmp_path / "masks" / "misfit.png").unlink()
    mask(tmp_path / "masks" / "broken.png", None)
    (tmp_path / "photos" / "broken.png").unlink()
    broken = photo(tmp_path / "photos" / "broken.jpg")  # cut short: the header is whole
    broken.write_bytes(broken.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"1 photograph can't be read: broken \("):
        cut_patches(*where, size=16, unmasked="skip")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "masks"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"size": 4, "stride": 0, "min_damage": 0},
            "as 224 or 128x384; a stride of 0 pixels: at least 1; a damaged share",
        ),
        ({"intact": "damaged"}, "both labels"),
        ({"damaged": "../up"}, "no slashes"),
        ({"group_by": "["}, "no regular expression"),
        ({"group_by": "zzz"}, "doesn't match 1 of 1"),
        ({"min_damage": 0.9, "size": 32}, "no damaged patches"),
        ({"size": 640}, r"none of 1 photograph is as large as a patch of 640x640.*smaller --size"),
    ],
)
def test_mistakes(tmp_path: Path, how: dict[str, object], message: str) -> None:
    pair(tmp_path, "a", (0, 0, 16, 16))
    with pytest.raises(DataError, match=message):
        cut_patches(
            tmp_path / "photos", tmp_path / "masks", tmp_path / "out", **{"size": 16, **how}
        )
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    pair(tmp_path, "a", (0, 0, 16, 16))
    with pytest.raises(DataError, match="there is something already"):
        cut_patches(tmp_path / "photos", tmp_path / "masks", tmp_path, size=16)
    (tmp_path / "empty").mkdir()
    assert cut_patches(
        tmp_path / "photos", tmp_path / "masks", tmp_path / "empty", size=16
    ).manifest.exists()


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_real_photographs_with_masks_beside_them(tmp_path: Path) -> None:
    folder = SHARED / "magtile" / "MT_Blowhole"
    report = cut_patches(
        folder, folder, tmp_path / "out", size=96, group_by=r"num_(\d+)", intact_per_damaged=1
    )
    assert report.photos > 90
    assert report.counts["damaged"] == report.counts["intact"] > 90
