"""Which test images are worth a look: those that the result decides wrongly, worst first, and those
that lie nearest to its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunedge.data import Split
from prunedge.data.paths import written
from prunedge.runs.deciding import answers_in
from prunedge.runs.decision_record import CountsRecord, DecisionRecord, ShownRecord
from prunedge.tasks import Meter, Task
from prunedge.tasks.operating import counts_at, detection_of, scores_of, with_decision

MOST_WRONG = 24  # of the missed, and of the false alarms
MOST_BORDERLINE = 12
_SURE = 1e-12  # from 0 or 1: further out nothing is surer

# An image of the split and, where it may have several labels, which of them.
Place = tuple[int, int]


@dataclass(frozen=True)
class Decided:
    """What was decided of n images, each of `parts` by itself (one, without a name, where an image
    is damaged or sound as a whole).

    `scores` (n, parts) float64 are probabilities of damage, `is_damaged` (n, parts) bool the truth,
    and `was_called` (n, parts) bool what the unpruned model called damaged at its own threshold;
    None where that isn't known.
    """

    scores: np.ndarray
    is_damaged: np.ndarray
    threshold: float
    was_called: np.ndarray | None
    parts: tuple[str, ...] = ("",)

    @property
    def is_called(self) -> np.ndarray:
        """What is called damaged (n, parts) bool."""
        return np.asarray(self.scores >= self.threshold)


def gallery(
    task: Task, meters: Mapping[str, Meter], decisions: Mapping[str, Any], split: Split
) -> dict[str, list[dict[str, Any]]]:
    """The images of test.json's `wrong` (the missed first) and `borderline`, by the decisions of
    the models and their meters of the test split; {} where the result decides nothing.
    """
    if "best" not in decisions:
        return {}
    record = DecisionRecord(**decisions["best"])
    assert task.spec is not None
    detection = detection_of(task.spec)
    assert detection is not None
    is_damaged = detection.is_damaged(answers_in(task, meters["best"]).targets)
    count = len(split)
    was_called = None
    if "baseline" in decisions:
        before = DecisionRecord(**decisions["baseline"])
        was_called = _scores(task, meters["baseline"], before) >= before.threshold
    decided = Decided(
        scores=_scores(task, meters["best"], record),
        is_damaged=is_damaged.reshape(count, -1),
        threshold=record.threshold,
        was_called=was_called,
        parts=tuple(record.damage) if record.unit == "label" else ("",),
    )
    return gallery_of(decided, split)


def decided_on(
    places: Sequence[int], task: Task, meters: Mapping[str, Meter], decisions: Mapping[str, Any]
) -> dict[str, Any]:
    """What each decision finds and misses of these test images alone (`CountsRecord`), by the
    model's name and its meter of the whole split.
    """
    counts = {}
    for name, plain in decisions.items():
        record = DecisionRecord(**plain)
        assert task.spec is not None
        detection = detection_of(task.spec)
        assert detection is not None
        scores = _scores(task, meters[name], record)
        truth = detection.is_damaged(answers_in(task, meters[name]).targets)
        is_damaged = truth.reshape(scores.shape)
        found = counts_at(scores[places], is_damaged[places], record.threshold)
        counts[name] = CountsRecord(**asdict(found)).model_dump()
    return counts


def _scores(task: Task, meter: Meter, record: DecisionRecord) -> np.ndarray:
    """The probabilities of damage (n, parts) float64 of a model's answers."""
    assert task.spec is not None
    outputs = answers_in(task, meter).outputs
    scores = scores_of(with_decision(task.spec, record.decision), outputs)
    return scores.reshape(len(outputs), -1)


def worst(decided: Decided, *, missed: bool, most: int = MOST_WRONG) -> list[Place]:
    """The damage that was `missed`, or else the false alarms, the surest of them first."""
    called = decided.is_called
    wrong = decided.is_damaged & ~called if missed else ~decided.is_damaged & called
    return _ordered(wrong, -np.abs(_distance(decided)), most)


def borderline(decided: Decided, most: int = MOST_BORDERLINE) -> list[Place]:
    """Those nearest to the threshold, right or wrong."""
    return _ordered(np.ones_like(decided.is_damaged), np.abs(_distance(decided)), most)


def gallery_of(decided: Decided, split: Split) -> dict[str, list[dict[str, Any]]]:
    """The records of the images to show."""
    wrong = worst(decided, missed=True) + worst(decided, missed=False)
    return {
        "wrong": _records(wrong, decided, split),
        "borderline": _records(borderline(decided), decided, split),
    }


def _distance(decided: Decided) -> np.ndarray:
    """How far each score lies from the threshold, in log odds: 0.001 is surer than 0.01."""
    return _log_odds(decided.scores) - _log_odds(np.float64(decided.threshold))


def _log_odds(share: np.ndarray | np.float64) -> np.ndarray:
    inner = np.clip(share, _SURE, 1 - _SURE)
    return np.asarray(np.log(inner) - np.log1p(-inner))


def _ordered(chosen: np.ndarray, rank: np.ndarray, most: int) -> list[Place]:
    """The chosen places, those of the lowest rank first, equal ones in the images' order."""
    places = np.argwhere(chosen)
    order = np.argsort(rank[chosen], kind="stable")[:most]
    return [(int(image), int(part)) for image, part in places[order]]


def _records(places: Sequence[Place], decided: Decided, split: Split) -> list[dict[str, Any]]:
    records = []
    for image, part in places:
        sample = split.samples[image]
        was_called = decided.was_called
        record = ShownRecord(
            path=written(sample.path),
            label=_label_of(split, sample.target),
            part=decided.parts[part],
            is_damaged=bool(decided.is_damaged[image, part]),
            is_called=bool(decided.is_called[image, part]),
            was_called=None if was_called is None else bool(was_called[image, part]),
            probability=float(decided.scores[image, part]),
        )
        records.append(record.model_dump())
    return records


def _label_of(split: Split, target: Any) -> str:
    """What an image is labelled with, in words."""
    is_in = split.labelling.strata([target])[0] > 0
    names = [name for name, has in zip(split.labelling.strata_names, is_in, strict=True) if has]
    return " and ".join(names) or "none"
