"""Which threshold and temperature suit a model, by its outputs for validation images, and what
comes of them on others. Numpy alone, and pure.

Scores (m,) float64 are probabilities of damage, `is_damaged` (m,) bool the truth; what is counted
are images, or labels of images (`prunedge.edge.tasks.base.Detection`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.edge.tasks import DEFINITIONS, decoder_of
from prunedge.edge.tasks.base import Detection, TaskSpec
from prunedge.edge.tasks.by_class import USUAL_THRESHOLD
from prunedge.edge.tasks.damage import damage_among
from prunedge.edge.tasks.decision import Decision, OperatingRule
from prunedge.edge.tasks.metric import Metric
from prunedge.tasks.figures import PRECISION, RECALL, Figure, Part, ratio
from prunedge.utils.wording import counted

ALARMS = Metric("false alarms", higher_is_better=False)
COST = Metric("cost", higher_is_better=False, unit="")  # of an image, or of a label
COLDEST = 0.25  # temperatures that are tried
HOTTEST = 10.0
LONGEST_CURVE = 200  # thresholds
MANY_ALARMS = 0.5  # share of the sound, above which a recall is none to work with
FEW_ALARMS = 0.1


@dataclass(frozen=True)
class Counts:
    """What a threshold makes of the damaged (`found` or `missed`) and of the sound (called damaged:
    `alarms`; or not: `quiet`).
    """

    found: int
    missed: int
    alarms: int
    quiet: int

    @property
    def recall(self) -> float:
        """The share of the damaged that is found; NaN without any."""
        return self.found / (self.found + self.missed) if self.found + self.missed else np.nan

    @property
    def alarm_rate(self) -> float:
        """The share of the sound that is called damaged; NaN without any."""
        return self.alarms / (self.alarms + self.quiet) if self.alarms + self.quiet else np.nan


@dataclass(frozen=True)
class Answers:
    """What a model answered to images, and what is true: `outputs` (n, ...) float32, `targets` as a
    batch of them (`Targets.collate`).
    """

    outputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """What validation images choose for a model: its `decision`, the probabilities of damage
    `scores` (m,) float64 that it gives them then, and the truth `is_damaged` (m,) bool. `remark`
    says in words why the rule is none to work with; empty where it is, or nobody asked.
    """

    decision: Decision
    scores: np.ndarray
    is_damaged: np.ndarray
    remark: str = ""

    @property
    def counts(self) -> Counts:
        """What the decision finds and misses of these images."""
        return counts_at(self.scores, self.is_damaged, threshold_of(self.decision))


def damage_of(spec: TaskSpec) -> tuple[str, ...]:
    """The classes that are damage: those that the user names, or whose names tell; where an image
    may have none of them, all may be. () where nothing tells, or the task has no classes.
    """
    if DEFINITIONS[spec.name].detection is None:
        return ()
    decoder = decoder_of(spec)
    known = spec.damage.classes or decoder.damage or damage_among(spec.classes)
    return known or (spec.classes if decoder.allows_none else ())


def detection_of(spec: TaskSpec) -> Detection | None:
    """How damage is told from what is sound; None where nothing says which classes are damage."""
    make = DEFINITIONS[spec.name].detection
    damage = damage_of(spec)
    return make(spec, damage) if make is not None and damage else None


def with_decision(spec: TaskSpec, decision: Decision | None) -> TaskSpec:
    """The spec of a model that decides so."""
    return spec.model_copy(update={"decision": decision})


def decide(spec: TaskSpec, answers: Answers, rule: OperatingRule | None) -> Chosen | None:
    """What a model's `answers` to validation images choose: its temperature, and by a `rule` its
    threshold. None where the task or the classes' names tell nothing of damage, or all of these
    images are damaged, or none is.
    """
    detection = detection_of(spec)
    if detection is None:
        return None
    is_damaged = detection.is_damaged(answers.targets)
    if is_damaged.all() or not is_damaged.any():
        return None
    damage = damage_of(spec)
    temperature = best_temperature(spec, answers)
    decision = Decision(damage=damage, temperature=temperature)
    scores = scores_of(with_decision(spec, decision), answers.outputs)
    if rule is None:
        return Chosen(decision, scores, is_damaged)
    threshold = threshold_for(scores, is_damaged, rule)
    decision = decision.model_copy(update={"rule": str(rule), "threshold": threshold})
    remark = remark_on(scores, is_damaged, rule, detection.unit)
    return Chosen(decision, scores, is_damaged, remark)


def scores_of(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The probabilities of damage that a model with this decision gives."""
    detection = detection_of(spec)
    assert detection is not None
    return detection.scores(decoder_of(spec).decode(outputs.astype(np.float64)))


