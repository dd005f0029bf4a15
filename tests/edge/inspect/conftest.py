"""A bundle whose answers are known: a patch is a crack when one of its sixteen by sixteen pixels is dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge import open_bundle
from prunedge.edge.session import Session, open_session
from tests.edge.made_bundles import write_darkest

SIZE = 16


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_darkest(tmp_path_factory.mktemp("bundle") / "darkest", SIZE)


@pytest.fixture(scope="session")
def session(bundle: Path) -> Session:
    return open_session(open_bundle(bundle))


def wall(
    width: int, height: int, dark: tuple[tuple[int, int, int, int], ...] = (), seed: int = 0
) -> Image.Image:
    """A bright photograph with dark boxes."""
    image = Image.fromarray(
        np.random.default_rng(seed).normal(170, 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    )
    for box in dark:
        image.paste((10, 10, 10), box)
    return image
