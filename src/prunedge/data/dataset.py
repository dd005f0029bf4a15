"""The records that everything downstream reads: an image, a split of them, the whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunedge.data.decode import appearance
from prunedge.data.splits import portions
from prunedge.edge.image.read import Greys
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import DataError

if TYPE_CHECKING:
    # torch takes seconds to import, and listing or checking images needs none of it.
    from torch import Tensor

    from prunedge.data.loader import Batches
    from prunedge.data.transforms import Augment


@dataclass(frozen=True)
class Sample:
    """One image: its file, its class as an index into `Dataset.classes`, and the photograph or
    structure it comes from.
    """

    path: Path
    label: int
    source: str | None = None


@dataclass(frozen=True)
class Split:
    """One of train, val and test: an ordered list of images that are read through the cache, if
    there is one.

    `rows` says where in the cache each image lies; `cache` is None when images are decoded anew
    each time. `greys` says what greys of more than eight bits mean, None where there are none.
    `resize` is how images of another shape get this size.
    """

    samples: tuple[Sample, ...]
    size: Size
    cache: Path | None = None
    rows: tuple[int, ...] = field(default=(), repr=False)
    greys: Greys | None = None
    resize: Resize = "stretch"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches in order, as `batches()` gives them."""
        return iter(self.batches())

    def batches(
        self,
        batch_size: int = 32,
        *,
        shuffle_seed: int | None = None,
        augment: Augment = "none",
        epoch: int = 0,
        drop_last: bool = False,
    ) -> Batches:
        """Batches of (N, 3, H, W) float32, ImageNet-normalised, and (N,) int64 labels; `len()` is
        their number.

        In order when `shuffle_seed` is None. Order and augmentation depend on (shuffle_seed, epoch)
        alone, not on the batch size nor on torch's global random state, so an epoch that is run
        again is the same. It can be iterated over more than once. Raises ValueError for a batch
        size below 1.
        """
        from prunedge.data.loader import Batches

        return Batches(self, batch_size, shuffle_seed, augment, epoch, drop_last)

    def labels(self) -> np.ndarray:
        """The class of each image: (n,) int64."""
        return np.fromiter((sample.label for sample in self.samples), np.int64, len(self.samples))

    def pixels(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """These images as they are stored: (len(indices), H, W, 3) uint8. Raises DataError when
        one can't be read any more.
        """
        if self.cache is not None:
            from prunedge.data.cached_array import read_pixels

            return read_pixels(self.cache, [self.rows[i] for i in indices])
        from prunedge.data.decode import decode

        paths = [self.samples[i].path for i in indices]
        return decode(paths, self.size, self.greys, self.resize)

    def take(self, n: int, seed: int = 0) -> Split:
        """A subset of `n` images, in their old order, with the classes in the same proportions as
        far as whole images allow.

        The whole split when `n` is not below its length. Raises ValueError when `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"can't take {n} images: n must be at least 1")
        if n >= len(self):
            return self
        labels = self.labels()
        rng = np.random.default_rng(seed)
        classes, counts = np.unique(labels, return_counts=True)
        wanted = portions(counts * (n / len(self)), n, counts, least=int(n >= len(classes)))
        chosen = []
        for label, count in zip(classes, wanted, strict=True):
            chosen.append(rng.permutation(np.flatnonzero(labels == label))[:count])
        return self.at(np.sort(np.concatenate(chosen)))

    def at(self, indices: np.ndarray | list[int]) -> Split:
        """The split of just these images, in this order."""
        rows = tuple(self.rows[i] for i in indices) if self.rows else ()
        return replace(self, samples=tuple(self.samples[i] for i in indices), rows=rows)


@dataclass(frozen=True)
class Dataset:
    """Classes, and three splits of labelled images such that no source lies in two of them
    (unless the user's own split has it so).

    `fingerprint` stands for the pixels at this size, the labels and the splits: two sets with the
    same one train alike, wherever they lie. `skipped` names the unreadable images that were left
    out. `greys` is the range of greys of more than eight bits, None where there are none;
    `extremes` are the lowest and highest value that such images hold. `resize` is how images of
    another shape get this size.
    """

    root: Path
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    size: Size
    fingerprint: str
    skipped: tuple[Path, ...] = ()
    greys: Greys | None = None
    extremes: tuple[float, float] | None = None
    resize: Resize = "stretch"

    @property
    def spec(self) -> TaskSpec:
        """What is predicted of these images (`prunedge.tasks.make_task`)."""
        return TaskSpec(
            name="classification", classes=self.classes, size=self.size, resize=self.resize
        )

    def train_fingerprint(self) -> str:
        """Stands for the training images alone: also where somebody has taken some of them
        out.
        """
        seen = appearance(self.train.size, self.train.resize)
        digest = hashlib.sha256(f"{self.fingerprint} {seen} {self.classes}".encode())
        # Rows count the images that `fingerprint` stands for, wherever they lie.
        names: Sequence[object] = [sample.path for sample in self.train.samples]
        if self.fingerprint and self.train.rows:
            names = self.train.rows
        for name, sample in zip(names, self.train.samples, strict=True):
            digest.update(f"\n{name}\t{sample.label}".encode(errors="surrogateescape"))
        return digest.hexdigest()[:32]

    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def example(self, n: int = 2) -> Tensor:
        """Training images of all classes as (n, 3, H, W) float32, normalised; always the same
        ones.

        When there are fewer than `n`, they are repeated.
        """
        if not len(self.train):
            raise DataError(
                "there are no training images to show",
                where=self.root,
                remedy="give more images",
            )
        split = self.train.take(n)
        images = next(iter(split.batches(len(split))))[0]
        return images[[i % len(split) for i in range(n)]]

    def __str__(self) -> str:
        """One line: how many images of which classes, and how they are split."""
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits().items())
        return f"{len(self.classes)} classes ({', '.join(self.classes)}) at {self.size} px: {sizes}"


def require_dataset(data: object) -> None:
    """TypeError where something else was given than a Dataset: a folder's name, say."""
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data is a Dataset, such as prunedge.load_folder(...) gives, not {type(data).__name__}"
        )
