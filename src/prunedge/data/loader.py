"""Batches of a split: shuffled, augmented and normalised by a background thread while the model
trains.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from prunedge.data.sampler import balanced_order
from prunedge.data.transforms import Augment, augment, draw, moved
from prunedge.edge.image.normalise import ImageNorm, normalise, normalise_planes, statistics
from prunedge.utils.distributed import BatchShard, partition
from prunedge.utils.machine import require_memory
from prunedge.utils.tracing import span, traced

Batch = tuple[Tensor, Tensor]
T = TypeVar("T")

_AHEAD = 4  # batches that may wait
# Threads that make batches for a GPU: training ResNet18 at 224 px an H200 takes 5,000 images a
# second, of which one makes 2,000.
_MOST_MAKERS = 4


class Images(Protocol):
    """Labelled images of one size, read by their places: a `Split`."""

    def __len__(self) -> int:
        """Number of images."""

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """What is predicted of these images, (len(indices), ...): for classification int64."""

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """These images: (len(indices), H, W, channels) uint8."""

    @property
    def has_masks(self) -> bool:
        """Whether targets are masks (len(indices), H, W), which move with their image."""

    def rarest_strata(self) -> np.ndarray:
        """The rarest stratum that each image counts in (len(self),) int64."""


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch; `len()` is their number. Made by `Split.batches`, which says what
    the fields mean.
    """

    split: Images
    batch_size: int = 32
    shuffle_seed: int | None = None
    augment: Augment = "none"
    epoch: int = 0
    drop_last: bool = False
    image_norm: ImageNorm = "imagenet"
    balanced: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a batch size below 1, and for images in order that are drawn."""
        if self.batch_size < 1:
            raise ValueError(f"a batch can't have {self.batch_size} images")
        if self.balanced and self.shuffle_seed is None:
            raise ValueError("images that are drawn by their class have no order: give a seed")

    def __len__(self) -> int:
        """Number of batches."""
        n = len(self.split)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Images (N, channels, H, W) float32 and their targets (N, ...), one batch after the other,
        the same at every iteration.
        """
        return _ahead(self._made(self._bounds()))

    def shard(self, rank: int, size: int) -> Iterator[Batch]:
        """Each `size`-th batch, from number `rank` on; the others are not even read."""
        return _ahead(self._made(self._bounds()[rank::size]))

    def shards(self, rank: int, size: int) -> Iterator[BatchShard]:
        """The slice of each batch that is due to process `rank` of `size`; the rest is neither read
        nor augmented.
        """
        bounds = self._bounds()
        slices = []
        own_bounds = []
        for begin, stop in bounds:
            start, count = partition(stop - begin, rank, size)
            slices.append((start, count, stop - begin))
            # A process without an image of its own reads one all the same.
            own_bounds.append((begin + start, begin + start + max(1, count)))

        made = zip(self._made(own_bounds), slices, strict=True)
        return _ahead(
            BatchShard(*batch, start, count, whole) for batch, (start, count, whole) in made
        )

    def _bounds(self) -> list[tuple[int, int]]:
        """Where each batch begins and ends in the epoch's order."""
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [(start, min(start + self.batch_size, len(self.split))) for start in starts]

    def _made(self, bounds: Iterable[tuple[int, int]]) -> Iterator[Batch]:
        n = len(self.split)
        order = np.arange(n)
        if self.balanced:
            order = balanced_order(self.split.rarest_strata(), self._generator(0))
        elif self.shuffle_seed is not None:
            order = torch.randperm(n, generator=self._generator(0)).numpy()
        # Drawn for the whole epoch, so that an image's augmentation doesn't depend on how batches
        # are cut.
        changes = None if self.augment == "none" else draw(n, self._generator(1), self.augment)

        def make(start: int, stop: int) -> Batch:
            chosen = order[start:stop]
            with span("read"):
                pixels = self.split.pixels(chosen)
            mean, std = statistics(self.image_norm, pixels.shape[-1])
            if changes is None:
                with span("normalise"):
                    made = normalise(pixels, mean, std)
            else:
                with span("augment"):
                    planes = augment(pixels, changes.at(start, stop))
                with span("normalise"):
                    made = normalise_planes(planes, mean, std)
            images = torch.from_numpy(made)
            wanted = self.split.targets(chosen)
            if changes is not None and self.split.has_masks:
                wanted = moved(wanted, changes.at(start, stop))
            targets = torch.from_numpy(wanted)
            return _within_reach(images), _within_reach(targets)

        return _side_by_side(make, bounds, _makers())

    def _generator(self, purpose: int) -> torch.Generator:
        # Its own: torch's global one belongs to the training thread, and would not be the same
        # after a resumption.
        sequence = np.random.SeedSequence([self.shuffle_seed or 0, self.epoch, purpose])
        seed = int(sequence.generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed & (2**63 - 1))


def _within_reach(tensor: Tensor) -> Tensor:
    """The tensor in memory that a GPU fetches by itself while the program goes on; as it is where
    this process uses no GPU.
    """
    return tensor.pin_memory() if torch.cuda.is_initialized() else tensor


def _makers() -> int:
    """How many batches are made at a time: one beside a model on the processor, which needs the
    others itself.
    """
    if not torch.cuda.is_initialized():
        return 1
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # One process for each GPU, and one core for what each of them does beside the images.
    return max(1, min(_MOST_MAKERS, cores // max(1, torch.cuda.device_count()) - 1))


def _side_by_side(
    make: Callable[[int, int], Batch], bounds: Iterable[tuple[int, int]], makers: int
) -> Iterator[Batch]:
    """The batch of each of the bounds, in their order, made by so many threads."""
    if makers == 1:
        yield from (make(start, stop) for start, stop in bounds)
        return
    waiting: deque[Future[Batch]] = deque()
    require_memory(makers)
    with ThreadPoolExecutor(makers, thread_name_prefix="prunedge-images") as pool:
        try:
            for start, stop in bounds:
                waiting.append(pool.submit(make, start, stop))
                if len(waiting) > makers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Whoever wants no more batches does not wait for those that nobody has begun.
            for future in waiting:
                future.cancel()


def _ahead(made: Iterator[T]) -> Iterator[T]:
    """The same items, made a few ahead by a thread, whose errors are raised here and which ends
    with the consumer.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in made:
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed over to the consumer, who raises it
            put(error)

    require_memory(1)
    thread = threading.Thread(target=work, name="prunedge-batches", daemon=True)
    thread.start()
    try:
        while (item := _waited(ready)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


@traced("data")
def _waited(ready: queue.Queue[T]) -> T:
    return ready.get()
