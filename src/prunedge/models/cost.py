"""What a network costs to run and to carry: multiply-accumulates, parameters, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunedge.errors import ModelError
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What one picture costs: `macs` multiply-accumulates, `params` parameters, `bytes` of float32
    state.
    """

    macs: int
    params: int
    bytes: int

    @property
    def size_mb(self) -> float:
        """The float32 state in megabytes (10**6 bytes)."""
        return self.bytes / 1e6


def cost(net: nn.Module, example: torch.Tensor) -> Cost:
    """Measure the cost of one picture of `example` (N, 3, S, S) through `net`, which stays as it
    was.

    `macs` is half of what torch's own `FlopCounterMode` counts in evaluation mode (one
    multiply-accumulate is two operations; normalisation, activation and pooling count nothing).
    `params` counts every parameter once, however often it is shared. `bytes` is the state as
    float32: parameters and floating-point buffers, 4 bytes each. Raises ModelError when the network
    doesn't take a picture of this size.
    """
    params = sum(parameter.numel() for parameter in net.parameters())
    buffers = sum(buffer.numel() for buffer in net.buffers() if buffer.is_floating_point())
    return Cost(
        macs=_macs(net, example[:1]), params=params, bytes=FLOAT32_BYTES * (params + buffers)
    )


def _macs(net: nn.Module, picture: torch.Tensor) -> int:
    first = next(
        (parameter for parameter in net.parameters() if parameter.is_floating_point()), None
    )
    picture = picture.detach().to(first) if first is not None else picture.detach()
    counter = FlopCounterMode(display=False)
    with evaluating(net), torch.random.fork_rng(), torch.no_grad(), _slow_attention(), counter:
        try:
            net(picture)
        except (RuntimeError, ValueError, AssertionError) as error:
            pass_on(error)
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"{type(net).__name__} doesn't take a picture of {_shape(picture)}: {reason}",
                remedy=(
                    f"choose another {option('size')} (many networks need at least 32, "
                    "Inception 75, transformers their own)"
                ),
            ) from error
    return counter.get_total_flops() // 2


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` into evaluation mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _slow_attention() -> Iterator[None]:
    # In evaluation mode nn.MultiheadAttention runs one fused operation that the counter doesn't
    # know.
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _shape(picture: torch.Tensor) -> str:
    return "x".join(str(size) for size in picture.shape[1:])
