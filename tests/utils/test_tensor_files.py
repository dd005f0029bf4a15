"""Writing tensors without memory is an error that can be caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from prunedge.utils.tensor_files import save_tensors, texts_of
from tests.scarce import ERROR, exit_code_without_memory

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "a.safetensors", {"about": "a"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["weight"], TENSORS["weight"])


def test_the_same_texts_make_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, torch\n"
        "from prunedge.utils.tensor_files import save_tensors\n"
        "save_tensors({'a': torch.zeros(2)}, pathlib.Path(sys.argv[1]), dict.fromkeys(sys.argv[2], 'x'))\n"
    )
    # In one process several files differ as well: each map begins with another key.
    for number in range(2):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(number)), "abcdefgh"], check=True
        )
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


@pytest.mark.parametrize("about", [None, {"one": "1"}, {"one": "1", "two": "ü"}])
def test_texts_are_read_as_they_were_given(about: dict[str, str] | None, tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "a.safetensors", about)
    with safe_open(tmp_path / "a.safetensors", "pt") as opened:
        assert texts_of(opened.metadata()) == (about or {})
    assert texts_of({"another": "1", "program's": "2"}) == {"another": "1", "program's": "2"}


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(),
    reason="the limit is set by what Linux tells of a process",
)
def test_without_memory_the_process_lives_on(tmp_path: Path) -> None:
    # What this process has freed before may be enough.
    assert exit_code_without_memory(lambda: save_tensors(TENSORS, tmp_path / "a.safetensors")) in (
        0,
        ERROR,
    )
