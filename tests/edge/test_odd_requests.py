"""Requests of a bench, an inspection or a signature that can't be met: the option or the file that is the cause is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from prunedge.data import load
from prunedge.edge import open_bundle
from prunedge.edge.manifest import MANIFEST
from prunedge.errors import AgentError, BundleError, MachineError
from tests.edge.test_links_to_themselves import fetched
from tests.irregular import Refused, in_time, refused
from tests.small_bundles import bundle, made_bundle
from tests.tiny_images import write_tiny

__all__ = ["bundle", "in_time", "made_bundle", "refused"]
pytestmark = pytest.mark.usefixtures("in_time")


def test_a_batch_that_no_memory_holds(bundle: Path, refused: Refused) -> None:
    told = refused("bench", bundle, "--batch", 1_000_000_000, "--patches", 1)
    assert "--batch" in told
    assert "--memory" not in told
    assert "memory" in told


def test_a_bundle_is_named_where_its_file_is_not(bundle: Path, refused: Refused) -> None:
    told = refused("bench", bundle, "--cpus", 100_000, "--patches", 1)
    assert "--cpus" in told
    assert "(None)" not in told


@pytest.mark.parametrize("verb", ["bench", "inspect"])
def test_more_threads_than_any_machine_has(
    verb: str, bundle: Path, tmp_path: Path, refused: Refused
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    line = [bundle, tmp_path / "a.png"] if verb == "inspect" else [bundle, "--patches", 1]
    told = refused(verb, *line, "--threads", 99_999)
    assert "--threads" in told
    assert "1,024" in told


@pytest.mark.parametrize("key", ["model", "sha256", "task"])
def test_a_manifest_with_a_key_twice(key: str, bundle: Path, tmp_path: Path) -> None:
    file = bundle / MANIFEST
    text = file.read_text()
    value = json.dumps(json.loads(text)[key])
    file.write_text(text.replace("{", f'{{"{key}": {value},', 1))
    with pytest.raises(BundleError, match=f"the key '{key}' stands there twice"):
        open_bundle(bundle)
    with pytest.raises(AgentError, match=f"{key}' stands there twice"):
        fetched(bundle, tmp_path / "into")


def test_a_cache_that_lies_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_tiny(tmp_path / "data", 6, 16)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(MachineError, match="PRUNEDGE_CACHE"):
        load(data, size=16)
