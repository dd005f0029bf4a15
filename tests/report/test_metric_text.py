"""A metric in millimetres of which less is better, and one in shares: each text and height."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prunedge.edge.tasks.classification import ACCURACY
from prunedge.pruning.steps import Step
from prunedge.report import metric_text as say
from prunedge.report.run.figures import metric_by_channels
from prunedge.report.study.answers import answers
from prunedge.report.study.cells import pair_cells
from prunedge.report.study.figures import curves
from prunedge.report.study.numbers import groups
from prunedge.report.study.pareto import Place, front
from prunedge.report.study.pareto_figure import Cloud, pareto_figure
from prunedge.study.statistics import Comparison, spread
from prunedge.tasks import Metric
from tests.report.made_up import study

ERROR = Metric("mae", higher_is_better=False, unit="mm")


def test_a_share_is_read_in_percent_and_changes_by_points() -> None:
    assert say.value_text(ACCURACY, 0.9171) == "91.7 %"
    assert say.change_text(ACCURACY, 0.92, 0.908) == "-1.2 points"
    assert say.difference_number(ACCURACY, 0.012) == "+1.2"
    assert say.drop_text(ACCURACY, 1.23) == "lost 1.2 points"
    assert say.side_of_worse(ACCURACY) == "below"
    assert say.best_word(ACCURACY) == "highest"
    assert say.rule_text(ACCURACY, 3.0) == "the rule: at most 3 points lost"
    assert say.rule_height(ACCURACY, 0.9, 3.0) == 87.0
    assert say.axis_title(ACCURACY, "validation") == "validation accuracy (%)"
    assert say.hover_value(ACCURACY) == "%{y:.1f} %"


def test_another_unit_is_read_as_it_is() -> None:
    assert say.value_text(ERROR, 0.4171) == "0.417 mm"
    assert say.change_text(ERROR, 0.40, 0.431) == "+0.031 mm"
    assert say.difference_number(ERROR, -0.031) == "-0.031"
    assert say.drop_text(ERROR, ERROR.drop(0.4, 0.431)) == "rose by 0.031 mm"
    assert say.side_of_worse(ERROR) == "above"
    assert say.best_word(ERROR) == "lowest"
    assert say.rule_text(ERROR, 0.05) == "the rule: at most 0.05 mm more"
    assert say.rule_height(ERROR, 0.4, 0.05) == pytest.approx(0.45)
    assert say.axis_title(ERROR, "validation") == "validation mae (mm)"
    assert say.hover_value(ERROR) == "%{y:.3g} mm"


def test_a_unit_that_only_the_user_knows_is_left_out() -> None:
    bare = replace(ERROR, unit="")
    assert say.value_text(bare, 2600.0) == "2,600"
    assert say.change_text(bare, 0.4, 0.431) == "+0.031"
    assert say.drop_text(bare, 0.031) == "rose by 0.031"
    assert say.axis_title(bare, "validation") == f"validation {bare.name}"
    assert say.rule_text(bare, 0.2) == "the rule: at most 0.2 more"
    assert say.rule_text(bare, "5%") == "the rule: at most 5% more"
    assert say.rule_height(bare, 0.4, "5%") == pytest.approx(0.42)
    assert say.heading(bare, "difference") == "difference"
    assert say.heading(ERROR, "difference") == f"difference, {ERROR.unit}"
    assert say.unit_squared(bare) == "its unit²"


def test_means_have_their_spread_in_the_metrics_unit() -> None:
    shares = spread([0.98, 0.99, 1.0])
    assert say.metric_spread(ACCURACY, shares) == "99.0 ± 1.0 %"
    assert say.metric_interval(ACCURACY, shares) == "96.5 to 100.0 %"
    assert say.metric_variance(ACCURACY, shares) == "1"
    errors = spread([1.4, 1.5, 1.6])
    assert say.metric_spread(ERROR, errors) == "1.5 ± 0.1 mm"
    assert say.metric_interval(ERROR, errors) == "1.25 to 1.75 mm"
    assert say.metric_variance(ERROR, errors) == "0.01"
    assert say.metric_interval(ERROR, spread([1.5])) == "-"


def test_a_paired_comparison_is_in_the_metrics_unit() -> None:
    pairs = Comparison(-0.03, -0.05, -0.01, 0.01, 8)
    assert pair_cells(ERROR, pairs) == ("-0.03", "-0.05 to -0.01", "0.01", "8", "smaller")
    assert pair_cells(ACCURACY, pairs)[:2] == ("-3.0", "-5.0 to -1.0")


def test_the_front_of_an_error_falls() -> None:
    places = [Place(3, 0.1), Place(1, 0.7), Place(2, 0.8), Place(2, 0.4), Place(4, 0.1)]
    unbeaten = [(place.x, place.y) for place in front(places, ERROR)]
    assert unbeaten == [(1, 0.7), (2, 0.4), (3, 0.1)]
    figure = pareto_figure({"all": Cloud(places, places, ())}, ERROR, "test", "MACs")
    assert figure.layout.yaxis.title.text == "test mae (mm)"
    assert list(figure.data[1].y) == [0.7, 0.4, 0.1]


def test_the_rules_line_of_an_error_lies_above() -> None:
    errors = (0.4, 0.42)
    steps: list[Any] = []
    for index, error in enumerate(errors):
        step = SimpleNamespace(
            index=index,
            name=f"step {index}",
            accepted=True,
            fraction_removed=0.1 * index,
            metric_before=error,
            metric_after=error,
        )
        steps.append(step)
    figure = metric_by_channels(cast(list[Step], steps), ERROR, 0.05)
    assert list(figure.data[0].y) == [0.4, 0.42]
    assert figure.layout.shapes[0].y0 == pytest.approx(0.45)
    assert figure.layout.yaxis.title.text == "validation mae (mm)"


def test_a_study_of_an_error_says_which_is_lowest() -> None:
    rows = [row for row in study("criteria").rows if row["is_done"]]
    combinations = groups(rows, ["criterion"])
    lowest = {}
    for name, trials in combinations.items():
        lowest[name] = spread([trial[-1]["test_best"] for trial in trials]).mean
    (answer,) = answers(rows, ["criterion"], ERROR)
    assert f"{min(lowest, key=lambda name: lowest[name])} " in answer
    assert "lowest test mae" in answer or "leaves the least work" in answer
    assert " mm " in answer
    assert "%" not in answer
    figure = curves({"all": combinations}, ERROR)
    assert max(figure.data[1].y) < 1
