"""Files of tensors and of texts about them: the same bytes each time, and no end of the process for
lack of memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from prunedge.utils.machine import require_memory

# safetensors writes several texts in an order that differs from process to process.
_SEVERAL = "texts"


def save_tensors(
    tensors: Mapping[str, torch.Tensor], file: Path, about: Mapping[str, str] | None = None
) -> None:
    """Write contiguous tensors, and texts about them, as safetensors.

    Raises MemoryError where too little memory is left: safetensors' writer, which is not Python's,
    would abort the process.
    """
    require_memory()
    texts = dict(about or {})
    if len(texts) > 1:
        texts = {_SEVERAL: json.dumps(texts, sort_keys=True)}
    save_file(dict(tensors), file, texts or None)


def texts_of(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The texts about a file's tensors, as `save_tensors` was given them, from its metadata.

    Other programs write two texts or more as they are. Raises ValueError where they are damaged.
    """
    if metadata is None or set(metadata) != {_SEVERAL}:
        return dict(metadata or {})
    texts = json.loads(metadata[_SEVERAL])
    if not isinstance(texts, dict):
        raise ValueError(f"{_SEVERAL} is no table")
    return {str(name): str(text) for name, text in texts.items()}
