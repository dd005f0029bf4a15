"""One of several classes for each pixel: masks. The first class is what is not damaged, unless the
names say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.edge.image.size import cropped_box, padded_box
from prunedge.edge.probabilities import TOLERANCE, squash_of, squash_warning
from prunedge.edge.tasks import by_class
from prunedge.edge.tasks.base import SEPARATOR, DeviceDefinition, Findings, TaskSpec, Tiles
from prunedge.edge.tasks.mask_map import Box, blended, cell_of, map_edges, place_of, scaled
from prunedge.edge.tasks.mask_targets import IGNORE, NAME, damage_of, targets_of
from prunedge.edge.tasks.metric import Metric
from prunedge.errors import BundleError

METRICS = {
    metric.name: metric
    for metric in (
        Metric("iou", is_macro=True),
        Metric("dice", is_macro=True),
        Metric("precision", is_macro=True),
        Metric("recall", is_macro=True),
        Metric("cliou", is_slow=True),
        Metric("cldice", is_slow=True),
        Metric("iou_per_image"),
        Metric("dice_per_image"),
        Metric("cliou_per_image", is_slow=True),
        Metric("cldice_per_image", is_slow=True),
    )
}


@dataclass(frozen=True)
class Segmentation:
    """Outputs are logits (n, classes, height, width), predictions the probabilities of each
    pixel's classes in the same shape, both float32.
    """

    spec: TaskSpec

    @property
    def allows_none(self) -> bool:
        """No: a pixel of no damage class is of another one."""
        return False

    @property
    def damage(self) -> tuple[str, ...]:
        """Those of which the user said so, or whose names tell, or else all but the first."""
        return damage_of(self.spec.classes, self.spec.damage.classes)

    @property
    def noun(self) -> str:
        """`pixels`."""
        return "pixels"

    def threshold(self, given: float | None, damage: Sequence[str]) -> float:
        """A probability."""
        return by_class.threshold_of(self.spec, given, damage)

    def choice(self, damage: Sequence[str], threshold: float) -> str:
        """Which classes are damage, and which are not."""
        return by_class.choice_of(self.spec, damage, threshold)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """A softmax over the classes of each pixel."""
        raised = np.exp(outputs - outputs.max(1, keepdims=True))
        return (raised / raised.sum(1, keepdims=True)).astype(np.float32)

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The classes that an image's pixels are taken for, but for the first; empty where there
        are none.
        """
        shares = self.values(predictions, sizes)[:, 1:] > 0
        names = np.array(self.spec.classes[1:])
        return [SEPARATOR.join(names[row]) for row in shares]

    def values(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray:
        """The share of an image's pixels that are taken for each class, (n, classes) float64. With
        `sizes` the border around an image that is padded is none of its pixels.
        """
        shares = np.zeros(predictions.shape[:2])
        for index, prediction in enumerate(predictions):
            seen = prediction if sizes is None else self._seen(prediction, (0, 0, *sizes[index]))
            counts = np.bincount(seen.argmax(0).ravel(), minlength=len(prediction))
            shares[index] = counts / counts.sum()
        return shares

    def mask(self, prediction: np.ndarray, width: int, height: int) -> np.ndarray:
        """The most probable class of each pixel; `IGNORE` where the model's images are cropped."""
        whole = (0, 0, width, height)
        left, top, right, bottom = whole
        if self.spec.resize == "crop":
            left, top, right, bottom = map(round, cropped_box(width, height, self.spec.size))
        shape = (bottom - top, right - left)
        highest = np.full(shape, -np.inf, np.float32)
        chosen = np.zeros(shape, np.uint8)
        for number, layer in enumerate(self._seen(prediction, whole)):
            values = scaled(layer, shape)
            is_higher = values > highest
            highest[is_higher] = values[is_higher]
            chosen[is_higher] = number
        mask = np.full((height, width), IGNORE, np.uint8)
        mask[top:bottom, left:right] = chosen
        return mask

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Whether there is one logit for each class of each pixel."""
        wanted = self._shape(count)
        if outputs.shape == wanted:
            return None
        return f"the model gives {outputs.shape}, the manifest wants {wanted}"

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Whether they are a distribution over the classes for each pixel."""
        wanted = self._shape(count)
        if predictions.shape != wanted:
            return f"answers of shape {predictions.shape}, wanted {wanted}"
        pixels = np.moveaxis(predictions, 1, -1).reshape(-1, wanted[1])
        return by_class.check_distribution(pixels, pixels.shape, TOLERANCE)

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no pixel's probability differs by more than `by_class.NEAR`."""
        return by_class.is_near(predictions, others)

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """The share of each image's pixels that get the same class, but for those whose two highest
        wanted logits lie within `tolerance`.
        """
        is_same = outputs.argmax(1) == wanted.argmax(1)
        highest = np.partition(wanted, -2, axis=1)
        is_close = highest[:, -1] - highest[:, -2] <= tolerance
        return (is_same | is_close).mean((1, 2))

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """None: classes have no distance."""
        return {}

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """Whether the outputs are probabilities already: a second softmax would squeeze them."""
        squash = squash_of(outputs)
        return None if squash is None else squash_warning(squash)

    def joined(self, batches: Iterable[np.ndarray], tiles: Tiles) -> np.ndarray:
        """The probability of each class but the first at each place of the photograph's map,
        (classes - 1, rows, columns) float16: tiles that overlap are blended without a seam, each
        counting the less the nearer to its own edge.
        """
        predictions = (each[1:] for batch in batches for each in batch)
        pairs = zip(predictions, tiles.boxes(), strict=True)
        seen = (self._seen(prediction, box) for prediction, box in pairs)
        return blended(seen, tiles, len(self.spec.classes) - 1)

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """Damage place by place, from what `joined` gives."""
        shape = predictions.shape[1:]
        mean = np.zeros(shape, np.float32)
        highest = np.full(shape, -1, np.float32)
        labels = np.zeros(shape, np.uint8)
        for place, name in enumerate(damage):
            layer = self._layer(predictions, name)
            mean += layer
            is_higher = layer > highest
            highest[is_higher] = layer[is_higher]
            labels[is_higher] = place
        mean = mean.clip(0, 1, out=mean)
        is_damaged = mean >= threshold
        damaged_tiles = 0
        for box in tiles.boxes():
            left, top, right, bottom = place_of(box, cell_of(tiles))
            damaged_tiles += bool(is_damaged[top:bottom, left:right].any())
        return Findings(
            mean=mean,
            peak=mean,
            labels=labels,
            names=tuple(damage),
            is_damaged=is_damaged,
            surest=float(mean.max()),
            tiles=damaged_tiles,
            edges=map_edges(tiles),
        )

    def _shape(self, count: int) -> tuple[int, int, int, int]:
        """The shape of the outputs of so many images."""
        return (count, len(self.spec.classes), *self.spec.size)

    def _layer(self, joined: np.ndarray, name: str) -> np.ndarray:
        """The probability of a class at each place (rows, columns) float32; sums of float16 may lie
        a little beside 0 to 1.
        """
        number = self.spec.classes.index(name)
        if number == 0:
            return (1 - joined.sum(0, dtype=np.float32)).clip(0, 1)
        return joined[number - 1].astype(np.float32).clip(0, 1)

    def _seen(self, predictions: np.ndarray, box: Box) -> np.ndarray:
        """The part of a tile's map (classes, height, width) that shows the tile, and no border
        around it.
        """
        if self.spec.resize != "pad":
            return predictions
        width = box[2] - box[0]
        height = box[3] - box[1]
        left, top, right, bottom = padded_box(width, height, self.spec.size)
        return predictions[:, top:bottom, left:right]


def decoder_of(spec: TaskSpec) -> Segmentation:
    """The decoder of a bundle. BundleError where it has a single class."""
    if len(spec.classes) < 2:
        raise BundleError("the manifest has one class", remedy="export the bundle again")
    return Segmentation(spec)


DEFINITION = DeviceDefinition(
    NAME,
    METRICS,
    decoder_of,
    targets_of,
    without_detection=(
        "pixels are called damaged, and no image or tile is: the metric recall counts pixels, and "
        "inspect takes their threshold; for a recall of tiles cut them (prunedge patches) and "
        "classify these"
    ),
    reads_masks=True,
    balances=("sampler",),
    samples_rare=True,
    has_focal=True,
    losses=("dice", "tversky", "boundary", "cldice"),
    usual_model="lraspp_mobilenet_v3_large",
    in_words="a segmentation model, which finds damage pixel by pixel",
)
