"""What is found and missed, in the sentences of `show` and the page."""

from __future__ import annotations

import pytest

from prunedge.report.decision_text import (
    asked_in_words,
    calibration_in_words,
    constant_in_words,
    decided,
    found_in_words,
    kept_in_words,
    per_unit,
    rate_in_words,
    rule_in_words,
    threshold_text,
)
from prunedge.runs.decision_rates import (
    decisions_in,
    most_frequent,
    rate,
    recorded_rule,
    shown_of,
)
from tests.report.decided import CLASSES, cost_of, counts, decisions, record


def test_what_is_found_and_what_is_missed() -> None:
    told = record()
    assert found_in_words(told, told.test) == (
        "of 123 damaged images 98 found, 25 missed; 12 false alarms among 270 sound ones"
    )
    one = record(test=counts(1, 0, 1, 4))
    assert found_in_words(one, one.test) == (
        "of 1 damaged image 1 found, 0 missed; 1 false alarm among 5 sound ones"
    )
    labels = record(unit="label")
    assert found_in_words(labels, labels.test).startswith("of 123 labels of damage 98 found")


def test_a_rate_is_never_without_its_interval() -> None:
    assert rate_in_words(rate(98, 123)) == "79.7 % (95 % interval 71.7 to 85.8 %)"
    assert rate_in_words(None) == "not defined"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recall>=0.95", "a recall of at least 95 %"),
        ("alarms<=0.005", "a false alarm rate of at most 0.5 %"),
        ("cost(miss=50,alarm=1)", "the least cost, a miss costing 50 and a false alarm 1"),
    ],
)
def test_the_rule_in_words(text: str, words: str) -> None:
    rule = recorded_rule(text)
    assert rule is not None
    assert rule_in_words(rule) == words


def test_a_rule_that_broke_on_test_images_says_whether_by_chance() -> None:
    (line,) = kept_in_words(record())
    assert line == (
        "the rule was kept (80.5 %) on validation images and not kept (79.7 %) on test images, "
        "whose interval holds 80 %: it may be chance"
    )
    (surely,) = kept_in_words(record(test=counts(60, 63, 12, 258)))
    assert surely.endswith("not kept (48.8 %) on test images")


def test_no_rule_no_verdict() -> None:
    assert kept_in_words(record(rule="")) == []
    assert asked_in_words(record(rule="")).startswith("no rule was given (--operate)")
    assert kept_in_words(record(rule="cost(miss=50,alarm=1)")) == []


def test_the_note_stands_beside_the_verdict() -> None:
    note = "a recall of 80 % can't be reached; 75 % can"
    assert kept_in_words(record(note=note))[1] == note


def test_what_the_most_frequent_answer_finds() -> None:
    told = record()
    constant = most_frequent(told, CLASSES)
    assert constant_in_words(constant, told) == (
        "always answering 'functional', the most frequent, finds none of the 123, without a false "
        "alarm"
    )
    labels = record(unit="label", confusion=None, test=counts(60, 10, 3, 40))
    assert constant_in_words(most_frequent(labels, CLASSES), labels).startswith(
        "always answering that every label is there, the most frequent, finds all of it"
    )
    damaged = record(test=counts(250, 20, 3, 120), confusion=[[250, 20], [3, 120]])
    assert "calls all 123 sound ones damaged" in constant_in_words(
        most_frequent(damaged, CLASSES), damaged
    )


def test_lines_of_every_model_with_the_result_last() -> None:
    lines = decided(decisions_in({"decisions": decisions()}), CLASSES)
    assert lines[1].startswith("  unpruned: of 123 damaged images 101 found, 22 missed")
    assert lines[2].startswith("  pruned: of 123 damaged images 98 found, 25 missed")
    assert "recall 79.7 % (95 % interval 71.7 to 85.8 %)" in lines[2]
    assert decided({}, CLASSES) == []


def test_what_mistakes_cost_stands_beside_what_is_found() -> None:
    told = decisions(cost=cost_of(3.25))
    lines = decided(decisions_in({"decisions": told}), CLASSES)
    assert lines[2].endswith(
        "; cost 3.25 an image, a miss costing 50 and a false alarm 1 (95 % interval 2.75 to 4)"
    )
    assert "cost" not in lines[1]
    assert per_unit(0.5, "label") == "0.5 a label"


def test_a_model_that_was_not_pruned_is_called_so() -> None:
    alone = shown_of(decisions_in({"decisions": decisions()}), is_pruned=False)
    lines = decided(alone, CLASSES)
    assert lines[1].startswith("  unpruned: of 123 damaged images 101 found")
    assert not any("pruned:" in line.replace("unpruned:", "") for line in lines)
    assert "by validation images the unpruned model reports damage" in "".join(lines)


def test_a_temperature_that_made_test_images_worse_is_told() -> None:
    better = decisions_in({"decisions": decisions()})
    assert calibration_in_words(better) == []
    worse = decisions_in({"decisions": decisions(test_error={"raw": 0.03, "calibrated": 0.052})})
    (line,) = calibration_in_words(worse)
    assert line.startswith("the temperature of the pruned model, which validation images chose")
    assert line.endswith("an error of 5.2 % instead of 3.0 %")


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0.5, "0.500"),
        (0.20708, "0.207"),
        (0.0123, "0.0123"),
        (0.99987, "0.999870"),
        (1.0, "1"),
        (1e-12, "0.000000000"),
    ],
)
def test_a_threshold_is_told_from_0_and_1(threshold: float, text: str) -> None:
    assert threshold_text(threshold) == text
