"""How good a model is on any labelled images: every metric with its interval, each class, what the
best constant answer scores, and what the model had seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.data.decode import Progress
from prunedge.data.judged import SIDES
from prunedge.data.paths import written
from prunedge.edge import open_bundle
from prunedge.edge.tasks.decision import Decision
from prunedge.errors import DataError, TrainError
from prunedge.runs.deciding import answers_in
from prunedge.runs.evaluation_images import evaluation_images, refuse_tile
from prunedge.runs.judged_model import JudgedModel, open_model
from prunedge.runs.leakage import Seen, seen_by
from prunedge.tasks import Meter, Metrics, Task
from prunedge.tasks.figures import Part
from prunedge.tasks.operating import Counts, counts_of, decided_part, detection_of
from prunedge.train.intervals import RESAMPLES, Estimate, Intervals, intervals_of
from prunedge.utils import trust
from prunedge.utils.arguments import require_path

MOST_RESAMPLES = 100_000


@dataclass(frozen=True)
class Decided:
    """A model's decision between damaged and sound, and what comes of it on the images: `unit` is
    what is counted.
    """

    decision: Decision
    counts: Counts
    unit: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.decision.model_dump(mode="json"), **asdict(self.counts), "unit": self.unit}


@dataclass(frozen=True)
class Evaluation:
    """What a model does on labelled images.

    `constant` is what always giving the answer `constant_answer` scores, by the metric's name, of
    the metrics that are defined here. `seen` is None of a bundle, which doesn't know its images;
    `decided` where nothing tells damaged from sound, or the images are all one of both.
    """

    title: str
    form: str
    data: str
    side: str
    task: str
    heading: str
    metric: str
    images: int
    loss: float
    intervals: Intervals
    constant: Mapping[str, float]
    constant_answer: str
    unreadable: Mapping[str, str]
    left_out: Mapping[str, int]
    missing: tuple[str, ...]
    has_sources: bool
    seen: Seen | None
    decided: Decided | None = None

    @property
    def judged(self) -> Estimate:
        """The metric that the model is judged by."""
        named = (one for one in self.intervals.metrics if one.metric.name == self.metric)
        return next(named)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: each figure with `value`, `low` and `high`, shares from 0 to 1."""
        found = self.intervals
        parts = {}
        for part in found.parts:
            figures = {one.metric.name: one.to_json() for one in part.estimates}
            parts[part.name] = {"support": part.support, **figures}
        seen = self.seen
        return {
            "model": self.title,
            "runtime": self.form,
            "data": self.data,
            "split": self.side,
            "task": self.task,
            "metric": self.metric,
            "images": self.images,
            "loss": self.loss,
            "metrics": {one.metric.name: one.to_json() for one in found.metrics},
            "classes": parts,
            "decision": None
            if self.decided is None or found.decided is None
            else {
                **self.decided.to_json(),
                **{one.metric.name: one.to_json() for one in found.decided.estimates},
            },
            "constant": {"answer": self.constant_answer, **self.constant},
            "intervals": {
                "confidence": found.confidence,
                "resamples": found.resamples,
                "groups": found.groups,
                "seed": found.seed,
            },
            "unreadable": dict(self.unreadable),
            "left_out": dict(self.left_out),
            "missing": list(self.missing),
            "seen": None
            if seen is None
            else {
                "training": seen.trained,
                "validation": seen.chosen,
                "alike": seen.alike,
                "unknown": list(seen.unknown),
            },
        }


