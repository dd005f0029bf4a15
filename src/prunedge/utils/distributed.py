"""The processes that `torchrun` started for one run: which of them this is, what its part is, and
how they agree.

Everything here is the plain thing where there is one process. Who takes part is read from the
environment that torchrun sets; the process group starts with the first word that is said.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from prunedge.errors import PrunedgeError

if TYPE_CHECKING:
    # The command line asks who it is before it knows whether torch, which takes seconds to import,
    # is needed.
    import torch
    from lightning_fabric import Fabric

P = ParamSpec("P")
T = TypeVar("T")

LAUNCH = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Decoding the images may take one machine hours longer than another. A process that dies is
# noticed by torchrun, not by waiting.
PATIENCE = timedelta(hours=4)

_LAUNCHER = os.getppid()

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class BatchShard:
    """This process's part of a batch of `whole` images: `here` of them, from the place `start`
    on.

    `images` (n, 3, S, S) and `targets` (n, ...) hold them. Where there are fewer images than
    processes, `here` may be 0, and both hold one image that doesn't count: the model has to
    run, since the others wait for what it says on the way.
    """

    images: torch.Tensor
    targets: torch.Tensor
    start: int
    here: int
    whole: int


def world_size() -> int:
    """How many processes work on this run."""
    launched = all(name in os.environ for name in LAUNCH)
    return int(os.environ["WORLD_SIZE"]) if launched and not _alone.get() else 1


def get_rank() -> int:
    """Which of them this is, from 0 on. The first one alone writes and prints."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def fabric(precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
    """Fabric on the fastest device here; with several processes on one device for each, joined to a
    process group.
    """
    from lightning_fabric import Fabric

    with _quiet_fabric():
        if world_size() == 1:
            return Fabric(accelerator="auto", devices=1, precision=precision)
        return _joined_fabric(precision)


def _joined_fabric(precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world_size())), torch.cuda.device_count()
    if world_size() % here:
        raise PrunedgeError(
            f"{world_size()} processes, {here} of them on this machine",
            remedy="start as many on each (--nproc-per-node)",
        )
    if 0 < gpus < here:
        remedy = (
            "lower --nproc-per-node, or hide the GPUs from all of them with CUDA_VISIBLE_DEVICES="
        )
        raise PrunedgeError(f"{here} processes for the {gpus} GPUs of this machine", remedy=remedy)
    made = Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=here,
        num_nodes=world_size() // here,
        precision=precision,
        strategy=DDPStrategy(cluster_environment=TorchElasticEnvironment(), timeout=PATIENCE),
    )
    is_first_time = not torch.distributed.is_initialized()
    with _reached():
        made.launch()
    if is_first_time and not gpus:
        # Now and then Gloo's threads outlive the interpreter, and the process aborts at its end.
        # For NCCL Fabric does it.
        atexit.register(torch.distributed.destroy_process_group)
    return made


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' tensors (contiguous, of one shape, on the engine's device), in
    place; the same bits everywhere.
    """
    if world_size() > 1:
        with _talking() as group:
            group.all_reduce(tensor)
    return tensor


def broadcast_(tensor: torch.Tensor) -> None:
    """Overwrite a tensor on the engine's device with what the first process holds."""
    if world_size() > 1:
        held = tensor.detach().contiguous()
        with _talking() as group:
            group.broadcast(held, 0)
        tensor.detach().copy_(held)


def all_gather(value: T) -> list[T]:
    """Every process's value, in their order; small, since it is sent as a whole."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _talking() as group:
        group.all_gather_object(values, value)
    return values


def broadcast_object(value: T) -> T:
    """The first process's value."""
    if world_size() == 1:
        return value
    held = [value]
    with _talking() as group:
        group.broadcast_object_list(held, 0)
    return held[0]


def rank_zero_only(function: Callable[P, T]) -> Callable[P, T]:
    """Let the first process alone run the function; all give its result or raise its error.

    It begins when all have come here, so that nobody still reads what it writes anew.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if world_size() == 1:
            return function(*args, **kwargs)
        all_gather(None)
        value: Any = None
        error: Exception | None = None
        if get_rank() == 0:
            try:
                with alone():
                    value = function(*args, **kwargs)
            except Exception as failure:  # raised below, on every process
                error = failure
        value, error = broadcast_object((value, error))
        if error is not None:
            raise error
        return value

    return run


@contextmanager
def alone() -> Iterator[None]:
    """While inside, this process is the only one: it neither speaks to the others nor waits for
    them.
    """
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def require_same(what: str, value: str) -> None:
    """Raise PrunedgeError, on every process, when they don't hold the same value."""
    if len(set(all_gather(hashlib.sha256(value.encode()).hexdigest()))) > 1:
        remedy = "use machines of one kind, with the same versions of torch and prunedge"
        raise PrunedgeError(
            f"the processes of this run came to different results: {what}", remedy=remedy
        )


def merge_collectors(collector: Any) -> None:
    """Let a collector hold what those of all processes have gathered, the same bits everywhere."""
    if world_size() > 1:
        parts = all_gather(collector.gathered())
        collector.reset()
        for part in parts:
            collector.take_over(part)


def shard_batches(batches: Iterable[T]) -> Iterable[T]:
    """Whole batches in turn: every process gets each `world_size()`-th, as one process would make
    it.
    """
    if world_size() == 1:
        return batches
    made: Any = batches.batches() if hasattr(batches, "batches") else batches
    return (
        made.shard(get_rank(), world_size())
        if hasattr(made, "shard")
        else islice(made, get_rank(), None, world_size())
    )


def gather_batches(items: list[T]) -> list[T]:
    """What every process made of the batches that it was given, in the batches' order."""
    per_process = all_gather(items)
    count = sum(map(len, per_process))
    world = len(per_process)
    return [per_process[index % world][index // world] for index in range(count)]


def split_batches(batches: Any) -> Iterator[BatchShard]:
    """This process's part of each batch, one after the other."""
    if hasattr(batches, "shards"):
        yield from batches.shards(get_rank(), world_size())
        return
    for images, targets in batches:
        start, here = partition(len(targets), get_rank(), world_size())
        rows = slice(start, start + max(1, here))
        yield BatchShard(images[rows], targets[rows], start, here, len(targets))


def partition(count: int, rank: int, size: int) -> tuple[int, int]:
    """Where the part of a process begins among `count` examples, and how long it is; all parts are
    the whole, in order.

    An empty part begins at an example that there is.
    """
    start, stop = count * rank // size, count * (rank + 1) // size
    return min(start, count - 1), stop - start


@contextmanager
def _talking() -> Iterator[Any]:
    from torch import distributed

    # What a killed torchrun leaves behind would go on, and write into the folder beside a resumed
    # run.
    if "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != _LAUNCHER:
        raise PrunedgeError(
            "torchrun, which started this process, has ended",
            remedy="the same verb with --resume RUN goes on",
        )
    if not distributed.is_initialized():
        fabric("32-true")
    with _reached():
        yield distributed


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise PrunedgeError(
            f"another process of this run can't be reached any more ({reason})",
            remedy="see what ended it; the same verb with --resume RUN goes on from the last step",
        ) from error


@contextmanager
def _quiet_fabric() -> Iterator[None]:
    # Fabric announces its precision on stderr each time one is made; the caller's log says it once.
    talker = logging.getLogger("lightning_fabric")
    was = talker.level
    talker.setLevel(logging.ERROR)
    try:
        yield
    finally:
        talker.setLevel(was)
