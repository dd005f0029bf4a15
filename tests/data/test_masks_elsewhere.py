"""Masks beside images in shards and in manifests, and those of patches."""

from __future__ import annotations

import csv
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prunedge as pe
from prunedge.data import load
from prunedge.data.dataset import Dataset
from prunedge.data.judged import Sight, read_judged
from prunedge.data.patches import cut_patches
from prunedge.edge.image.size import Size
from prunedge.edge.tasks.mask_targets import MaskTargets
from prunedge.errors import DataError
from tests.data.annotation_files import write_form
from tests.data.shards import write_shard
from tests.masked_images import numbers_with, write_kinds, write_lines, write_pair

SEGMENTED = {"task": "segmentation", "size": 32}


def png(pixels: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def samples_of(root: Path) -> list[tuple[str, bytes]]:
    """The photographs and masks of a folder, as members of a shard."""
    members = []
    for photo in sorted((root / "photos").iterdir()):
        members.append((photo.name, photo.read_bytes()))
        mask = root / "masks" / photo.name
        members.append((f"{photo.stem}.mask.png", mask.read_bytes()))
        members.append((f"{photo.stem}.json", b'{"source": "wall"}'))
    return members


def by_name(data: Dataset) -> dict[str, np.ndarray]:
    masks = {}
    for split in data.splits().values():
        for sample, mask in zip(split.samples, split.targets(), strict=True):
            masks[sample.path.stem] = mask
    return masks


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("lines"), 15)


def test_shards_hold_masks_beside_images(lines: Path, tmp_path: Path) -> None:
    members = [member for member in samples_of(lines) if not member[0].endswith(".json")]
    write_shard(tmp_path / "shards" / "a.tar", members[:16])
    write_shard(tmp_path / "shards" / "b.tar", members[16:])
    data = load(tmp_path / "shards", **SEGMENTED)
    wanted = by_name(load(lines / "photos", masks=lines / "masks", size=32))
    found = by_name(data)
    assert found.keys() == wanted.keys()
    for name, mask in wanted.items():
        np.testing.assert_array_equal(found[name], mask)

    tiles = load(tmp_path / "shards", task="segmentation", size=16, tile=16)
    assert sum(map(len, tiles.splits().values())) == 15 * 4
    whole = wanted["001"]
    for split in tiles.splits().values():
        for sample, mask in zip(split.samples, split.targets(), strict=True):
            if sample.path.parent.stem == "001":
                left, top, right, bottom = map(int, sample.path.stem.split("-"))
                np.testing.assert_array_equal(mask, whole[top:bottom, left:right])
                image = split.pixels([split.samples.index(sample)])[0]
                assert ((image.mean(2) < 60) == (mask == 1)).mean() > 0.99

    sight = Sight(MaskTargets(("background", "damage")), Size(32, 32))
    assert len(read_judged(tmp_path / "shards", sight).split) == 15
    with pytest.raises(DataError, match=r"8 samples have a mask and no label.*segmentation"):
        load(tmp_path / "shards" / "a.tar", size=32)


def test_shards_name_the_classes_of_their_masks(tmp_path: Path) -> None:
    root = write_kinds(tmp_path / "kinds", 12)
    write_shard(tmp_path / "a.tar", samples_of(root))
    (tmp_path / "classes.txt").write_text("sound\ncrack\nspalling\n")
    # All are of one wall.
    with pytest.raises(DataError, match="a source is never split"):
        load(tmp_path / "a.tar", **SEGMENTED)
    members = [member for member in samples_of(root) if not member[0].endswith(".json")]
    write_shard(tmp_path / "a.tar", members)
    assert load(tmp_path / "a.tar", **SEGMENTED).classes == ("sound", "crack", "spalling")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("001.mask.png", None, r"1 of 15 photographs have no mask: .*001.png.*skip_unreadable"),
        ("001.mask.png", png(np.zeros((8, 9), np.uint8)), "its mask is 9x8 and not 32x32"),
        ("001.mask.png", b"no image", r"1 of 15 masks can't be used: .*001.png"),
        ("001.mask.tif", b"", r"001: several masks \(001.mask.png, 001.mask.tif\)"),
        ("lone.mask.png", b"", "lone: no image"),
    ],
)
def test_samples_that_can_t_be_used_are_named(
    lines: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    members = dict(m for m in samples_of(lines) if not m[0].endswith(".json"))
    members |= {"001.json": b"{}"}
    members.pop(name, None)
    if content is not None:
        members[name] = content
    else:
        members["001.cls"] = b"x"
    write_shard(tmp_path / "a.tar", members.items())
    with pytest.raises(DataError, match=said):
        load(tmp_path / "a.tar", **SEGMENTED)


def test_labels_alone_are_no_masks(tmp_path: Path, lines: Path) -> None:
    members = []
    for photo in sorted((lines / "photos").iterdir()):
        members += [(photo.name, photo.read_bytes()), (f"{photo.stem}.cls", b"crack")]
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match="none of 15 photographs has a mask"):
        load(tmp_path / "a.tar", **SEGMENTED)