def scored(spec: TaskSpec, decision: Decision, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of damage that a decision gives, and the truth."""
    detection = detection_of(spec)
    assert detection is not None
    scores = scores_of(with_decision(spec, decision), answers.outputs)
    return scores, detection.is_damaged(answers.targets)


def best_temperature(spec: TaskSpec, answers: Answers) -> float:
    """The temperature from `COLDEST` to `HOTTEST` at which the truth is likeliest (Guo et al. 2017,
    equation 9 and section 4.2). 1 where the likelihood only grows as outputs do, as it does where
    every answer is right: then it knows of none.
    """
    # A tenth of a second to import.
    from scipy.optimize import minimize_scalar

    detection = detection_of(spec)
    assert detection is not None

    def surprise(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        cooled = with_decision(spec, Decision(temperature=temperature))
        predictions = decoder_of(cooled).decode(answers.outputs.astype(np.float64))
        likelihoods = detection.likelihoods(predictions, answers.targets)
        return float(-np.log(np.maximum(likelihoods, 1e-300)).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    if temperature < COLDEST * 1.01:
        return 1.0
    return float(f"{temperature:.4g}")


def threshold_for(scores: np.ndarray, is_damaged: np.ndarray, rule: OperatingRule) -> float:
    """The threshold that a rule asks for, halfway between the scores on both sides of it."""
    thresholds, found, alarms = _every_threshold(scores, is_damaged)
    damaged = int(is_damaged.sum())
    sound = int((~is_damaged).sum())
    if rule.kind == "recall":
        # Nothing but zeros can't be called damaged by any threshold.
        reached = np.flatnonzero(found >= rule.level * damaged - 1e-9)
        place = int(reached[0]) if len(reached) else len(found) - 1
    elif rule.kind == "alarms":
        few = np.flatnonzero(alarms <= rule.level * sound + 1e-9)
        place = int(few[-1]) if len(few) else 0
    else:
        costs = rule.miss * (damaged - found) + rule.alarm * alarms
        # Of equal costs the one that finds most.
        place = int(np.flatnonzero(costs <= costs.min() + 1e-9)[-1])
    return float(thresholds[place])


def counts_at(scores: np.ndarray, is_damaged: np.ndarray, threshold: float) -> Counts:
    """What a threshold finds and misses."""
    is_called = scores >= threshold
    return Counts(
        found=int((is_called & is_damaged).sum()),
        missed=int((~is_called & is_damaged).sum()),
        alarms=int((is_called & ~is_damaged).sum()),
        quiet=int((~is_called & ~is_damaged).sum()),
    )


def counts_of(spec: TaskSpec, decision: Decision, answers: Answers) -> Counts:
    """What a decision finds and misses by these answers."""
    return counts_at(*scored(spec, decision, answers), threshold_of(decision))


def decided_part(spec: TaskSpec, decision: Decision, answers: Answers, weights: np.ndarray) -> Part:
    """Recall, false alarms and precision of a decision, and what it costs where the spec knows what
    a miss and a false alarm cost, where each of n images counts as often as `weights` (rows, n)
    say.
    """
    scores, is_damaged = scored(spec, decision, answers)
    is_called = scores >= threshold_of(decision)
    each = np.repeat(weights, len(scores) // weights.shape[1], axis=1)  # of each label of an image
    found = each @ (is_called & is_damaged)
    alarms = each @ (is_called & ~is_damaged)
    images = weights.shape[1]
    figures = [
        Figure(RECALL, ratio(found, each @ is_damaged), _any_of(is_damaged, images)),
        Figure(ALARMS, ratio(alarms, each @ ~is_damaged), _any_of(~is_damaged, images)),
        Figure(PRECISION, ratio(found, found + alarms), _any_of(is_called, images)),
    ]
    if spec.damage.costs is not None:
        miss, alarm = spec.damage.costs
        missed = each @ (~is_called & is_damaged)
        figures.append(Figure(COST, ratio(miss * missed + alarm * alarms, each.sum(1))))
    return Part(decision.rule, int(is_damaged.sum()), tuple(figures))


def _any_of(chosen: np.ndarray, images: int) -> np.ndarray:
    """Which images have any of the `chosen` (m,) decisions, (images,) bool."""
    return np.asarray(chosen.reshape(images, -1).any(1))


def remark_on(
    scores: np.ndarray, is_damaged: np.ndarray, rule: OperatingRule, unit: str = "image"
) -> str:
    """Why a rule is none to work with on validation data, in words, with what can be had; empty
    where it is. `unit` is what is decided.
    """
    counts = counts_at(scores, is_damaged, threshold_for(scores, is_damaged, rule))
    damaged = counts.found + counts.missed
    if rule.kind == "recall" and counts.alarm_rate > MANY_ALARMS:
        most = OperatingRule("alarms", FEW_ALARMS)
        other = counts_at(scores, is_damaged, threshold_for(scores, is_damaged, most))
        return (
            f"a recall of {rule.level:g} takes false alarms on {counts.alarm_rate:.0%} of the "
            f"sound {unit}s of the validation split; on {FEW_ALARMS:.0%} of them it would be "
            f"{other.recall:.0%}"
        )
    if rule.kind == "recall" and damaged * (1 - rule.level) < 1 and rule.level < 1:
        return (
            f"the validation split has {counted(damaged, f'damaged {unit}')}: too few to tell a "
            f"recall of {rule.level:g} from 1"
        )
    if rule.kind == "alarms" and counts.alarm_rate > rule.level + 1e-9:
        return (
            f"no threshold keeps false alarms to {rule.level:.2%} of the sound {unit}s of the "
            f"validation split: {counts.alarm_rate:.0%} of them are as surely damaged as any"
        )
    if rule.kind == "alarms" and counts.found == 0:
        return (
            f"nothing is found with false alarms on at most {rule.level:.2%} of the sound {unit}s "
            "of the validation split"
        )
    if rule.kind == "cost" and (counts.found == 0 or counts.quiet == 0):
        which = "nothing" if counts.found == 0 else f"every {unit}"
        return (
            f"where a miss costs {rule.miss:g} and a false alarm {rule.alarm:g}, it costs least on "
            f"the validation split to call {which} damaged"
        )
    return ""


def curve_of(
    scores: np.ndarray, is_damaged: np.ndarray
) -> tuple[Sequence[float], Sequence[int], Sequence[int]]:
    """Thresholds from the highest down, and how many damaged and sound ones each calls damaged; at
    most `LONGEST_CURVE` of them, at even steps among all.
    """
    thresholds, found, alarms = _every_threshold(scores, is_damaged)
    chosen = np.unique(np.linspace(0, len(thresholds) - 1, LONGEST_CURVE).round().astype(int))
    return thresholds[chosen].tolist(), found[chosen].tolist(), alarms[chosen].tolist()


def threshold_of(decision: Decision) -> float:
    """The threshold of a decision, the usual one where it has none."""
    return USUAL_THRESHOLD if decision.threshold is None else decision.threshold


def _every_threshold(
    scores: np.ndarray, is_damaged: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, from one that calls nothing damaged down to one that
    calls everything so (as far as thresholds above 0 and up to 1 can), and how many damaged and
    sound ones each calls damaged.
    """
    levels, places = np.unique(scores, return_inverse=True)
    found = np.bincount(places, is_damaged, len(levels))[::-1].cumsum().astype(int)
    alarms = np.bincount(places, ~is_damaged, len(levels))[::-1].cumsum().astype(int)
    levels = levels[::-1]
    below = np.append(levels[1:], 0.0)
    between = (levels + below) / 2
    # Of neighbouring numbers the middle is one of them.
    thresholds = np.where(between <= below, levels, between)

    above = (levels[0] + 1) / 2
    if above > levels[0]:
        thresholds = np.append(above, thresholds)
        found = np.append(0, found)
        alarms = np.append(0, alarms)
    is_possible = thresholds > 0
    return thresholds[is_possible], found[is_possible], alarms[is_possible]
