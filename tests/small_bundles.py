"""A bundle that tests may copy and spoil; nothing of it needs torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.edge.made_bundles import write_convolutional


@pytest.fixture(scope="module")
def made_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for runtimes without torch."""
    return write_convolutional(
        tmp_path_factory.mktemp("made") / "bundle", model="small", classes=["crack", "sound"]
    )


@pytest.fixture
def bundle(made_bundle: Path, tmp_path: Path) -> Path:
    """The bundle, for this test alone."""
    return Path(shutil.copytree(made_bundle, tmp_path / "bundle"))
