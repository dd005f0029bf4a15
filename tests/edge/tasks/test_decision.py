"""What a user asks for, and what a decision makes of a model's outputs on the device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import Decision, OperatingRule, costs_in, rule_in
from prunedge.errors import DataError

SPEC = TaskSpec(name="classification", classes=("crack", "spall", "sound"), size=(8, 8))
DAMAGE = ("crack", "spall")


def decided_by(threshold: float | None, task: str = "classification", temperature: float = 1.0):
    decision = Decision(damage=DAMAGE, threshold=threshold, temperature=temperature)
    return decoder_of(SPEC.model_copy(update={"name": task, "decision": decision}))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("recall >= 0.95", OperatingRule("recall", 0.95)),
        ("recall>=95%", OperatingRule("recall", 0.95)),
        (" alarms <= .02 ", OperatingRule("alarms", 0.02)),
        ("alarms<=0", OperatingRule("alarms", 0.0)),
    ],
)
def test_a_rule_is_read_as_it_is_written(text: str, rule: OperatingRule) -> None:
    assert rule_in(text) == rule
    assert rule_in(str(rule)) == rule


def test_a_rule_of_cost_knows_what_misses_and_alarms_cost() -> None:
    assert rule_in("cost", costs_in("miss=50, alarm=1")) == OperatingRule("cost", miss=50, alarm=1)


@pytest.mark.parametrize(
    "text", ["recall", "recall <= 0.9", "alarms >= 0.1", "recall >= 1.2", "alarms <= 1", "", "f1"]
)
def test_another_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|give"):
        rule_in(text)


def test_a_rule_of_cost_needs_costs() -> None:
    with pytest.raises(ValueError, match="--cost miss=50,alarm=1"):
        rule_in("cost")


@pytest.mark.parametrize("text", ["miss=50", "miss=1,alarm=0", "miss=x,alarm=1", "a=1,b=2", "1,2"])
def test_other_costs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"miss=50,alarm=1|above 0"):
        costs_in(text)


def test_damage_of_a_spec_must_be_its_classes() -> None:
    with pytest.raises(ValidationError, match="no class is called 'rust'"):
        TaskSpec(**{**SPEC.model_dump(), "decision": Decision(damage=("rust",), threshold=0.5)})


def test_damage_is_answered_from_the_threshold_on() -> None:
    outputs = np.log(np.array([[0.2, 0.1, 0.7], [0.15, 0.04, 0.81]], np.float32))
    usual = decided_by(None)
    careful = decided_by(0.25)
    assert usual.answers(usual.decode(outputs)) == ["sound", "sound"]
    assert careful.answers(careful.decode(outputs)) == ["crack", "sound"]


def test_what_is_surely_called_sound_is_not_damage_by_the_surest_class() -> None:
    outputs = np.log(np.array([[0.45, 0.15, 0.4]], np.float32))
    bold = decided_by(0.7)
    assert bold.answers(bold.decode(outputs)) == ["sound"]


@given(st.floats(0.3, 5.0))
def test_a_temperature_softens_probabilities_and_leaves_the_answer(temperature: float) -> None:
    outputs = np.random.default_rng(0).normal(0, 3, (20, 3)).astype(np.float32)
    plain = decided_by(None)
    cooled = decided_by(None, temperature=temperature)
    expected = plain.decode(outputs / np.float32(temperature))
    np.testing.assert_allclose(cooled.decode(outputs), expected, rtol=1e-5)
    assert cooled.answers(cooled.decode(outputs)) == plain.answers(plain.decode(outputs))


@pytest.mark.parametrize("task", ["classification", "ordinal", "multilabel"])
def test_outputs_agree_with_themselves_at_any_threshold(task: str) -> None:
    decoder = decided_by(0.23, task, temperature=1.7)
    outputs = np.random.default_rng(1).normal(0, 2, (50, 2 if task == "ordinal" else 3))
    outputs = outputs.astype(np.float32)
    assert decoder.agreement(outputs, outputs, 0.0).all()


@pytest.mark.parametrize("task", ["classification", "ordinal", "multilabel"])
def test_agreement_is_that_of_the_answers(task: str) -> None:
    decoder = decided_by(0.3, task, temperature=0.7)
    generator = np.random.default_rng(2)
    wanted = generator.normal(0, 1, (300, 2 if task == "ordinal" else 3)).astype(np.float32)
    outputs = (wanted + generator.normal(0, 0.7, wanted.shape)).astype(np.float32)
    given_answers = decoder.answers(decoder.decode(outputs))
    wanted_answers = decoder.answers(decoder.decode(wanted))
    same = [one == other for one, other in zip(given_answers, wanted_answers, strict=True)]
    assert 0.2 < np.mean(same) < 0.95
    np.testing.assert_array_equal(decoder.agreement(outputs, wanted, 0.0), same)


@given(st.integers(0, 1000))
def test_what_moves_by_no_more_than_the_tolerance_agrees(seed: int) -> None:
    decoder = decided_by(0.3, temperature=1.3)
    generator = np.random.default_rng(seed)
    wanted = generator.normal(0, 1, (30, 3)).astype(np.float32)
    outputs = wanted + generator.uniform(-0.05, 0.05, wanted.shape).astype(np.float32)
    assert decoder.agreement(outputs, wanted, 0.1001).all()


def test_a_tile_is_damaged_from_the_chosen_threshold_on() -> None:
    decoder = decided_by(0.2)
    assert decoder.threshold(None, DAMAGE) == 0.2
    assert decoder.threshold(0.6, DAMAGE) == 0.6
    # It was chosen for both kinds of damage together.
    assert decoder.threshold(None, ("crack",)) == 0.5
    with pytest.raises(DataError, match="a probability of 0"):
        decoder.threshold(0.0, DAMAGE)


def test_labels_of_damage_are_there_from_the_threshold_on() -> None:
    decoder = decided_by(0.1, "multilabel")
    outputs = np.array([[-2.0, -3.0, -1.0]], np.float32)  # 0.12, 0.05, 0.27
    assert decoder.answers(decoder.decode(outputs)) == ["crack"]
