"""Steps in words: which is the result, which were taken back, and that a polish is no step of N."""

from __future__ import annotations

from dataclasses import replace

from prunedge.pruning.steps import Step
from prunedge.report.steps_text import became_of, name_of, notes_on, place_of
from tests.pruning.test_loop import START

STEPS = [
    START,
    replace(START, index=1, start=0, rounds=1, epochs=2),
    replace(START, index=2, start=1, rounds=2, epochs=4, keeps_rule=False, reason="a bit worse"),
    replace(
        START,
        index=3,
        start=2,
        rounds=1,
        epochs=2,
        accepted=False,
        keeps_rule=False,
        reason="much worse",
        limited="the limit decides",
    ),
    replace(START, index=4, start=2, rounds=1, epochs=8, is_polish=True),
]


def test_a_polish_is_named_by_the_step_that_it_polishes() -> None:
    assert [name_of(step) for step in STEPS] == ["0", "1", "2", "3", "polish of 2"]
    assert STEPS[3].name == "step 3"
    assert STEPS[4].name == "the polish of step 2"


def test_polishes_are_not_counted_as_steps() -> None:
    assert place_of(STEPS[1], STEPS) == "step 1 of 3"
    assert place_of(STEPS[4], STEPS) == "step 2 of 3, polished"


def test_what_became_of_each_step_is_said() -> None:
    assert _became(STEPS[4]) == ["", "", "beyond the rule", "taken back", "the result"]
    assert _became(STEPS[0])[0] == "the result"


def test_extra_rounds_limits_and_verdicts_are_said() -> None:
    assert notes_on(STEPS) == [
        "step 2 was fine-tuned 2 times, for 4 epochs in all: it broke the rule at first",
        "step 2 was gone on from, not handed over: a bit worse",
        "step 3: the limit decides",
        "step 3 was taken back: much worse",
    ]


def _became(result: Step) -> list[str]:
    return [became_of(step, result) for step in STEPS]
