"""How a model of a run decides between damaged and sound, and what comes of it on the test split:
what test.json holds under `decisions`, by the model's name (`baseline`, `start`, `best`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from prunedge.edge.tasks.decision import Decision
from prunedge.utils.records import Record

Share = Annotated[float, Field(ge=0, le=1)]


class CountsRecord(Record):
    """What is found and missed among the damaged, and how many of the sound are called damaged
    (`alarms`) or not (`quiet`).
    """

    found: NonNegativeInt
    missed: NonNegativeInt
    alarms: NonNegativeInt
    quiet: NonNegativeInt


class CurveRecord(Record):
    """What other thresholds would find: how many damaged and sound ones have at least each of these
    probabilities of damage, from the highest threshold down.
    """

    thresholds: list[float]
    found: list[NonNegativeInt]
    alarms: list[NonNegativeInt]

    @model_validator(mode="after")
    def _lists_are_as_long(self) -> Self:
        if not len(self.thresholds) == len(self.found) == len(self.alarms):
            raise ValueError("its lists differ in length")
        return self


class ReliabilityRecord(Record):
    """A tenth of the probabilities of damage: how many images have one of these, the mean of it,
    and the share of them that are damaged.
    """

    count: NonNegativeInt
    predicted: Share
    damaged: Share


class CalibrationErrorRecord(Record):
    """The expected calibration error of the probability of damage, as the model gives it and after
    the temperature.
    """

    raw: Share
    calibrated: Share


class CostRecord(Record):
    """What misses and false alarms cost a decision (of an image, or of a label) on the test split
    at the threshold that validation images chose, where each costs so much: the mean, and the
    bounds of its 95 % interval (`prunedge.runs.decision_rates.cost`).
    """

    miss: PositiveFloat
    alarm: PositiveFloat
    value: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat


class DecisionRecord(Record):
    """The decision of one model. `rule` is what the user asked for (`recall>=0.95`), empty where
    nothing was. `unit` is what is counted: images, or, where an image may have several labels, each
    label of each image. `usual` are the counts on the test split without a rule, by the most
    probable answer. `confusion[true][answered]` counts the images of the test split by class at
    this threshold; None where an image may have several labels. `cost` is None where nobody said
    what a miss and a false alarm cost. `note` says where the rule could not be kept.
    """

    rule: str
    damage: list[str] = Field(min_length=1)
    threshold: Share
    temperature: PositiveFloat
    unit: Literal["image", "label"]
    validation: CountsRecord
    test: CountsRecord
    usual: CountsRecord
    validation_error: CalibrationErrorRecord
    test_error: CalibrationErrorRecord
    curve: CurveRecord
    reliability: list[ReliabilityRecord]
    confusion: list[list[NonNegativeInt]] | None = None
    cost: CostRecord | None = None
    note: str = ""

    @property
    def decision(self) -> Decision:
        """The same as a bundle has it: a threshold only where a rule has chosen one."""
        return Decision(
            rule=self.rule,
            damage=tuple(self.damage),
            threshold=self.threshold if self.rule else None,
            temperature=self.temperature,
        )


class ShownRecord(Record):
    """A test image that is worth a look: what it is labelled with, the probability of damage, and
    whether it is damaged and called so, by the result and by the unpruned model (`was_called`; None
    where that isn't known). `part` is the label that was decided, where an image may have several.
    """

    path: str
    label: str
    part: str
    is_damaged: bool
    is_called: bool
    was_called: bool | None
    probability: Share
