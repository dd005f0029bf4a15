from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from prunedge.data import Dataset, load_folder
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.errors import TrainError
from prunedge.tasks.base import Metrics
from prunedge.tasks.classification import Classification
from prunedge.train import (
    Rate,
    TrainConfig,
    TrainExtras,
    TransferSettings,
    find_rate,
    make_engine,
    transfer,
)
from prunedge.train.learning_rate import RANGES, SGD, choose_rate, search
from prunedge.train.transfer import knows_little
from tests.processes import together
from tests.train.tiny import model

ADAMW = RANGES["adamw"]
RECIPE = TrainConfig(batch_size=8, augment="none")


def lines(root: Path, count: int = 40) -> Dataset:
    """Two classes of `count` images of 16 px: noise, and noise with a bright line."""
    generator = torch.Generator().manual_seed(0)
    for name in ("line", "plain"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = torch.randint(0, 120, (16, 16, 3), generator=generator, dtype=torch.uint8)
            if name == "line":
                pixels[:, 7] += 130
            Image.fromarray(pixels.numpy()).save(root / name / f"{index}.png")
    return load_folder(root, size=16, seed=0, cache_dir=root.parent / "cache")


INF = float("inf")


@pytest.mark.parametrize(
    ("known", "lr", "tried"),
    [
        # One is clearly best: nothing beyond its neighbours is tried.
        ({0.01: 0.5, 0.003: 0.4, 0.001: 0.6}, 0.003, (0.001, 0.003, 0.01)),
        # Several are nearly as good: the usual one of these.
        ({0.01: 0.40, 0.003: 0.45, 0.001: 0.42}, 0.003, (0.001, 0.003, 0.01)),
        # Clearly better above: the next higher is tried, and may win or diverge (VGG16, measured).
        ({0.03: INF, 0.01: 0.3, 0.003: 0.6}, 0.01, (0.003, 0.01, 0.03)),
        ({0.03: 5.8, 0.01: 0.3, 0.003: 0.6}, 0.01, (0.003, 0.01, 0.03)),
        ({0.03: 0.1, 0.01: 0.4, 0.003: 0.6}, 0.01, (0.003, 0.01, 0.03)),
        # The next higher silences it: what is too near to that is not taken (SqueezeNet, measured).
        ({0.03: 0.692, 0.01: 0.504, 0.003: 0.615, 0.001: 0.671}, 0.003, (0.001, 0.003, 0.01, 0.03)),
        # High rates silence: down to where the model learns.
        ({0.01: None, 0.003: 0.65, 0.001: 0.3, 0.0003: 0.6}, 0.001, (0.0003, 0.001, 0.003, 0.01)),
        (dict.fromkeys(SGD.rates, None), 0.0001, (0.0001, 0.0003, 0.001, 0.003, 0.01)),
        # No rate teaches anything in a few steps.
        ({0.01: 1.2, 0.003: 1.1, 0.001: 1.05}, 0.003, (0.001, 0.003, 0.01)),
    ],
)
def test_which_rate_is_taken_follows_from_the_losses(
    known: dict[float, float | None], lr: float, tried: tuple[float, ...]
) -> None:
    found = search(1.0 if 0.692 not in known.values() else 1.322, 0.6931, known.__getitem__)
    assert found.lr == lr
    assert tuple(rate for rate, _ in found.curve) == tried
    assert Rate.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


@pytest.mark.parametrize(
    ("losses", "lr", "why"),
    [
        (
            {0.01: 0.30, 0.003: 0.31, 0.001: 0.6},
            0.003,
            "of those with nine tenths of the best gain in a few steps the nearest to 0.003",
        ),
        # A rate that silenced the model changes nothing: the gains decide alone.
        (
            {0.03: None, 0.01: 0.60, 0.003: 0.31, 0.001: 0.6},
            0.003,
            "of those with nine tenths of the best gain in a few steps the nearest to 0.003",
        ),
        # The gains are those of 0.003, and would not have chosen.
        (
            {0.01: None, 0.003: 0.31, 0.001: 0.6, 0.0003: 0.65},
            0.001,
            "the nearest to 0.003 that is far enough below 0.01, which silenced the model in a "
            "few steps",
        ),
        (
            {0.01: None, 0.003: 0.2, 0.001: 0.64, 0.0003: 0.5, 0.0001: 0.6},
            0.0003,
            "of those far enough below 0.01, which silenced the model in a few steps, and with "
            "nine tenths of the best gain, the nearest to 0.003",
        ),
        (
            {0.01: None, 0.003: 0.31, 0.001: 0.71, 0.0003: 0.72},
            0.001,
            "the highest that is far enough below 0.01, which silenced the model in a few steps",
        ),
        (
            {0.01: 0.75, 0.003: 0.71},
            0.003,
            "no rate taught it anything in a few steps, so a usual one",
        ),
        (
            {0.001: None, 0.0003: None, 0.0001: 0.6},
            0.0001,
            "the lowest that was tried, the farthest below 0.0003, which silenced the model in a "
            "few steps",
        ),
        (
            {0.0003: INF, 0.0001: INF},
            0.0001,
            "every rate broke the model in a few steps, so the lowest",
        ),
    ],
)
def test_what_is_said_of_a_rate_is_what_decided(
    losses: dict[float, float | None], lr: float, why: str
) -> None:
    assert choose_rate(0.7, 0.69, losses) == (lr, why)


def test_a_rate_that_breaks_is_never_taken() -> None:
    assert choose_rate(1.0, 0.69, {0.01: INF, 0.003: 0.999})[0] == 0.003
    assert choose_rate(0.1, 0.69, {0.01: INF, 0.003: INF, 0.001: 0.5})[0] == 0.001


def test_the_same_rate_is_found_twice_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    data, net = lines(tmp_path / "lines"), model()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    found = [
        find_rate(net, data.train, RECIPE, engine=make_engine(), seed=seed) for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0].curve != found[2].curve
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert f"{found[0].lr:g}" in found[0].sentence()


def test_adamw_has_rates_of_its_own(tmp_path: Path) -> None:
    data = lines(tmp_path / "lines")
    config = replace(RECIPE, optimizer="adamw", ema=0.99, patience=1)
    found = find_rate(model(), data.train, config, engine=make_engine(), seed=0)
    assert found.lr in ADAMW.rates
    assert {rate for rate, _ in found.curve} <= set(ADAMW.rates)
    assert Rate.from_json(json.loads(json.dumps(found.to_json()))) == found
    lowered = found.lowered()
    assert lowered is None or lowered.lr in ADAMW.rates
    scratch = TransferSettings(pretrained=False, optimizer="adamw").config(model())
    assert scratch.lr == pytest.approx(0.002)
    assert scratch.decay == 0.01


class Scaled(nn.Module):
    """The tiny model, fed with images `times` as large: its first layer bears rates so much smaller."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 16 * 3, 16), nn.ReLU(), nn.Linear(16, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.times * x)


def test_a_model_that_bears_less_gets_a_lower_rate(tmp_path: Path) -> None:
    data = lines(tmp_path / "lines")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        robust, touchy = Scaled(0.3), Scaled(100.0)
    high, low = (
        find_rate(net, data.train, RECIPE, engine=make_engine(), seed=0) for net in (robust, touchy)
    )
    assert low.lr < high.lr


def test_a_loss_that_becomes_infinite_is_a_rate_that_broke(tmp_path: Path) -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) / torch.zeros(()) if self.training else self.net(x)

    found = find_rate(
        Exploding(), lines(tmp_path / "lines").train, RECIPE, engine=make_engine(), seed=0
    )
    assert found.lr == min(SGD.rates)
    assert all(loss is None for _, loss in found.curve)


def test_few_images_are_enough_or_said_to_be_too_few(tmp_path: Path) -> None:
    data = lines(tmp_path / "lines", count=12)
    assert find_rate(model(), data.train.take(8), RECIPE, engine=make_engine(), seed=0).steps >= 8
    with pytest.raises(TrainError, match="lr="):
        find_rate(model(), data.train.take(3), RECIPE, engine=make_engine(), seed=0)


def test_transfer_finds_a_rate_for_pretrained_weights_alone(tmp_path: Path) -> None:
    data = lines(tmp_path / "lines")

    def titles(pretrained: bool, lr: float | None) -> set[str]:
        seen: list[str] = []
        settings = TransferSettings(pretrained, epochs=1, lr=lr, batch_size=8)
        watch = TrainExtras(progress=lambda done, total, what: seen.append(what))
        transfer(model(), data, settings, engine=make_engine(), seed=0, extras=watch)
        return {what for what in seen if "trying" in what}

    assert len(titles(True, None)) >= 3
    assert not titles(False, None)
    assert not titles(True, 0.01)


FOUND = Rate(0.003, "found", ((0.001, 0.6), (0.003, 0.5), (0.01, 0.55)), 0.7, 8)


def silencing(monkeypatch: pytest.MonkeyPatch, from_rate: float) -> list[float]:
    """Trainings at this rate or a higher one end in a model with one answer; gives the rates of those that are made."""
    rates: list[float] = []
    transfer_module = sys.modules[
        "prunedge.train.transfer"
    ]  # the package has a function of that name
    fit = transfer_module.fit

    def silenced(net: nn.Module, train: object, *, config: TrainConfig, **how: object) -> object:
        rates.append(config.lr)
        fitted = fit(net, train, config=config, **how)
        confusion = ((5, 0), (5, 0)) if config.lr >= from_rate else ((5, 0), (0, 5))
        with torch.no_grad():
            next(net.parameters()).add_(1.0)
        values = {**fitted.val.values, "accuracy": 0.5 if config.lr >= from_rate else 1.0}
        val = replace(fitted.val, values=values, details={"confusion": confusion})
        return replace(fitted, val=val)

    monkeypatch.setattr(transfer_module, "fit", silenced)
    return rates


@pytest.mark.parametrize(
    ("accuracy", "images", "is_little"),
    [(0.662, 142, True), (0.67, 142, True), (0.72, 142, False), (0.662, 20_000, False)],
)
def test_a_model_hardly_better_than_one_answer_knows_little(
    accuracy: float, images: int, is_little: bool
) -> None:
    cracks = round(0.641 * images)
    right = round(accuracy * images)
    # All cracks are found, and the rest of what is right are sound images.
    confusion = ((cracks, 0), (images - right, right - cracks))
    task = Classification(
        TaskSpec(name="classification", classes=("crack", "sound"), size=(32, 32))
    )
    values = {"accuracy": right / images}
    metrics = Metrics(0.6, values, images, details={"confusion": confusion})
    assert knows_little(task, metrics, task.metrics["accuracy"]) == is_little


def test_an_iou_of_a_few_points_is_a_beginning() -> None:
    task: Any = SimpleNamespace(only_answer=lambda metrics: None)
    assert not knows_little(task, Metrics(1.0, {"iou": 0.02}, 50), Metric("iou", is_macro=True))
    assert not knows_little(task, Metrics(1.0, {"mae": None}, 50), Metric("mae"))


@pytest.mark.parametrize(
    ("from_rate", "tried"),
    [
        (1.0, [0.003]),
        (0.003, [0.003, 0.001]),
        (0.001, [0.003, 0.001, 0.0003]),
        (0.0, [0.003, 0.001, 0.0003]),
    ],
)
def test_a_training_that_ends_in_one_answer_begins_anew_at_a_lower_rate(
    from_rate: float, tried: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, heard = lines(tmp_path / "lines"), []
    rates = silencing(monkeypatch, from_rate)
    net = model()
    first = {name: one.clone() for name, one in net.state_dict().items()}
    settings = TransferSettings(pretrained=True, epochs=1, batch_size=8)
    how = {"engine": make_engine(), "seed": 0}
    transfer(net, data, settings, rate=FOUND, lowered=heard.append, **how)
    assert rates == tried
    assert [rate.lr for rate in heard] == tried[1:]
    for rate in heard:
        assert Rate.from_json(json.loads(json.dumps(rate.to_json()))) == rate
        assert (
            "hardly better than one that gives every validation image the same answer"
            in rate.sentence()
        )
    # From the same weights as the first training: what a training from them at the last rate alone gives.
    again = model()
    again.load_state_dict(first)
    transfer(again, data, settings, rate=replace(FOUND, lr=tried[-1], silenced=(1.0, 1.0)), **how)
    assert all(torch.equal(again.state_dict()[name], one) for name, one in net.state_dict().items())


def test_a_rate_that_was_given_is_never_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = silencing(monkeypatch, 0.0)
    settings = TransferSettings(pretrained=True, epochs=1, batch_size=8)
    how = {"engine": make_engine(), "seed": 0}
    data = lines(tmp_path / "lines")
    transfer(model(), data, settings, rate=Rate(0.003, "as it was asked for"), **how)
    transfer(model(), data, replace(settings, lr=0.01), **how)
    assert rates == [0.003, 0.01]


def found_together() -> dict[str, object]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return find_rate(
            model(), lines(Path(folder) / "lines").train, RECIPE, engine=make_engine(), seed=0
        ).to_json()


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    alone = Rate.from_json(found_together())
    for record in together(found_together, 2, tmp_path):
        found = Rate.from_json(record)
        assert found.lr == alone.lr
        assert found.steps == alone.steps
        for (rate, loss), (other, other_loss) in zip(found.curve, alone.curve, strict=True):
            assert rate == other
            assert loss == pytest.approx(other_loss, abs=1e-4)
