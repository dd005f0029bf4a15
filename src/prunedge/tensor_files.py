"""Files of tensors, written so that a lack of memory is an error and not the end of the process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from prunedge.trouble import require_memory


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path, about: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors, and text about them, as safetensors.

    Raises MemoryError where too little memory is left: safetensors' writer, which is not Python's, would abort the process.
    """
    require_memory()
    save_file(dict(tensors), file, dict(about) if about is not None else None)
