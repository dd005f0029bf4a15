"""From which probability on damage is reported: what a user asks for, and what was chosen for one
model on validation images (by `prunedge.tasks.operating`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMS = 'write "recall >= 0.95", "alarms <= 0.02" or cost'
COST_FORM = "write miss=50,alarm=1"
MOST_METRICS = 100  # of levels of the user's own


class DamageSpec(BaseModel):
    """What a user says of damage: which `classes` are damage, where their names don't tell, and
    what a miss and a false alarm cost, in the same currency; None where he says nothing. `metrics`
    are those of a level of his own (`recall@alarms=0.03`), which are measured beside the task's
    usual ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    classes: tuple[str, ...] = ()
    miss: float | None = Field(default=None, gt=0)
    alarm: float | None = Field(default=None, gt=0)
    metrics: tuple[str, ...] = Field(default=(), max_length=MOST_METRICS)

    @property
    def costs(self) -> tuple[float, float] | None:
        """What a miss and a false alarm cost."""
        return None if self.miss is None or self.alarm is None else (self.miss, self.alarm)


NOTHING_SAID = DamageSpec()


def damage_named(classes: str | None, costs: str | None) -> DamageSpec:
    """What a user writes: classes with commas between them, and `miss=50,alarm=1`."""
    names = () if classes is None else tuple(name.strip() for name in classes.split(","))
    if costs is None:
        return DamageSpec(classes=names)
    miss, alarm = costs_in(costs)
    return DamageSpec(classes=names, miss=miss, alarm=alarm)


class Decision(BaseModel):
    """How one model's outputs become an answer.

    Outputs are divided by `temperature` before they become probabilities (Guo et al. 2017,
    arXiv:1706.04599): it is the one at which validation images are likeliest. There is damage where
    the classes `damage` have together (where an image may have several labels: each by itself) a
    probability of `threshold` at least; by the most probable answer where that is None. `rule` is
    what the threshold was chosen by, empty where nobody asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: str = ""
    damage: tuple[str, ...] = ()
    threshold: float | None = Field(default=None, gt=0, le=1)
    temperature: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class OperatingRule:
    """What an operating point has to keep: the largest threshold with a recall of `level` at least,
    the smallest with a share of false alarms of `level` at most, or the one at which misses and
    false alarms cost least (`miss` and `alarm`, each in the user's currency).
    """

    kind: Literal["recall", "alarms", "cost"]
    level: float = 0.0
    miss: float = 1.0
    alarm: float = 1.0

    def __str__(self) -> str:
        if self.kind == "recall":
            return f"recall>={self.level:g}"
        if self.kind == "alarms":
            return f"alarms<={self.level:g}"
        return f"cost(miss={self.miss:g},alarm={self.alarm:g})"


def rule_in(text: str, costs: tuple[float, float] | None = None) -> OperatingRule:
    """The rule that a user writes: `recall >= 0.95`, `alarms <= 2%`, or `cost`, which goes by the
    `costs` of a miss and of a false alarm. ValueError for anything else.
    """
    if text.strip() == "cost":
        if costs is None:
            raise ValueError("say what a miss and a false alarm cost: --cost miss=50,alarm=1")
        miss, alarm = costs
        return OperatingRule("cost", miss=miss, alarm=alarm)
    number = r"(-?\d+(?:\.\d*)?|-?\.\d+)"
    found = re.fullmatch(rf"\s*(recall\s*>=|alarms\s*<=)\s*{number}\s*(%?)\s*", text)
    if found is None:
        raise ValueError(FORMS)
    level = float(found[2]) / (100 if found[3] else 1)
    if found[1].startswith("recall"):
        if not 0 < level <= 1:
            raise ValueError(f"a recall of {level:g}: give a share above 0 and at most 1")
        return OperatingRule("recall", level)
    if not 0 <= level < 1:
        raise ValueError(f"alarms of {level:g}: give a share of the sound, from 0 to below 1")
    return OperatingRule("alarms", level)


def costs_in(text: str) -> tuple[float, float]:
    """What a miss and a false alarm cost, of `miss=50,alarm=1`. ValueError for anything else."""
    costs: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            costs[name.strip()] = float(value)
        except ValueError:
            raise ValueError(COST_FORM) from None
        if not equals:
            raise ValueError(COST_FORM)
    if set(costs) != {"miss", "alarm"} or len(text.split(",")) != 2:
        raise ValueError(COST_FORM)
    if not all(math.isfinite(cost) and cost > 0 for cost in costs.values()):
        raise ValueError("costs must be finite, and above 0")
    return costs["miss"], costs["alarm"]
