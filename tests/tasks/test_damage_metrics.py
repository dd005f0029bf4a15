"""What is asked of damage: against scikit-learn, and where it is not defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import AT_ALARMS, AT_RECALL, COST, METRICS
from prunedge.edge.tasks.decision import DamageSpec
from prunedge.edge.tasks.metric import called
from prunedge.errors import TrainError
from prunedge.tasks import make_task, metric_named
from prunedge.tasks.classification import measure
from prunedge.tasks.damage_metrics import NAMES

CLASSES = ("crack", "free", "rust")
TASK = make_task(TaskSpec(name="classification", classes=CLASSES, size=(16, 16)))


@settings(deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(8, 90),
    st.sampled_from([0.1, 1.0, 60.0]),
    st.integers(1, 9999),
)
def test_they_agree_with_scikit_learn(seed: int, count: int, spread: float, level: int) -> None:
    own = (AT_ALARMS.at(level / 10_000).name, AT_RECALL.at(level / 10_000).name)
    generator = torch.Generator().manual_seed(seed)
    logits = (spread * torch.randn(count, 3, generator=generator)).round(decimals=1)
    labels = torch.randint(3, (count,), generator=generator)
    labels[:3] = torch.arange(3)
    found = measure(logits, labels, CLASSES, DamageSpec(metrics=own))

    is_damaged = (labels != 1).numpy()
    wide = logits.double()
    odds = (torch.logsumexp(wide[:, [0, 2]], 1) - wide[:, 1]).numpy()
    answered = (logits.argmax(1) != 1).numpy()
    assert found.value("balanced_accuracy") == pytest.approx(
        reference.balanced_accuracy_score(labels.numpy(), logits.argmax(1).numpy())
    )
    assert found.value("damage_f1") == pytest.approx(
        reference.f1_score(is_damaged, answered), abs=1e-6
    )
    assert found.value("average_precision") == pytest.approx(
        reference.average_precision_score(is_damaged, odds), abs=1e-5
    )
    alarms, recall, _ = reference.roc_curve(is_damaged, odds, drop_intermediate=False)
    for name, rate in (*AT_ALARMS.levels.items(), (own[0], level / 10_000)):
        assert found.value(name) == pytest.approx(recall[alarms <= rate + 1e-12].max())
    for name, rate in (*AT_RECALL.levels.items(), (own[1], level / 10_000)):
        assert found.value(name) == pytest.approx(alarms[recall >= rate - 1e-12].min())


def test_a_rate_that_a_whole_number_of_images_makes_is_kept_to_the_image() -> None:
    """1 of 20 sound images is 5 %, whatever floating point makes of it."""
    labels = torch.tensor([1] * 20 + [0] * 10)
    scores = torch.tensor([9.0] + [0.0] * 19 + [5.0] * 10)
    logits = torch.stack((scores, torch.zeros(30)), 1)
    found = measure(logits, labels, ("crack", "free"))
    assert found.value("recall@alarms=0.05") == 1.0
    assert found.value("recall@alarms=0.02") == 0.0
    assert found.value("alarms@recall=0.9") == pytest.approx(0.05)


def test_names_that_tell_nothing_and_absent_damage_leave_them_undefined() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for classes in (("a", "b", "c"), None):
        values = measure(logits, labels, classes).values
        assert {values[name] for name in NAMES} == {None}
    values = measure(logits, torch.ones(6, dtype=torch.int64), CLASSES).values
    assert {values[name] for name in NAMES} == {None}
    assert values["balanced_accuracy"] is None


@pytest.mark.parametrize("metric", NAMES)
def test_what_is_missing_is_named(metric: str) -> None:
    assert TASK.undefined(metric, [0, 1, 1]) is None
    assert TASK.undefined(metric, [1, 1]) == "crack"
    assert TASK.undefined(metric, [0, 2]) == "free"
    assert TASK.undefined("balanced_accuracy", [0, 1]) == "rust"


def test_both_halves_name_the_same_metrics() -> None:
    of_damage = {name for name, metric in METRICS.items() if metric.of_damage}
    assert of_damage == set(NAMES)
    assert set(measure(torch.eye(3), torch.arange(3), CLASSES).values) == set(METRICS)
    better = {name for name, metric in METRICS.items() if not metric.higher_is_better}
    assert better == {*AT_RECALL.levels, COST}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("recall@alarms=0.30", "recall@alarms=0.3"),
        ("recall@alarms = .3", "recall@alarms=0.3"),
        ("recall@alarms=3%", "recall@alarms=0.03"),
        ("recall@alarms=0.0001", "recall@alarms=0.0001"),
        ("alarms@recall=0.9900000", "alarms@recall=0.99"),
        ("balanced-accuracy", "balanced_accuracy"),
    ],
)
def test_a_level_has_one_name_however_it_is_written(written: str, kept: str) -> None:
    assert called(written) == kept
    metric = metric_named(written, "classification")
    assert metric.name == kept
    assert metric.higher_is_better == (not kept.startswith("alarms"))


@pytest.mark.parametrize(
    "level",
    ["", "0", "1", "1.5", "-0.1", "0.00001", "1e-2", "nan", "half", "0,05", "100%", "9" * 50],
)
def test_what_is_no_level_is_one_line_that_shows_one(level: str) -> None:
    for stem in ("recall@alarms", "alarms@recall"):
        with pytest.raises(TrainError, match=f"{stem} (has no level|needs a level)") as refused:
            metric_named(f"{stem}={level}", "classification")
        assert f"between 0 and 1 of at most 4 decimals, as {stem}=0." in str(refused.value)
        with pytest.raises(TrainError, match="no metric is called"):
            metric_named(f"{stem}=0.05", "multilabel")


def test_a_level_of_one_s_own_is_measured_where_it_is_asked_for_and_has_weights_too() -> None:
    spec = TASK.spec
    assert spec is not None
    asked = spec.model_copy(update={"damage": DamageSpec(metrics=("recall@alarms=0.37",))})
    task = make_task(asked)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 3
    meter = task.meter()
    meter.update(meter.observe(logits, labels))
    metrics = meter.compute()
    assert set(metrics.values) == {*METRICS, "recall@alarms=0.37"} == set(task.metrics)
    figures = {one.metric.name: one for one in task.figures(meter, np.ones((1, 40))).metrics}
    assert figures["recall@alarms=0.37"].values == pytest.approx(
        [metrics.value("recall@alarms=0.37")]
    )
    assert task.constant(metrics, "recall@alarms=0.37").score == 0.0
    assert "recall@alarms=0.37" not in TASK.metrics


def test_several_processes_come_to_what_one_comes_to() -> None:
    """Each has seen all observations (`train.evaluate`): in whatever batches they came."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(31, 3, generator=generator)
    labels = torch.randint(3, (31,), generator=generator)
    meter = TASK.meter()
    for rows in np.array_split(np.arange(31), 5):
        meter.update(meter.observe(logits[rows], labels[rows]))
    assert meter.compute() == measure(logits, labels, CLASSES)


def test_the_cost_is_the_least_of_any_threshold() -> None:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(3, (60,), generator=generator)
    logits = torch.randn(60, 3, generator=generator) + torch.eye(3)[labels]
    damage = DamageSpec(miss=7.0, alarm=2.0)
    value = measure(logits, labels, CLASSES, damage).value(COST)

    spec = TaskSpec(name="classification", classes=CLASSES, size=(8, 8), damage=damage)
    task = make_task(spec)
    meter = task.meter()
    meter.update(meter.observe(logits, labels))
    chosen = [CLASSES.index(name) for name in CLASSES if name != "free"]
    scores = logits.softmax(1)[:, chosen].sum(1)
    is_damaged = torch.isin(labels, torch.tensor(chosen))
    costs = []
    for threshold in (*scores.tolist(), 2.0):
        is_called = scores >= threshold
        missed = int((is_damaged & ~is_called).sum())
        alarms = int((is_called & ~is_damaged).sum())
        costs.append((7 * missed + 2 * alarms) / 60)
    assert value == pytest.approx(min(costs))
    figures = {one.metric.name: one for one in task.figures(meter, np.ones((2, 60))).metrics}
    assert figures[COST].values == pytest.approx([value, value])