def evaluate_on(
    place: Path | str,
    data: Path | str,
    *,
    target: str | None = None,
    step: int | None = None,
    baseline: bool = False,
    split: str | None = None,
    group_by: str | None = None,
    masks: Path | str | None = None,
    tile: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
    trust_code: bool = False,
) -> Evaluation:
    """Judge the model in a run's folder or a bundle's on labelled images: class folders, a CSV
    manifest or shards, or photographs with a folder of `masks`. They are decoded, resized and
    normalised as the model's own were, and their labels matched by name.

    Of a run it is the best model, the one after a `step` (as `show` numbers them), or the unpruned
    one (`baseline`); of a bundle its form for a `target` (`onnx-int8`), the first unless given.
    `split` is `test`, `val`, `train` or `all`: unless given, the test split of images that come
    with splits, else all; a run's own images, with its own masks and tiles, keep the sides that
    they have there. The intervals are those of `resamples` resamples of the images, drawn by
    `seed`; images of one source (`group_by`: see `prunedge.data.groups`) are drawn together.
    `tile` is the side of the squares that photographs with masks are cut into; a run's own unless
    given. `threads` is how many the model may use. On a `device` (`ssh://user@host`, with prunedge
    installed there) a bundle's answers are that machine's. `trust_code`: see `prunedge.load`.

    Gives an `Evaluation`: `judged` is the metric that the model is judged by, with `value`, `low`
    and `high` of its 95 % interval; `intervals` has all of them and those of each class. Raises
    DataError where images can't be read or compared, RunError and BundleError where there is no
    such model.

    Example: `pe.evaluate_on("runs/cracks", "other-bridge/").judged.value`
    """
    require_path("place", place)
    require_path("data", data)
    _refuse_wrong(split, resamples, seed)
    refuse_tile(tile)
    trust.trust_everything(trust_code)
    model = open_model(
        Path(place), target=target, step=step, baseline=baseline, threads=threads, device=device
    )
    images = evaluation_images(
        model,
        data,
        view=open_bundle(place).manifest.view if model.run is None else None,
        masks=masks,
        tile=tile,
        side=split,
        group_by=group_by,
        progress=progress,
    )
    meter = model.observe(images.split)
    try:
        metrics = meter.compute()
    except TrainError as error:
        raise TrainError(error.what, where=place, remedy=error.remedy) from None

    answer, scores = _constant(model.task, metrics, model.metric)
    decided, part = _decided(model, meter)
    return Evaluation(
        title=model.title,
        form=model.form,
        data=written(data),
        side=images.side,
        task=images.split.labelling.task,
        heading=images.split.labelling.heading,
        metric=model.metric,
        images=len(images.split),
        loss=metrics.loss,
        intervals=intervals_of(
            model.task, meter, images.sources, resamples=resamples, seed=seed, decided=part
        ),
        constant=scores,
        constant_answer=answer,
        unreadable=images.unreadable,
        left_out=images.left_out,
        missing=images.missing,
        has_sources=any(source is not None for source in images.sources),
        seen=None if model.run is None else seen_by(model.run, images.split),
        decided=decided,
    )


def _decided(
    model: JudgedModel, meter: Meter
) -> tuple[Decided | None, Callable[[np.ndarray], Part] | None]:
    """The model's decision with what comes of it, and the figures of it by the images' weights."""
    spec = model.task.spec
    assert spec is not None
    detection = detection_of(spec)
    decision = None if detection is None else model.decision()
    if detection is None or decision is None:
        return None, None
    answers = answers_in(model.task, meter)
    is_damaged = detection.is_damaged(answers.targets)
    if is_damaged.all() or not is_damaged.any():
        return None, None
    counts = counts_of(spec, decision, answers)
    return Decided(decision, counts, detection.unit), partial(decided_part, spec, decision, answers)


def _refuse_wrong(side: str | None, resamples: int, seed: int) -> None:
    """DataError for values that can't be followed."""
    if side is not None and side not in SIDES:
        raise DataError(
            f"there is no split '{side}'", where="--split", remedy=f"choose {', '.join(SIDES)}"
        )
    if not 1 <= resamples <= MOST_RESAMPLES:
        remedy = f"draw 1 to {MOST_RESAMPLES:,}"
        raise DataError(f"{resamples:,} resamples", where="--resamples", remedy=remedy)
    if not 0 <= seed < 2**64:
        raise DataError(f"a seed of {seed}", where="--seed", remedy="give one from 0 to 2^64 - 1")


def _constant(task: Task, metrics: Metrics, judged: str) -> tuple[str, dict[str, float]]:
    """The answer that does best by the metric that the model is judged by, and what the best
    constant answer scores by each metric that is defined here.
    """
    scores = {}
    for name, value in metrics.values.items():
        if value is not None:
            scores[name] = task.constant(metrics, name).score
    return task.answer_name(task.constant(metrics, judged).answer), scores
