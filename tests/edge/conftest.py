"""A bundle that the device's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.made_bundles import write_convolutional


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_convolutional(
        tmp_path_factory.mktemp("bundles") / "small", model="m", classes=["a", "b", "c"]
    )
