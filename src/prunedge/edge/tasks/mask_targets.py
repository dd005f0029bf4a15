"""What images with masks are labelled with: the classes that each mask shows. Numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunedge.edge.tasks.base import SEPARATOR, Labels, ListedImage, Scale, Unmatched
from prunedge.edge.tasks.damage import damage_among
from prunedge.edge.tasks.named_classes import NamedClasses
from prunedge.errors import DataError

NAME = "segmentation"
IGNORE = 255  # a mask's number for pixels that count neither for nor against anything

Target = tuple[int, ...]


def damage_of(classes: Sequence[str], said: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes that are damage: those of which the user said so, or by their names, or else all
    but the first.
    """
    return damage_among(classes, said) or tuple(classes[1:])


@dataclass(frozen=True)
class MaskTargets(NamedClasses):
    """Targets are the numbers of the classes that an image's mask shows, but for the first, in
    ascending order; each of these classes is a stratum. The masks themselves lie beside the images
    (`prunedge.data.dataset.Split.masks`).
    """

    @property
    def task(self) -> str:
        """`segmentation`."""
        return NAME

    @property
    def strata_names(self) -> tuple[str, ...]:
        """The classes but for the first, which nearly all images show."""
        return self.classes[1:]

    def target(self, image: ListedImage) -> Target:
        """The numbers of the classes that the image's mask shows."""
        return tuple(sorted(self._numbers[name] for name in _labels_in(image.label)))

    def matched(self, labels: Labels) -> list[Target | Unmatched]:
        """The same of each image whose mask shows no other class."""
        matched: list[Target | Unmatched] = []
        for image in labels.images:
            others = [name for name in _labels_in(image.label) if name not in self._numbers]
            if others:
                matched.append(Unmatched(f"class '{others[0][:100]}'"))
            else:
                matched.append(self.target(image))
        return matched

    def collate(self, targets: Sequence[Target]) -> np.ndarray:
        """(n, classes) int64 of 0 and 1: which classes images show. Batches have the masks
        instead.
        """
        batch = np.zeros((len(targets), len(self.classes)), np.int64)
        for row, target in zip(batch, targets, strict=True):
            row[list(target)] = 1
        return batch

    def strata(self, targets: Sequence[Target]) -> np.ndarray:
        """The same without the first class."""
        return self.collate(targets)[:, 1:]

    def missing(self, targets: Sequence[Target]) -> tuple[str, ...]:
        """The classes, but for the first, that no image shows."""
        present = {number for target in targets for number in target}
        names = enumerate(self.classes[1:], 1)
        return tuple(name for number, name in names if number not in present)

    def scales_of(self, targets: Sequence[Target]) -> tuple[Scale, ...]:
        """None: nothing is a number."""
        return ()

    def scaled(self, scales: Sequence[Scale]) -> MaskTargets:
        """Itself."""
        return self

    def baseline(self, targets: Sequence[Target]) -> str:
        """How many images an empty mask is right for."""
        empty = sum(not target for target in targets)
        return f"an empty mask is right for {empty / len(targets):.1%} of the images"

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Nothing: masks are masks."""
        return None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}


def _labels_in(text: str) -> list[str]:
    return [name for name in text.split(SEPARATOR) if name]


def targets_of(labels: Labels) -> MaskTargets:
    """Targets of the classes that masks number. DataError where none shows any of them."""
    if not any(image.label for image in labels.images):
        raise DataError(
            f"all {len(labels.images):,} masks are empty",
            where=labels.where,
            remedy="are they the right ones? damage is white, or a class number above 0",
        )
    return MaskTargets(labels.mask_classes)
