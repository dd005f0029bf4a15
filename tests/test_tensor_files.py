"""Writing tensors without memory is an error that can be caught."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunedge.tensor_files import save_tensors

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "a.safetensors", {"about": "a"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["weight"], TENSORS["weight"])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set by what Linux tells of a process")
def test_without_memory_the_process_lives_on(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            save_tensors(TENSORS, tmp_path / "a.safetensors")
        except MemoryError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
