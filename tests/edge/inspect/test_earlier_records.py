"""What an earlier inspection left is taken over only where it holds what pages and tables read; else the image is inspected anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.image.photograph import open_photo
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.results import Results

RECORD: dict[str, Any] = {
    "name": "a.png",
    "width": 64,
    "height": 48,
    "patches": 4,
    "damaged": 1,
    "probability": 0.9,
    "damaged_share": 0.25,
    "severity": 0.2,
    "seconds": 0.1,
    "seconds_drawing": 0.1,
    "notes": [],
    "position": None,
    "regions": [
        {"label": "crack", "probability": 0.9, "left": 0, "top": 0, "width": 8, "height": 8}
    ],
}


def known(folder: Path, **changes: Any) -> dict[str, Any] | None:
    results = Results(folder, {"bundle": {"sha256": "0"}, "settings": {}})
    item = Item("a.png", folder / "a.png", "stamp")
    for suffix in (".overlay.jpg", ".map.png"):
        (folder / f"a.png{suffix}").touch()
    record = {**RECORD, "key": results._key(item), **changes}
    (folder / "a.png.json").write_text(json.dumps(record))
    return results.known(item)


def test_a_whole_record_is_taken_over(tmp_path: Path) -> None:
    assert known(tmp_path) is not None


@pytest.mark.parametrize("wrong", [True, [1]])
@pytest.mark.parametrize("key", RECORD)
def test_a_wrong_value_is_inspected_anew(tmp_path: Path, key: str, wrong: object) -> None:
    assert known(tmp_path, **{key: wrong}) is None


@pytest.mark.parametrize("mask", [None, np.array([[True, False]])])
def test_an_image_whose_files_are_not_all_there_is_inspected_anew(
    tmp_path: Path, mask: np.ndarray | None
) -> None:
    results = Results(tmp_path, {"bundle": {"sha256": "0"}, "settings": {"threshold": 0.5}})
    item = Item("a.png", tmp_path / "a.png", "stamp")
    photo = open_photo(Image.new("RGB", (8, 4)), 1)
    inspection = Inspection(
        name="a.png",
        width=8,
        height=4,
        patches=1,
        damaged=1,
        regions=(),
        probability=0.9,
        map=np.array([[0.9, 0.1]], np.float32),
        cell=4,
        patch=(8, 4),
        seconds=0.1,
        position=None,
        mask=mask,
    )
    results.keep(item, inspection, photo)
    files = {".json", ".overlay.jpg", ".map.png"} | ({".mask.png"} if mask is not None else set())
    assert {file.name for file in tmp_path.iterdir()} == {f"a.png{suffix}" for suffix in files}
    assert results.known(item) is not None
    for suffix in files:
        file = tmp_path / f"a.png{suffix}"
        content = file.read_bytes()
        file.unlink()
        assert results.known(item) is None
        file.write_bytes(content)
    assert results.known(item) is not None
