"""What is freed stays with the process, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from prunedge.train import make_engine
make_engine("32")
def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(24 * 2**20)  # 96 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
work()
print(work())
"""


def faults(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="glibc's malloc alone is told to keep memory"
)
@pytest.mark.slow
def test_a_large_tensor_takes_memory_that_was_freed_before() -> None:
    kept = faults()
    given_back = faults(MALLOC_ARENA_MAX="4")  # the user has words of their own for malloc
    assert given_back > 5 * 20_000, "pages of 4 KB that the kernel had to clear anew"
    assert kept < given_back / 20
