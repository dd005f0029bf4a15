"""Writing tensors without memory is an error that can be caught."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunedge.tensor_files import save_tensors
from tests.scarce import ERROR, exit_code_without_memory

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "a.safetensors", {"about": "a"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["weight"], TENSORS["weight"])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set by what Linux tells of a process")
def test_without_memory_the_process_lives_on(tmp_path: Path) -> None:
    assert exit_code_without_memory(lambda: save_tensors(TENSORS, tmp_path / "a.safetensors")) == ERROR
