"""How each model of a run decides between damaged and sound: chosen on the validation split, and
what comes of it on the test split.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prunedge.edge.tasks import DEFINITIONS, decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.by_class import USUAL_THRESHOLD
from prunedge.edge.tasks.decision import Decision, OperatingRule
from prunedge.errors import DataError
from prunedge.runs.decision_rates import cost
from prunedge.runs.decision_record import (
    CalibrationErrorRecord,
    CountsRecord,
    CurveRecord,
    DecisionRecord,
    ReliabilityRecord,
)
from prunedge.tasks import Meter, Task
from prunedge.tasks import operating as of
from prunedge.tasks.calibration import calibration_error, reliability_of
from prunedge.utils.advice import option

log = logging.getLogger(__name__)


def answers_in(task: Task, meter: Meter) -> of.Answers:
    """What a meter has taken in."""
    return of.Answers(*task.kept(meter))


def refuse_undecided(spec: TaskSpec, rule: OperatingRule | None) -> None:
    """DataError where there is a rule, and the task or its classes' names tell nothing of damage
    that it could be kept for.
    """
    if rule is None or of.detection_of(spec) is not None:
        return
    definition = DEFINITIONS[spec.name]
    if definition.detection is None:
        raise DataError(
            f"{option('operate')} can't be had with {option('task', spec.name)}",
            where=rule,
            remedy=definition.without_detection,
        )
    raise DataError(
        f"nothing tells damage from what is sound ({', '.join(spec.classes)})",
        where=option("operate"),
        remedy=f"say which classes are damage: {option('damage', 'CLASS,...')}",
    )


def chosen_on(task: Task, meter: Meter, rule: OperatingRule | None) -> of.Chosen | None:
    """What a model's meter of the validation split chooses: its decision, with the scores that it
    gives these images and what is to be said of the rule; None where nothing tells damaged from
    sound.
    """
    assert task.spec is not None
    refuse_undecided(task.spec, rule)
    if of.detection_of(task.spec) is None:
        return None
    return of.decide(task.spec, answers_in(task, meter), rule)


def chosen_aloud(task: Task, meter: Meter, rule: OperatingRule | None) -> of.Chosen | None:
    """The same, and a line that says where the rule is none to work with."""
    chosen = chosen_on(task, meter, rule)
    if chosen is not None and chosen.remark:
        log.warning("mind: %s", chosen.remark)
    return chosen


def decision_record(
    task: Task, validation: Meter, test: Meter, rule: OperatingRule | None
) -> dict[str, Any] | None:
    """A `DecisionRecord` of a model, by its meters of both splits; None where nothing tells damaged
    from sound, or one of the splits lacks one of both. Its `note` says where the rule is none to
    work with.
    """
    chosen = chosen_on(task, validation, rule)
    if chosen is None:
        return None
    assert task.spec is not None
    decision = chosen.decision
    of_test = _Tested.by(task.spec, decision, answers_in(task, test))
    if of_test.is_damaged.all() or not of_test.is_damaged.any():
        return None
    threshold = of.threshold_of(decision)
    counts = of_test.counts(threshold)
    costs = task.spec.damage.costs
    thresholds, found, alarms = of.curve_of(of_test.scores, of_test.is_damaged)
    bins = reliability_of(of_test.scores, of_test.is_damaged)
    raw = of.scores_of(of.with_decision(task.spec, None), answers_in(task, validation).outputs)
    return DecisionRecord(
        rule=decision.rule,
        damage=list(decision.damage),
        threshold=threshold,
        temperature=decision.temperature,
        unit=of_test.unit,
        validation=_recorded(chosen.counts),
        test=counts,
        usual=of_test.counts(USUAL_THRESHOLD),
        validation_error=_errors(raw, chosen.scores, chosen.is_damaged),
        test_error=_errors(of_test.raw, of_test.scores, of_test.is_damaged),
        curve=CurveRecord(thresholds=list(thresholds), found=list(found), alarms=list(alarms)),
        reliability=[
            ReliabilityRecord(count=count, predicted=predicted, damaged=damaged)
            for count, predicted, damaged in bins
        ],
        confusion=of_test.confusion,
        cost=None if costs is None else cost(counts, *costs),
        note=chosen.remark,
    ).model_dump()


@dataclass(frozen=True)
class _Tested:
    """A model's answers to the test split: `scores` (m,) float64 with the temperature of its
    decision, `raw` without, the truth, and the confusion of the answers.
    """

    unit: Literal["image", "label"]
    scores: np.ndarray
    raw: np.ndarray
    is_damaged: np.ndarray
    confusion: list[list[int]] | None

    @classmethod
    def by(cls, spec: TaskSpec, decision: Decision, answers: of.Answers) -> _Tested:
        """The answers as this decision makes them."""
        decided = of.with_decision(spec, decision)
        detection = of.detection_of(decided)
        assert detection is not None
        outputs = answers.outputs.astype(np.float64)
        predictions = decoder_of(decided).decode(outputs)
        confusion = detection.confusion(predictions, answers.targets)
        return cls(
            unit=detection.unit,
            scores=detection.scores(predictions),
            raw=of.scores_of(of.with_decision(spec, None), outputs),
            is_damaged=detection.is_damaged(answers.targets),
            confusion=None if confusion is None else confusion.tolist(),
        )

    def counts(self, threshold: float) -> CountsRecord:
        """What a threshold finds and misses."""
        return _recorded(of.counts_at(self.scores, self.is_damaged, threshold))


def _recorded(counts: of.Counts) -> CountsRecord:
    return CountsRecord(
        found=counts.found, missed=counts.missed, alarms=counts.alarms, quiet=counts.quiet
    )


def _errors(raw: np.ndarray, scores: np.ndarray, is_damaged: np.ndarray) -> CalibrationErrorRecord:
    """The expected calibration errors without the temperature (`raw`), and with it."""
    return CalibrationErrorRecord(
        raw=calibration_error(raw, is_damaged), calibrated=calibration_error(scores, is_damaged)
    )
