"""How each model of a run decides between damaged and sound: chosen on the validation split, and
what comes of it on the test split.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.by_class import USUAL_THRESHOLD
from prunedge.edge.tasks.decision import Decision, OperatingRule
from prunedge.errors import DataError
from prunedge.runs.decision_record import (
    CalibrationErrorRecord,
    CountsRecord,
    CurveRecord,
    DecisionRecord,
    ReliabilityRecord,
)
from prunedge.tasks import Meter, Task
from prunedge.tasks import operating as of
from prunedge.utils.advice import option

log = logging.getLogger(__name__)


def answers_in(task: Task, meter: Meter) -> of.Answers:
    """What a meter has taken in."""
    return of.Answers(*task.kept(meter))


def decision_on(task: Task, meter: Meter, rule: OperatingRule | None) -> Decision | None:
    """The decision of a model by its meter of the validation split; None where nothing tells
    damaged from sound. A line says where the rule is none to work with.
    """
    assert task.spec is not None
    detection = of.detection_of(task.spec)
    if detection is None:
        if rule is not None:
            raise DataError(
                f"nothing tells damage from what is sound ({', '.join(task.spec.classes)})",
                where=option("operate"),
                remedy=f"say which classes are damage: {option('damage', 'CLASS,...')}",
            )
        return None
    answers = answers_in(task, meter)
    decision = of.decide(task.spec, answers, rule)
    if decision is not None and rule is not None:
        scored = of.scored(task.spec, decision, answers)
        remark = of.remark_on(*scored, rule, detection.unit)
        if remark:
            log.warning("mind: %s", remark)
    return decision


def decision_record(
    task: Task, validation: Meter, test: Meter, rule: OperatingRule | None
) -> dict[str, Any] | None:
    """A `DecisionRecord` of a model, by its meters of both splits; None where nothing tells damaged
    from sound, or one of the splits lacks one of both.
    """
    decision = decision_on(task, validation, rule)
    if decision is None:
        return None
    assert task.spec is not None
    of_validation = _Scored.by(task.spec, decision, answers_in(task, validation))
    of_test = _Scored.by(task.spec, decision, answers_in(task, test))
    if of_test.is_damaged.all() or not of_test.is_damaged.any():
        return None
    threshold = of.threshold_of(decision)
    remark = ""
    if rule is not None:
        remark = of.remark_on(
            of_validation.scores, of_validation.is_damaged, rule, of_validation.unit
        )
    thresholds, found, alarms = of.curve_of(of_test.scores, of_test.is_damaged)
    bins = of.reliability_of(of_test.scores, of_test.is_damaged)
    return DecisionRecord(
        rule=decision.rule,
        damage=list(decision.damage),
        threshold=threshold,
        temperature=decision.temperature,
        unit=of_test.unit,
        validation=of_validation.counts(threshold),
        test=of_test.counts(threshold),
        usual=of_test.counts(USUAL_THRESHOLD),
        validation_error=of_validation.calibration_error(),
        test_error=of_test.calibration_error(),
        curve=CurveRecord(thresholds=list(thresholds), found=list(found), alarms=list(alarms)),
        reliability=[
            ReliabilityRecord(count=count, predicted=predicted, damaged=damaged)
            for count, predicted, damaged in bins
        ],
        confusion=of_test.confusion,
        note=remark,
    ).model_dump()


@dataclass(frozen=True)
class _Scored:
    """A model's answers to a split: `scores` (m,) float64 with the temperature of its decision,
    `raw` without, the truth, and the confusion of the answers.
    """

    unit: Literal["image", "label"]
    scores: np.ndarray
    raw: np.ndarray
    is_damaged: np.ndarray
    confusion: list[list[int]] | None

    @classmethod
    def by(cls, spec: TaskSpec, decision: Decision, answers: of.Answers) -> _Scored:
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
        counts = of.counts_at(self.scores, self.is_damaged, threshold)
        return CountsRecord(
            found=counts.found, missed=counts.missed, alarms=counts.alarms, quiet=counts.quiet
        )

    def calibration_error(self) -> CalibrationErrorRecord:
        """Without the temperature, and with it."""
        return CalibrationErrorRecord(
            raw=of.calibration_error(self.raw, self.is_damaged),
            calibrated=of.calibration_error(self.scores, self.is_damaged),
        )
