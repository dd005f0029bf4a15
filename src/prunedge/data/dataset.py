"""The records that everything downstream reads: an image, a split of them, the whole set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunedge.data.decode import seen_as
from prunedge.data.splits import portions, rarest, with_rest
from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import Greys, InChannels
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.tasks import judged_by
from prunedge.edge.tasks.base import Scale, Targets, TaskSpec
from prunedge.edge.tasks.decision import NOTHING_SAID, DamageSpec
from prunedge.errors import DataError
from prunedge.utils.arguments import require

if TYPE_CHECKING:
    # torch takes seconds to import, and listing or checking images needs none of it.
    from torch import Tensor

    from prunedge.data.loader import Batches
    from prunedge.data.mask_array import Masks
    from prunedge.data.transforms import Augment


@dataclass(frozen=True)
class Sample:
    """One image: its file, what is predicted of it (for classification its class, as an index into
    `Dataset.classes`), and the photograph or structure it comes from.
    """

    path: Path
    target: Any
    source: str | None = None


@dataclass(frozen=True)
class Split:
    """One of train, val and test: an ordered list of images that are read through the cache, if
    there is one.

    `labelling` says what the samples' targets are. `rows` says where in the cache each image lies;
    `cache` is None when images are decoded anew each time. `greys` says what greys of more than
    eight bits mean, None where there are none. `resize` is how images of another shape get this
    size, `in_channels` whether they have three colours or are grey, `image_norm` how they are
    normalised. `damage` is what the user says of it. `masks` are those of all images by `rows`,
    where that is predicted: targets say then only which classes each shows.
    """

    samples: tuple[Sample, ...]
    labelling: Targets
    size: Size
    cache: Path | None = None
    rows: tuple[int, ...] = field(default=(), repr=False)
    greys: Greys | None = None
    resize: Resize = "stretch"
    in_channels: InChannels = 3
    image_norm: ImageNorm = "imagenet"
    masks: Masks | None = field(default=None, repr=False)
    damage: DamageSpec = NOTHING_SAID

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    @property
    def has_masks(self) -> bool:
        """Whether targets are masks, which move with their image."""
        return self.masks is not None

    @property
    def spec(self) -> TaskSpec:
        """What is predicted of these images (`prunedge.tasks.make_task`)."""
        return TaskSpec(
            name=self.labelling.task,
            classes=self.labelling.classes,
            size=self.size,
            resize=self.resize,
            in_channels=self.in_channels,
            damage=self.damage,
            scales=self.labelling.scales,
        )

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
        balanced: bool = False,
    ) -> Batches:
        """Batches of (N, in_channels, H, W) float32, normalised, and their targets, for
        classification (N,) int64; `len()` is their number.

        In order when `shuffle_seed` is None. Order and augmentation depend on (shuffle_seed, epoch)
        alone, not on the batch size nor on torch's global random state, so an epoch that is run
        again is the same. It can be iterated over more than once. With `balanced` an epoch has as
        many images of each stratum (`prunedge.data.sampler`), and as many in all. Raises ValueError
        for a batch size below 1, and where it is `balanced` in order.
        """
        from prunedge.data.loader import Batches

        return Batches(
            self,
            batch_size,
            shuffle_seed,
            augment,
            epoch,
            drop_last,
            self.image_norm,
            balanced,
        )

    def targets(self, indices: np.ndarray | list[int] | None = None) -> np.ndarray:
        """What is predicted of these images, or of all, as batches hold it: for classification
        (len(indices),) int64, where there are masks (len(indices), H, W) uint8.
        """
        if self.masks is not None:
            rows = self.rows if indices is None else [self.rows[i] for i in indices]
            return self.masks.read(rows)
        chosen = self.samples if indices is None else [self.samples[i] for i in indices]
        return self.labelling.collate([sample.target for sample in chosen])

    def counts(self) -> dict[str, int]:
        """How many images count in each stratum (for classification: each class), by its name."""
        times, is_in = self._strata()
        return dict(zip(self.labelling.strata_names, (times @ is_in).tolist(), strict=True))

    def in_none_and_several(self) -> tuple[int, int]:
        """How many images count in no stratum, and how many in more than one: images without a
        label, and with several.
        """
        times, is_in = self._strata()
        strata = is_in.sum(1)
        return int(times[strata == 0].sum()), int(times[strata > 1].sum())

    def _strata(self) -> tuple[np.ndarray, np.ndarray]:
        """How many images have each of the different targets (targets,), and in which strata each
        of these counts (targets, strata).
        """
        # Few targets are different ones, and the strata of all images would fill the memory.
        times = Counter(sample.target for sample in self.samples)
        return np.array(list(times.values()), np.int64), self.labelling.strata(list(times)) > 0

    def pixels(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """These images as they are stored: (len(indices), H, W, in_channels) uint8. Raises
        DataError when one can't be read any more.
        """
        if self.cache is not None:
            from prunedge.data.cached_array import read_pixels

            return read_pixels(self.cache, [self.rows[i] for i in indices])
        from prunedge.data.decode import decode

        paths = [self.samples[i].path for i in indices]
        return decode(paths, self.size, self.greys, self.resize, self.in_channels)

    def take(self, n: int, seed: int = 0) -> Split:
        """A subset of `n` images, in their old order, with the strata (for classification: the
        classes) in the same proportions as far as whole images allow.

        An image that counts in several is drawn with the others of its rarest one. The whole split
        when `n` is not below its length. Raises ValueError when `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"can't take {n} images: n must be at least 1")
        if n >= len(self):
            return self
        kinds = self.rarest_strata()
        rng = np.random.default_rng(seed)
        strata, counts = np.unique(kinds, return_counts=True)
        wanted = portions(counts * (n / len(self)), n, counts, least=int(n >= len(strata)))
        chosen = []
        for stratum, count in zip(strata, wanted, strict=True):
            chosen.append(rng.permutation(np.flatnonzero(kinds == stratum))[:count])
        return self.at(np.sort(np.concatenate(chosen)))

    def rarest_strata(self) -> np.ndarray:
        """The rarest stratum that each image counts in, (n,) int64; those that count in none have
        the number after the last.
        """
        times = Counter(sample.target for sample in self.samples)
        strata = with_rest(self.labelling.strata(list(times)))  # (different targets, strata)
        totals = np.array(list(times.values()), np.int64) @ strata
        kinds = dict(zip(times, rarest(strata, totals).tolist(), strict=True))
        return np.array([kinds[sample.target] for sample in self.samples], np.int64)

    def at(self, indices: np.ndarray | list[int]) -> Split:
        """The split of just these images, in this order."""
        rows = tuple(self.rows[i] for i in indices) if self.rows else ()
        return replace(self, samples=tuple(self.samples[i] for i in indices), rows=rows)


@dataclass(frozen=True)
class Dataset:
    """Three splits of labelled images such that no source lies in two of them (unless the user's
    own split has it so).

    `labelling` says what the images are labelled with. `fingerprint` stands for the pixels at this
    size, the labels and the splits: two sets with the same one train alike, wherever they lie.
    `skipped` names the unreadable images that were left out. `greys` is the range of greys of more
    than eight bits, None where there are none; `extremes` are the lowest and highest value that
    such images hold. `resize` is how images of another shape get this size,
    `in_channels` whether they have three colours or are grey, `image_norm` how they are
    normalised.
    """

    root: Path
    labelling: Targets
    train: Split
    val: Split
    test: Split
    size: Size
    fingerprint: str
    skipped: tuple[Path, ...] = ()
    greys: Greys | None = None
    extremes: tuple[float, float] | None = None
    resize: Resize = "stretch"
    in_channels: InChannels = 3
    image_norm: ImageNorm = "imagenet"

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels name, in the order of the model's outputs."""
        return self.labelling.classes

    @property
    def spec(self) -> TaskSpec:
        """What is predicted of these images (`prunedge.tasks.make_task`)."""
        return self.train.spec

    @property
    def damage(self) -> DamageSpec:
        """What the user says of it."""
        return self.train.damage

    def judged_by(self, metric: str) -> Dataset:
        """The same images, on which this metric is measured too: one of a level of your own, as
        `recall@alarms=0.03`. TrainError where their task has none of that name.
        """
        damage = judged_by(self.spec.name, self.damage, metric)
        if damage == self.damage:
            return self
        return replace(
            self,
            train=replace(self.train, damage=damage),
            val=replace(self.val, damage=damage),
            test=replace(self.test, damage=damage),
        )

    def scaled(self, scales: Sequence[Scale]) -> Dataset:
        """The same images with the scales of those that a model was trained on; as they are where
        there are none.
        """
        if not scales:
            return self
        labelling = self.labelling.scaled(scales)
        return replace(
            self,
            labelling=labelling,
            train=replace(self.train, labelling=labelling),
            val=replace(self.val, labelling=labelling),
            test=replace(self.test, labelling=labelling),
        )

    @property
    def outputs(self) -> int:
        """How many outputs a model for these images has: `pe.build(name, data.outputs)`."""
        return self.labelling.outputs

    def train_fingerprint(self) -> str:
        """Stands for the training images alone: also where somebody has taken some of them
        out.
        """
        train = self.train
        seen = seen_as(train.size, train.resize, train.image_norm, train.in_channels)
        digest = hashlib.sha256(f"{self.fingerprint} {seen} {self.classes}".encode())
        # Rows count the images that `fingerprint` stands for, wherever they lie.
        names: Sequence[object] = [sample.path for sample in self.train.samples]
        if self.fingerprint and self.train.rows:
            names = self.train.rows
        for name, sample in zip(names, self.train.samples, strict=True):
            digest.update(f"\n{name}\t{sample.target}".encode(errors="surrogateescape"))
        return digest.hexdigest()[:32]

    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def example(self, n: int = 2) -> Tensor:
        """Training images of all strata as (n, in_channels, H, W) float32, normalised; always the
        same ones.

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


def require_batches(batches: object) -> None:
    """TypeError where a whole Dataset, its name, or nothing to go through was given for one of its
    splits.
    """
    if isinstance(batches, Dataset | str | Path) or not isinstance(batches, Iterable):
        raise TypeError(
            "batches is a split, such as data.val, or (images, targets) pairs, not "
            f"{type(batches).__name__}"
        )


def require_dataset(data: object) -> None:
    """TypeError where something else was given than a Dataset: a folder's name, say."""
    require("data", data, Dataset, "a Dataset, such as prunedge.load_folder(...) gives")
