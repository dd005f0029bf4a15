"""The same bits each time: a GPU takes the algorithms that add up in one order."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch

log = logging.getLogger(__name__)

_WARNING = re.compile(r"(\w+) does not have a deterministic implementation")
_reported: set[str] = set()  # operations that were reported in this process


@contextlib.contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Inside, a GPU takes the algorithms that give the same bits each time.

    Where torch has none, the log says so. On a processor those that torch takes anyway do.
    (`torch.backends.cudnn.flags` would switch cuDNN off unless it is told not to.)
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    memory = cast(Any, torch.utils.deterministic)
    deterministic_before = cudnn.deterministic
    benchmark_before = cudnn.benchmark
    fill_before = memory.fill_uninitialized_memory
    enabled_before = torch.are_deterministic_algorithms_enabled()
    warn_only_before = torch.is_deterministic_algorithms_warn_only_enabled()

    cudnn.deterministic = True
    cudnn.benchmark = False
    memory.fill_uninitialized_memory = False
    warn_only = not enabled_before or warn_only_before
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with _warnings_logged():
            yield
    finally:
        cudnn.deterministic = deterministic_before
        cudnn.benchmark = benchmark_before
        memory.fill_uninitialized_memory = fill_before
        torch.use_deterministic_algorithms(enabled_before, warn_only=warn_only_before)


@contextlib.contextmanager
def _warnings_logged() -> Iterator[None]:
    """What torch warns of as not deterministic goes to the log instead, once."""
    with warnings.catch_warnings():
        show_before = warnings.showwarning

        def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            match = _WARNING.match(str(message))
            if match is None:
                show_before(message, *args, **kwargs)
            elif match[1] not in _reported:
                _reported.add(match[1])
                log.warning(
                    "on this GPU the same training may give other weights: "
                    "torch's %s may add up in any order",
                    match[1],
                )

        warnings.showwarning = show
        # torch warns of all of cuBLAS, which is deterministic as long as one stream computes.
        warnings.filterwarnings("ignore", message=".*CuBLAS")
        yield
