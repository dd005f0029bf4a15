"""Steps in words: which is the result, which were taken back, and that a polish is no step of N."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prunedge.cli.pruning_lines import callbacks
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.pruning.steps import Step
from prunedge.report.steps_text import became_of, name_of, notes_on, place_of
from tests.pruning.test_loop import START

STEPS = [
    START,
    replace(START, index=1, number=1, start=0, rounds=1, epochs=2),
    replace(
        START,
        index=2,
        number=2,
        start=1,
        rounds=2,
        epochs=4,
        keeps_rule=False,
        reason="a bit worse",
    ),
    replace(
        START,
        index=3,
        number=3,
        start=2,
        rounds=1,
        epochs=2,
        accepted=False,
        keeps_rule=False,
        reason="much worse",
        limited="the limit decides",
    ),
    replace(START, index=4, number=2, start=2, rounds=1, epochs=8, is_polish=True),
]


def test_a_polish_is_named_by_the_step_that_it_polishes() -> None:
    assert [name_of(step) for step in STEPS] == ["0", "1", "2", "3", "polish of 2"]
    assert STEPS[3].name == "step 3"
    assert STEPS[4].name == "the polish of step 2"


def test_polishes_are_not_counted_as_steps() -> None:
    assert place_of(STEPS[1], STEPS) == "step 1 of 3"
    assert place_of(STEPS[4], STEPS) == "step 2 of 3, polished"


def test_a_polish_before_other_steps_moves_no_number() -> None:
    """A run that was polished goes on: what the history holds between its steps is no step of N."""
    third = replace(START, index=5, number=4, start=2, rounds=2, epochs=4)
    steps = [*STEPS, third, replace(third, index=6, start=5, is_polish=True)]
    names = [name_of(step) for step in steps[-3:]]
    assert names == ["polish of 2", "4", "polish of 4"]
    assert place_of(steps[5], steps) == "step 4 of 4"
    assert place_of(steps[6], steps) == "step 4 of 4, polished"
    assert steps[5].name == "step 4"
    assert "step 4 was fine-tuned 2 times" in notes_on(steps)[-2]


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


def test_the_line_of_a_step_has_its_number_too(capfd: pytest.CaptureFixture[str]) -> None:
    heard = callbacks(ACCURACY, lambda done, total, what: None, quiet=False)
    assert heard.on_step is not None
    heard.on_step(replace(START, index=5, number=4, start=2))
    heard.on_step(replace(START, index=6, number=4, start=5, is_polish=True, epochs=8))
    step, polished = capfd.readouterr().err.splitlines()
    assert step.startswith("step 4: ")
    assert polished.startswith("polish: step 4 fine-tuned for 8 epochs more")
