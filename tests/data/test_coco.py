"""Labels as categories of a COCO file's annotations, and as folders that hold copies of an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import prunedge as pe
from prunedge.data import load
from prunedge.errors import DataError
from tests.refusals import refusal
from tests.tiny_images import write_tiny


def write_coco(root: Path, **changes: Any) -> Path:
    """A COCO file of eight images, of which every other has a crack, every fourth rust."""
    place = write_tiny(root / "tiny", count=4)
    images = sorted(place.rglob("*.png"))
    annotations = []
    for number in range(len(images)):
        if number % 2:
            annotations += 2 * [{"id": number, "image_id": number, "category_id": 7}]
        if number % 4 > 1:
            annotations.append({"id": 100 + number, "image_id": number, "category_id": 9})
    content = {
        "info": {"year": 2026},
        "images": [
            {"id": number, "file_name": str(image.relative_to(root)), "width": 32, "height": 32}
            for number, image in enumerate(images)
        ],
        "categories": [{"id": 7, "name": "crack"}, {"id": 9, "name": "rust"}],
        "annotations": annotations,
        **changes,
    }
    file = root / "annotations.json"
    file.write_text(json.dumps(content))
    return file


def test_an_image_has_the_categories_of_its_annotations(tmp_path: Path) -> None:
    data = load(write_coco(tmp_path), size=16, task="multilabel", val=0.25, test=0.25)
    assert data.classes == ("crack", "rust")
    found = {}
    for split in data.splits().values():
        for sample in split.samples:
            found[sample.path.name, sample.path.parent.name] = sample.target
    targets = [found[key] for key in sorted(found, key=lambda key: key[::-1])]
    assert targets == [(), (0,), (1,), (0, 1)] * 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"categories": [{"id": 7, "name": "crack;rust"}]}, "can't be called 'crack;rust'"),
        (
            {"categories": [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]},
            "several categories have the same id",
        ),
        ({"categories": [{"id": 7, "name": "crack"}]}, "no category has the id 9"),
        ({"annotations": [{"image_id": 99, "category_id": 7}]}, "no image has the id 99"),
        ({"annotations": [{"image_id": 1}]}, "annotations.0.category_id: field required"),
        (
            {"images": [{"id": 1, "file_name": "a.png"}] * 2},
            "several images have the same id, 1 first",
        ),
        ({"categories": [{"id": 7, "name": "a"}, {"id": 9, "name": "a"}]}, "the same name"),
        ({"images": "none"}, "images: input should be a valid list"),
    ],
)
def test_what_is_no_coco_file_is_said(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    file = write_coco(tmp_path, **changes)
    assert told in refusal("check", file, "--task", "multilabel")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 5000, ""])
def test_what_is_no_json_is_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"no JSON|too deep|no COCO file|no text|empty"):
        load(file, task="multilabel")


def test_copies_in_several_folders_are_one_image_with_several_labels(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "images", count=20)
    (root / "rust").mkdir()
    for number in range(0, 20, 2):
        shutil.copy(root / "crack" / f"{number:03d}.png", root / "rust" / f"copy-{number}.png")
    data = pe.load_folder(root, size=16, task="multilabel")
    samples = [sample for split in data.splits().values() for sample in split.samples]
    assert len(samples) == 40
    both = [sample for sample in samples if len(sample.target) == 2]
    assert sorted(sample.path.name for sample in both) == [f"{n:03d}.png" for n in range(0, 20, 2)]
    # Of a task with one label each they are what `check` tells: the same image under two names.
    assert sum(map(len, pe.load_folder(root, size=16).splits().values())) == 50
