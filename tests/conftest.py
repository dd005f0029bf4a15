"""What every test shares: one thread, a cache of its own, tiny pictures."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch or numpy start their threads: tests run side by side on few cores.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("prunedge", deadline=None)
settings.load_profile("prunedge")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["PRUNEDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of 40 pictures of 32 px each."""
    from tests.tiny_pictures import write_tiny

    return write_tiny(tmp_path_factory.mktemp("pictures"))