def test_a_manifest_names_masks_sources_and_splits(lines: Path, tmp_path: Path) -> None:
    rows = ["path,mask,source,split"]
    for index in range(15):
        side = ("train", "val", "test")[index % 3]
        rows.append(f"photos/{index:03d}.png,masks/{index:03d}.png,wall{index},{side}")
    file = tmp_path / "walls.csv"
    file.write_text("\n".join(rows))
    data = pe.load_manifest(file, root=lines, **SEGMENTED)
    assert [len(split) for split in data.splits().values()] == [5, 5, 5]
    assert {sample.source for sample in data.val.samples} == {f"wall{i}" for i in (1, 4, 7, 10, 13)}
    np.testing.assert_array_equal(by_name(data)["001"], numbers_with(1))

    file.write_text("\n".join((*rows, "photos/000.png,masks/001.png,,train")))
    with pytest.raises(DataError, match="1 image is listed twice"):
        pe.load_manifest(file, root=lines, **SEGMENTED)
    file.write_text("\n".join((*rows[:-1], "photos/014.png,gone.png,wall,test")))
    with pytest.raises(DataError, match=r"photos/014.png \(No such file"):
        pe.load_manifest(file, root=lines, **SEGMENTED)
    file.write_text("path,label\nphotos/000.png,a\n")
    with pytest.raises(DataError, match="needs masks, or annotations"):
        pe.load_manifest(file, root=lines, **SEGMENTED)


@pytest.mark.parametrize("kind", ["white", "numbers", "annotations"])
def test_patches_keep_their_part_of_the_mask(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "walls"
    masks = root / "masks"
    wanted = {}
    for index in range(8):
        numbers = numbers_with(index, line=index > 1, blot=kind == "numbers", side=64)
        values = (0, 1, 2) if kind == "numbers" else (0, 255, 255)
        wanted[f"{index}.png"] = numbers
        write_pair(root, f"{index}", numbers, values=values, seed=index)
    if kind == "numbers":
        (masks / "classes.txt").write_text("sound\ncrack\nspalling\n")
    if kind == "annotations":
        images = {}
        for name, numbers in wanted.items():
            y, x = np.nonzero(numbers)
            box = (x.min(), x.max(), y.min(), y.max()) if len(x) else None
            corners = box and [
                (float(box[i]), float(box[j])) for i, j in ((0, 2), (1, 2), (1, 3), (0, 3))
            ]
            images[name] = [("crack", corners)] if corners else []
        masks = write_form("COCO", tmp_path, images, 64, 64, ("crack",))
    out = tmp_path / "out"
    report = cut_patches(root / "photos", masks, out, size=32, keep_masks=True)
    assert report.has_masks
    with report.manifest.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 4
    for row in rows:
        x, y = int(row["x"]), int(row["y"])
        numbers = wanted[f"{row['source']}.png"][y : y + 32, x : x + 32]
        kept = np.asarray(Image.open(out / row["mask"]))
        if kind == "white":
            np.testing.assert_array_equal(kept, (numbers > 0) * 255)
        else:
            np.testing.assert_array_equal(kept, numbers)
        assert Image.open(out / row["path"]).size == (32, 32)
        assert float(row["damage"]) == pytest.approx((numbers > 0).mean(), abs=1e-4)

    classes = {"white": ["damage"], "numbers": ["crack", "spalling"], "annotations": ["crack"]}[
        kind
    ]
    data = load(out, **SEGMENTED)
    assert data.classes[1:] == tuple(classes)
    assert all("patches" in sample.path.parts for sample in data.train.samples)
    sides = {}
    for name, split in data.splits().items():
        for sample in split.samples:
            assert sides.setdefault(sample.source, name) == name
    beside = load(out / "patches", masks=out / "masks", size=32)
    assert beside.classes == data.classes
    assert by_name(beside).keys() == by_name(data).keys()
    labelled = load(out, size=32)
    assert labelled.classes == ("damaged", "intact")


def test_patches_that_can_t_be_kept_are_one_line(lines: Path, tmp_path: Path) -> None:
    folders = (lines / "photos", lines / "masks", tmp_path / "out")
    with pytest.raises(DataError, match="masks are kept, which a threshold says nothing of"):
        cut_patches(*folders, size=16, keep_masks=True, threshold=9)
    images = {f"{index:03d}.png": [] for index in range(15)}
    file = write_form("COCO", tmp_path, images, 32, 32, ("crack",))
    with pytest.raises(DataError, match=r"none of 15 photographs has a shape|no damaged"):
        cut_patches(lines / "photos", file, tmp_path / "out", size=16, keep_masks=True)
    about = json.loads(file.read_text())
    about["images"][0]["width"] = 99
    file.write_text(json.dumps(about))
    with pytest.raises(
        DataError, match=r"1 of 15 photographs can't be used: 000 \(its annotations"
    ):
        cut_patches(lines / "photos", file, tmp_path / "out", size=16)
    assert not (tmp_path / "out").exists()
