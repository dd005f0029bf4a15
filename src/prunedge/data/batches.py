"""Batches of a split: shuffled, augmented and normalised by a background thread while the network trains."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from prunedge.data.augment import augment, draw
from prunedge.data.dataset import Augment, Split
from prunedge.edge.pictures import normalise, normalise_planes
from prunedge.ranks import Share, part
from prunedge.spans import span, timed

Batch = tuple[Tensor, Tensor]
T = TypeVar("T")

_AHEAD = 4  # batches that may wait


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch; `len()` is their number. Made by `Split.batches`, which says what the fields mean."""

    split: Split
    batch_size: int = 32
    shuffle_seed: int | None = None
    augment: Augment = "none"
    epoch: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a batch size below 1."""
        if self.batch_size < 1:
            raise ValueError(f"a batch can't have {self.batch_size} pictures")

    def __len__(self) -> int:
        """Number of batches."""
        n = len(self.split)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """(N, 3, S, S) float32 and (N,) int64, one batch after the other, the same at every iteration."""
        return _ahead(self._made(self._bounds()))

    def dealt(self, rank: int, size: int) -> Iterator[Batch]:
        """Each `size`-th batch, from number `rank` on; the others are not even read."""
        return _ahead(self._made(self._bounds()[rank::size]))

    def shares(self, rank: int, size: int) -> Iterator[Share]:
        """The part of each batch that is due to process `rank` of `size`; the rest is neither read nor augmented."""
        bounds = self._bounds()
        parts = [part(stop - start, rank, size) for start, stop in bounds]
        own = [(begin + start, begin + start + max(1, here)) for (begin, _), (start, here) in zip(bounds, parts, strict=True)]
        made = zip(self._made(own), bounds, parts, strict=True)
        return _ahead(Share(*batch, start, here, stop - begin) for batch, (begin, stop), (start, here) in made)

    def _bounds(self) -> list[tuple[int, int]]:
        """Where each batch begins and ends in the epoch's order."""
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [(start, min(start + self.batch_size, len(self.split))) for start in starts]

    def _made(self, bounds: Iterable[tuple[int, int]]) -> Iterator[Batch]:
        n, labels = len(self.split), torch.from_numpy(self.split.labels())
        order = np.arange(n)
        if self.shuffle_seed is not None:
            order = torch.randperm(n, generator=self._generator(0)).numpy()
        # Drawn for the whole epoch, so that a picture's augmentation doesn't depend on how batches are cut.
        changes = None if self.augment == "none" else draw(n, self._generator(1), self.augment)
        for start, stop in bounds:
            chosen = order[start:stop]
            with span("read"):
                pixels = self.split.pixels(chosen)
            if changes is None:
                with span("normalise"):
                    made = normalise(pixels)
            else:
                with span("augment"):
                    planes = augment(pixels, changes.at(start, stop))
                with span("normalise"):
                    made = normalise_planes(planes)
            yield _within_reach(torch.from_numpy(made)), _within_reach(labels[torch.from_numpy(chosen)])

    def _generator(self, purpose: int) -> torch.Generator:
        # Its own: torch's global one belongs to the training thread, and would not be the same after a resumption.
        seed = np.random.SeedSequence([self.shuffle_seed or 0, self.epoch, purpose]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) & (2**63 - 1))


def _within_reach(tensor: Tensor) -> Tensor:
    """The tensor in memory that a GPU fetches by itself while the program goes on; as it is where this process uses no GPU."""
    return tensor.pin_memory() if torch.cuda.is_initialized() else tensor


def _ahead(made: Iterator[T]) -> Iterator[T]:
    """The same items, made a few ahead by a thread, whose errors are raised here and which ends with the consumer."""
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


@timed("data")
def _waited(ready: queue.Queue[T]) -> T:
    return ready.get()
