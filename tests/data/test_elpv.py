"""The demo's images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from prunedge.data import elpv, write_elpv
from prunedge.data.listing import list_data
from prunedge.errors import ExtraMissing


def test_solar_cells(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="elpv-dataset is not installed")
    manifest = write_elpv(tmp_path / "elpv")
    assert write_elpv(tmp_path / "elpv") == manifest
    listing = list_data(manifest.parent)
    assert Counter(row.label for row in listing.records) == {"functional": 1803, "defective": 821}
    assert all(row.path.is_file() for row in listing.records)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match="demo"):
        write_elpv(tmp_path)
