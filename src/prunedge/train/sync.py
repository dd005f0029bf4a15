"""One batch over several processes.

Norms, dropout and gradients come out as if a single process had seen all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from prunedge.train.engine import Engine
from prunedge.utils import distributed
from prunedge.utils.distributed import BatchShard

DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
BUCKET = 2**23  # numbers that are sent at once: a copy of all gradients would double their memory
ALONE = 2**18  # from here on a gradient is sent as it lies, which saves copying it twice


@contextmanager
def synchronized_batch(shard: BatchShard, engine: Engine) -> Iterator[None]:
    """Run a model forward on a shard, in the engine's precision and with the whole batch in view.

    Nothing where a shard is all.
    """
    if distributed.world_size() == 1:
        yield
        return
    with engine.autocast(), SynchronizedBatch(shard):
        yield


class SynchronizedBatch(TorchFunctionMode):
    """While inside, a shard's forward pass computes what depends on the whole batch from all of it.

    Batch norms in training take their statistics over all processes, and differentiate through
    them. (torch's SyncBatchNorm does so on GPUs alone, and replaces modules that the channel graph
    knows by name.) Dropout and stochastic depth draw for the whole batch, from the generator that
    stands alike in every process, and use their own rows. Both are caught where modules of any kind
    call them.
    """

    def __init__(self, shard: BatchShard) -> None:
        super().__init__()
        self._shard = shard

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is torch.Tensor.bernoulli_ and (whole := self._of_whole_size(args[0])) is not None:
            return args[0].copy_(self._own(whole.bernoulli_(*args[1:], **kwargs)))
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        x: torch.Tensor,
        mean: torch.Tensor | None,
        variance: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if not training:
            return F.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)
        if x.numel() // x.shape[1] * self._shard.whole < 2 * len(self._shard.targets):
            raise ValueError(
                "batch normalisation can't learn from one value per channel: "
                "give larger batches or images"
            )
        counts = self._shard.here > 0
        normed, batch_mean, batch_variance = _Normalise.apply(x, weight, bias, eps, counts)
        with torch.no_grad():
            if mean is not None and variance is not None:
                mean.lerp_(batch_mean.to(mean), momentum)
                variance.lerp_(batch_variance.to(variance), momentum)
        return normed

    def _dropout(
        self,
        func: Any,
        x: torch.Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        whole = self._of_whole_size(x)
        if not training or whole is None:
            return func(x, p, training, inplace)
        mask = self._own(func(whole.fill_(1), p, True))
        return x.mul_(mask) if inplace else x * mask

    def _of_whole_size(self, x: torch.Tensor) -> torch.Tensor | None:
        """Room for the whole batch's `x`; None when its rows aren't the examples."""
        rows = len(self._shard.targets)
        if not x.dim() or x.shape[0] % rows:
            return None
        # Random numbers fill memory in its own order, which one process's tensor would have too.
        order = torch.channels_last if _lies_last(x) else torch.contiguous_format
        size = (x.shape[0] // rows * self._shard.whole, *x.shape[1:])
        return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)

    def _own(self, drawn: torch.Tensor) -> torch.Tensor:
        """This process's rows of what was drawn for the whole batch."""
        rows = len(drawn) // self._shard.whole  # an example may have several
        start = self._shard.start
        stop = start + len(self._shard.targets)
        return drawn[rows * start : rows * stop]


class _Normalise(torch.autograd.Function):
    """Batch normalisation over the examples of all processes that `counts` has for them.

    Gives the output, and the mean and unbiased variance of each channel. What is sent is (2 *
    channels + 1,) float64, so that the variance doesn't drown in the square of the mean.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        counts: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        channels = x.shape[1]
        precise = torch.promote_types(x.dtype, torch.float32)
        # Handed in with momentum 0 for their precision alone: that is what the statistics come in.
        held = x.new_zeros((2, channels), dtype=precise)
        mean, variance = torch.batch_norm_update_stats(x, held[0], held[1], 0.0)
        mean = mean.double()
        variance = variance.double()
        number = mean.new_full((1,), x.numel() // channels)
        own_sums = torch.cat([mean * number, (variance + mean.square()) * number, number])
        sums = distributed.all_reduce_sum(own_sums * counts)

        number = sums[-1]
        mean = sums[:channels] / number
        variance = (sums[channels:-1] / number - mean.square()).clamp_min(0)
        unbiased = (variance * number / (number - 1)).to(precise)
        mean = mean.to(precise)
        variance = variance.to(precise)
        ctx.save_for_backward(x, weight, mean, variance, number)
        ctx.eps = eps
        ctx.counts = counts
        ctx.mark_non_differentiable(mean, unbiased)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, variance, number = ctx.saved_tensors
        # As if the statistics were given; torch's own kernels take a fifth of the time of the same
        # arithmetic operation by operation.
        change, tilt, shift = torch.ops.aten.native_batch_norm_backward(
            gradient,
            x,
            weight,
            mean,
            variance,
            None,
            None,
            False,
            ctx.eps,
            [ctx.needs_input_grad[0], True, True],
        )
        if ctx.needs_input_grad[0]:
            # An example moves the statistics that all examples are normalised by, in whichever
            # process.
            sums = distributed.all_reduce_sum(torch.cat([shift, tilt]).double())
            moved = (sums / number * -ctx.counts).to(shift)
            moved_shift, moved_tilt = moved.chunk(2)
            scale = (variance + ctx.eps).rsqrt()
            if weight is not None:
                scale = scale * weight
            change = change + F.batch_norm(
                x, mean, variance, moved_tilt * scale, moved_shift * scale, False, 0.0, ctx.eps
            )
        for_weight = tilt if ctx.needs_input_grad[1] else None
        for_bias = shift if ctx.needs_input_grad[2] else None
        return change, for_weight, for_bias, None, None


def _lies_last(x: torch.Tensor) -> bool:
    """Whether the channels are innermost in memory."""
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def add_gradients(model: nn.Module) -> None:
    """Replace each parameter's gradient by the sum over all processes.

    Explicitly, and not by DistributedDataParallel: that takes the mean over processes, which is the
    mean over the examples only where all have as many, and waits for parameters that take no part.
    """
    bucket: list[torch.Tensor] = []
    held = 0
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        # In the parameter's own order in memory, which all processes shard.
        gradient = parameter.grad
        if _lies_last(parameter):
            gradient = gradient.permute(0, 2, 3, 1)
        if gradient.numel() >= ALONE:
            dense = distributed.all_reduce_sum(gradient.contiguous())
            if dense.data_ptr() != gradient.data_ptr():
                gradient.copy_(dense)
            continue
        is_full = held + gradient.numel() > BUCKET
        if bucket and (is_full or bucket[0].dtype != gradient.dtype):
            _add_together(bucket)
            bucket = []
            held = 0
        bucket.append(gradient)
        held += gradient.numel()
    if bucket:
        _add_together(bucket)


def _add_together(bucket: list[torch.Tensor]) -> None:
    flat = distributed.all_reduce_sum(torch.cat([gradient.flatten() for gradient in bucket]))
    parts = flat.split([gradient.numel() for gradient in bucket])
    for gradient, values in zip(bucket, parts, strict=True):
        gradient.copy_(values.view(gradient.shape))


def start_alike(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give every process the first one's weights, statistics and optimizer's state.

    What each has computed may differ in the last bit.
    """
    held: list[torch.Tensor] = []
    for entry in optimizer.state.values():
        held += [value for value in entry.values() if value is not None]
    for tensor in (*model.parameters(), *model.buffers(), *held):
        distributed.broadcast_(tensor)
