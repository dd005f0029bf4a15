"""Intervals: they hold the figure, they are the same each time, and sources are drawn whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.edge.image.size import square
from prunedge.edge.tasks.base import Scale, TaskSpec
from prunedge.tasks import Task, make_task
from prunedge.train.bootstrap import cluster_of_each
from prunedge.train.intervals import Intervals, exact_bounds, intervals_of, resampled_weights

SCALES = (
    Scale(mean=3, deviation=2, median=3, lowest=0, highest=9),
    Scale(mean=-1, deviation=0.5, median=-1, lowest=-4, highest=2),
)
NAMES = ("classification", "multilabel", "ordinal", "regression")


def judged(name: str, images: int, seed: int, skill: float = 1.0) -> tuple[Task, Any]:
    """A task, and its meter after answers that are right the more often the more `skill` there is."""
    classes = ("width", "depth") if name == "regression" else ("sound", "crack", "hole")
    spec = TaskSpec(
        name=name,
        classes=classes,
        size=square(8),
        scales=SCALES if name == "regression" else (),
    )
    task = make_task(spec)
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(images, task.outputs, generator=generator)
    if name == "regression":
        means = torch.tensor([3.0, -1.0])
        targets = means + outputs * skill + torch.randn(images, 2, generator=generator)
    elif name == "multilabel":
        targets = (torch.rand(images, 3, generator=generator) < 0.3).float()
        outputs = outputs + skill * (2 * targets - 1)
    else:
        targets = torch.randint(0, 3, (images,), generator=generator)
        wanted = torch.nn.functional.one_hot(targets, 3).float()
        outputs = outputs + skill * (
            wanted if name == "classification" else wanted.cumsum(1)[:, :2]
        )
    meter = task.meter()
    meter.update(meter.observe(outputs, targets))
    return task, meter


def all_estimates(intervals: Intervals) -> list[Any]:
    own = list(intervals.metrics)
    for part in intervals.parts:
        own += part.estimates
    return own


@pytest.mark.parametrize("name", NAMES)
@given(images=st.integers(2, 60), seed=st.integers(0, 999), skill=st.floats(0, 4))
@settings(max_examples=25)
def test_the_figures_of_all_images_are_those_of_the_meter(
    name: str, images: int, seed: int, skill: float
) -> None:
    task, meter = judged(name, images, seed, skill)
    metrics = meter.compute()
    figures = task.figures(meter, np.ones((1, images)))
    assert [figure.metric for figure in figures.metrics] == list(task.metrics.values())
    for figure in figures.metrics:
        wanted = metrics.values[figure.metric.name]
        if wanted is None:
            assert np.isnan(figure.values[0]), figure.metric.name
        else:
            assert figure.values[0] == pytest.approx(wanted, abs=2e-5), figure.metric.name


@pytest.mark.parametrize("name", NAMES)
def test_images_that_count_twice_are_images_that_are_there_twice(name: str) -> None:
    task, meter = judged(name, 30, 1)
    weights = np.random.default_rng(0).integers(0, 3, (1, 30)).astype(float)
    chosen = np.repeat(np.arange(30), weights[0].astype(int))
    again = task.meter()
    for place in chosen.tolist():
        one, whole = {}, meter.observe(*taken_in(meter))
        for key, tensor in whole.items():
            one[key] = tensor[place : place + 1]
        again.update(one)
    wanted = again.compute()
    for figure in task.figures(meter, weights).metrics:
        value = wanted.values[figure.metric.name]
        if value is None:  # of costs that nobody has said
            assert np.isnan(figure.values[0])
        else:
            assert figure.values[0] == pytest.approx(value, abs=2e-5)


def taken_in(meter: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs and targets that a meter has."""
    outputs = meter.outputs() if hasattr(meter, "outputs") else meter.logits()
    for name in ("labels", "degrees", "targets"):
        if hasattr(meter, name):
            return outputs, getattr(meter, name)()
    raise AssertionError


@pytest.mark.parametrize("name", NAMES)
@given(
    images=st.integers(2, 40),
    seed=st.integers(0, 999),
    skill=st.floats(0, 4),
    sources=st.integers(1, 9),
)
@settings(max_examples=25)
def test_an_interval_holds_the_figure(
    name: str, images: int, seed: int, skill: float, sources: int
) -> None:
    task, meter = judged(name, images, seed, skill)
    groups = [index % sources for index in range(images)]
    for estimate in all_estimates(intervals_of(task, meter, groups, resamples=50)):
        if estimate.low is not None:
            assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("name", NAMES)
def test_a_source_for_each_image_is_as_none(name: str) -> None:
    task, meter = judged(name, 25, 3)
    alone = intervals_of(task, meter, [None] * 25, resamples=100)
    named = intervals_of(task, meter, [f"photo {index}" for index in range(25)], resamples=100)
    assert alone == named


def test_the_seed_decides_the_bounds() -> None:
    task, meter = judged("classification", 40, 5)
    first = intervals_of(task, meter, [None] * 40, resamples=100, seed=1)
    assert first == intervals_of(task, meter, [None] * 40, resamples=100, seed=1)
    assert first.metrics != intervals_of(task, meter, [None] * 40, resamples=100, seed=2).metrics


@given(
    sources=st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_images_of_one_source_are_drawn_together(sources: list[int | None], seed: int) -> None:
    clusters = cluster_of_each(sources)
    (weights,) = resampled_weights(clusters, 20, seed)
    for cluster in np.unique(clusters):
        own = weights[:, clusters == cluster]
        assert (own == own[:, :1]).all()
    firsts = np.unique(clusters, return_index=True)[1]
    assert (weights[:, firsts].sum(1) == len(firsts)).all()


def test_patches_of_few_photographs_say_less_than_as_many_photographs() -> None:
    task, meter = judged("classification", 200, 7, skill=1.5)
    alone = intervals_of(task, meter, [None] * 200).metrics[0]
    right = meter.logits().argmax(1) == meter.labels()
    order = right.int().argsort().tolist()  # right and wrong in whole photographs
    photos = [0] * 200
    for place, index in enumerate(order):
        photos[index] = place // 20
    together = intervals_of(task, meter, photos).metrics[0]
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_all_right_is_not_sure_where_there_are_few() -> None:
    assert exact_bounds(1.0, 5)[0] == pytest.approx(0.4782, abs=1e-4)  # R: binom.test(5, 5)
    assert exact_bounds(0.0, 10)[1] == pytest.approx(0.3085, abs=1e-4)  # R: binom.test(0, 10)
    task, meter = judged("classification", 30, 0, skill=50)
    accuracy = intervals_of(task, meter, [None] * 30, resamples=20).metrics[0]
    assert accuracy.value == 1
    assert accuracy.low == exact_bounds(1.0, 30)[0]


def test_one_photograph_tells_no_interval() -> None:
    task, meter = judged("classification", 30, 0)
    estimate = intervals_of(task, meter, ["photo"] * 30, resamples=20).metrics[0]
    assert estimate.value is not None
    assert estimate.low is None
