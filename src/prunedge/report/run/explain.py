"""Where the result looked: by how much the probability of damage falls when a part of an image is
hidden (occlusion, Zeiler & Fergus 2014, by captum).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image
from torch import nn

from prunedge.data.decode import source_of
from prunedge.edge.image.normalise import normalise, statistics
from prunedge.edge.image.read import Greys, parse_range, read_image
from prunedge.edge.image.size import Size
from prunedge.errors import PrunedgeError
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.runs.decision_record import DecisionRecord, ShownRecord
from prunedge.runs.run import Run
from prunedge.runs.task import task_of
from prunedge.tasks.operating import scores_of, with_decision

WINDOW = 4  # times smaller than the image is what hides a part of it
STEPS = 2  # of the window from one place to one beside it
PLACES = ((WINDOW - 1) * STEPS + 1) ** 2
# What all heat maps may cost: some seconds of one core.
MOST_MACS = 1e12
MOST_IMAGES = 36
FAINT = 0.02  # change of the probability, below which an image has no part that matters
AT_ONCE = 16
SHOWN_SIDE = 160  # pixels
FOR = np.array([179, 38, 30], np.float32)  # what speaks for damage
AGAINST = np.array([11, 110, 153], np.float32)
STRONGEST = 0.65  # how much of a colour the part that matters most gets

# An image's path and the label of it that was decided.
Key = tuple[str, str]
Score = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Explanation:
    """Images with a heat map upon them, and a line about these: how they were made, or what they
    take.
    """

    line: str = ""
    images: Mapping[Key, Image.Image] = field(default_factory=dict)


def explain(
    run: Run, decision: DecisionRecord, images: Mapping[str, Sequence[ShownRecord]]
) -> Explanation:
    """Heat maps of these images, as far as their cost allows, those of each kind in turn."""
    if not any(images.values()):
        return Explanation()
    if find_spec("captum") is None:
        return Explanation(
            "Where the model looked is shown where captum is installed: pip install "
            "'prunedge[explain]', and write the report again"
        )
    most = min(MOST_IMAGES, int(MOST_MACS / (run.best().macs * (PLACES + 1))))
    chosen = in_turn(list(images.values()), most)
    made = {}
    try:
        model = run.load()
        for record in chosen:
            image = _explained(run, model, decision, record)
            if image is not None:
                made[record.path, record.part] = image
    except PrunedgeError as error:
        return Explanation(f"Where the model looked can't be shown: {error.what}")
    return Explanation(
        "Below each image is where the pruned model looked: hiding what is red makes damage less "
        "probable, hiding what is blue more (occlusion by grey squares of a quarter of a side; "
        "images of which no part changes it by 2 points, and those that would take too long, "
        "have none)",
        made,
    )


def in_turn(kinds: Sequence[Sequence[ShownRecord]], most: int) -> list[ShownRecord]:
    """The first of each kind, then the second of each, and so on: so many of them."""
    listed: dict[Key, ShownRecord] = {}
    for place in range(max(map(len, kinds), default=0)):
        for records in kinds:
            if place < len(records):
                listed[records[place].path, records[place].part] = records[place]
    return list(listed.values())[: max(most, 0)]


def heat_map(score: Score, inputs: torch.Tensor) -> np.ndarray:
    """By how much the score (n,) of inputs (1, channels, height, width) falls when a part is grey,
    on average over the windows that hold it: (height, width) float32.
    """
    # Two seconds to import.
    from captum.attr import Occlusion

    channels, height, width = inputs.shape[1:]
    window = (channels, max(1, height // WINDOW), max(1, width // WINDOW))
    stride = (channels, max(1, window[1] // STEPS), max(1, window[2] // STEPS))
    heat = Occlusion(score).attribute(
        inputs,
        sliding_window_shapes=window,
        strides=stride,
        baselines=0.0,  # the mean colour of the images that the model began with
        perturbations_per_eval=AT_ONCE,
    )
    return np.asarray(heat[0].mean(0).numpy(), np.float32)


def is_faint(heat: np.ndarray) -> bool:
    """Whether no part of an image changes the probability enough to be shown."""
    return float(np.abs(heat).max()) < FAINT


def overlaid(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """An image in grey, with what speaks for damage in red and against it in blue."""
    scaled = heat / max(float(np.abs(heat).max()), FAINT)
    weights = np.asarray(
        Image.fromarray(scaled).resize(image.size, Image.Resampling.BILINEAR), np.float32
    )
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    colour = np.where(weights[..., None] > 0, FOR, AGAINST)
    share = STRONGEST * np.abs(weights)[..., None]
    return Image.fromarray((grey * (1 - share) + colour * share).round().astype(np.uint8))


def _explained(
    run: Run, model: nn.Module, decision: DecisionRecord, record: ShownRecord
) -> Image.Image | None:
    """An image as the model sees it, with its heat map; None where it can't be read any more, or no
    part of it matters.
    """
    data = run.config.data
    spec = task_of(run.config).spec
    assert spec is not None
    greys = None if data.range is None else Greys(*parse_range(data.range), mixed=True)
    try:
        seen = read_image(source_of(record.path), spec.size, greys, spec.resize, spec.in_channels)
        # As sharp as the gallery's other images.
        shown = read_image(
            source_of(record.path), scaled(spec.size, SHOWN_SIDE), greys, spec.resize
        )
    except (PrunedgeError, FileNotFoundError):
        return None
    pixels = normalise(seen[None], *statistics(data.image_norm, spec.in_channels))
    heat = heat_map(_score(run, model, decision, record.part), torch.from_numpy(pixels))
    return None if is_faint(heat) else overlaid(Image.fromarray(shown), heat)


def scaled(size: Size, longer: int) -> Size:
    """A size of the same shape whose longer side is this."""
    factor = longer / max(size)
    return Size(max(1, round(size.height * factor)), max(1, round(size.width * factor)))


def _score(run: Run, model: nn.Module, decision: DecisionRecord, part: str) -> Score:
    """What a model's probability of damage is, or of that label."""
    task = task_of(run.config)
    assert task.spec is not None
    spec = with_decision(task.spec, decision.decision)
    place = decision.damage.index(part) if part else 0

    def score(inputs: torch.Tensor) -> torch.Tensor:
        with evaluating(model), torch.no_grad(), full_float32():
            outputs = task.outputs_of(model(inputs)).float().numpy()
        return torch.from_numpy(scores_of(spec, outputs).reshape(len(outputs), -1)[:, place])

    return score
