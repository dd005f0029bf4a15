"""What an earlier inspection left is taken over only where it holds what pages and tables read; else the image is inspected anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
