"""Batch norms for as long as a training lasts: they change nothing, help, and leave nothing behind."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunedge.train import TrainConfig, TrainExtras, TransferSettings, fit, make_engine
from prunedge.train.temporary_norms import NAME, norm_names, temporary_norms

ENGINE = make_engine("32")


class Plain(nn.Module):
    """Convolutions and linear layers, and no normalisation."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(8, 7)
        self.head = nn.Linear(7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


def batches(
    count: int = 4, size: int = 6, seed: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        labels = torch.randint(0, 3, (size,), generator=generator)
        images = torch.randn(size, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
        made.append((images, labels))
    return made


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 30))
def test_norms_change_nothing_until_something_is_learned(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    model = Plain().eval()
    with torch.no_grad():
        model.features[0].weight.mul_(scale)
    images = torch.randn(5, 3, 8, 8)
    before = model(images)
    with temporary_norms(model, batches(), ENGINE):
        assert norm_names(model) == ["features.0", "features.3", "hidden"]
        torch.testing.assert_close(
            model(images), before, rtol=1e-3, atol=1e-3 * float(before.detach().abs().max())
        )
    assert not norm_names(model)
    torch.testing.assert_close(
        model(images), before, rtol=1e-3, atol=1e-3 * float(before.detach().abs().max())
    )


def test_what_the_norms_have_learned_is_folded_into_the_weights() -> None:
    model = Plain()
    names = set(model.state_dict())
    images = torch.randn(5, 3, 8, 8)
    with temporary_norms(model, batches(), ENGINE):
        model.train()
        for batch, _ in batches(seed=3):
            model(batch)  # other running statistics
        with torch.no_grad():
            for layer in (model.features[0], model.features[3], model.hidden):
                layer.get_submodule(NAME).weight.mul_(1.5)
                layer.get_submodule(NAME).bias.add_(0.3)
        with_norms = model.eval()(images)
    assert set(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == [
        type(module) for module in Plain().modules()
    ]
    torch.testing.assert_close(model(images), with_norms, rtol=1e-4, atol=1e-5)


def test_an_error_in_the_training_leaves_the_model_as_it_was() -> None:
    model = Plain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), temporary_norms(model, batches(), ENGINE):
        raise RuntimeError("stop")
    assert set(model.state_dict()) == set(before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5)


def shared() -> nn.Module:
    model = Plain()
    model.features.append(nn.Conv2d(8, 8, 3, padding=1))
    model.features.append(nn.Conv2d(8, 8, 3, padding=1))
    model.features[-1].weight = model.features[-2].weight
    return model


def without_bias() -> nn.Module:
    model = Plain()
    model.features[3] = nn.Conv2d(6, 8, 3, bias=False)
    return model


def frozen() -> nn.Module:
    model = Plain()
    model.features[0].requires_grad_(False)
    return model


def normalised() -> nn.Module:
    model = Plain()
    model.features.append(nn.BatchNorm2d(8))
    return model


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Plain, ["features.0", "features.3", "hidden"]),
        (shared, ["features.0", "features.3", "hidden"]),
        (without_bias, ["features.0", "hidden"]),
        (frozen, ["features.3", "hidden"]),
        (normalised, []),
    ],
)  # fmt: skip
def test_which_layers_get_one(make: type[nn.Module], names: list[str]) -> None:
    model = make()
    with temporary_norms(model, batches(), ENGINE):
        assert norm_names(model) == names


def test_a_layer_that_runs_twice_gets_none() -> None:
    class Twice(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.features(x).mean((2, 3))
            x = self.hidden(x)
            return self.head(self.hidden(torch.cat((x, x[:, :1]), 1)))

    with temporary_norms(model := Twice(), batches(), ENGINE):
        assert norm_names(model) == ["features.0", "features.3"]


def test_a_last_batch_of_one_image_is_no_trouble() -> None:
    model = Plain()
    last = [(torch.randn(1, 3, 8, 8), torch.tensor([1]))]
    fitted = fit(
        model,
        batches() + last,
        epochs=1,
        config=TrainConfig(temporary_norms=True),
        engine=ENGINE,
        seed=0,
    )
    assert fitted.model is model
    assert not norm_names(model)


@pytest.mark.parametrize(
    "more",
    [{}, {"ema": 0.9}, {"optimizer": "adamw", "lr": 1e-3}, {"layer_decay": 0.5}, {"freeze": 1}],
)
def test_metrics_are_those_of_the_model_that_is_given_back(more: dict[str, object]) -> None:
    model = Plain()
    val = batches(3, seed=9)
    fitted = fit(
        model, batches(), epochs=3, config=TrainConfig(temporary_norms=True, **more), engine=ENGINE, seed=0, val=val
    )  # fmt: skip
    assert fitted.val is not None
    correct = sum(int((model.eval()(images).argmax(1) == labels).sum()) for images, labels in val)
    assert fitted.val.accuracy == pytest.approx(correct / 18)
    assert fitted.optimizer_state == {}
    assert set(model.state_dict()) == set(Plain().state_dict())


def test_the_best_epoch_is_folded_and_not_the_last() -> None:
    model = Plain()
    fitted = fit(
        model, batches(), epochs=4, config=TrainConfig(lr=5.0, temporary_norms=True), engine=ENGINE, seed=0, val=batches(3, seed=9)
    )  # fmt: skip
    assert fitted.val is not None
    best = fitted.history[fitted.best_epoch].val
    assert best is not None
    assert fitted.val.loss == pytest.approx(best.loss, rel=0.01)


def test_settings_choose_norms_and_adamw_for_plain_models_alone() -> None:
    with_norms = TransferSettings(pretrained=True, temporary_norms=True)
    plain = with_norms.config(Plain())
    assert (plain.temporary_norms, plain.optimizer, plain.lr) == (True, "adamw", 0.001)
    own = with_norms.config(normalised())
    assert (own.temporary_norms, own.optimizer, own.lr) == (False, "sgd", 0.01)
    without = replace(with_norms, temporary_norms=False).config(Plain())
    assert (without.temporary_norms, without.optimizer) == (False, "sgd")
    assert replace(with_norms, optimizer="sgd").config(Plain()).optimizer == "sgd"


def test_the_momentum_of_a_training_without_norms_is_left() -> None:
    model = Plain()
    first = fit(model, batches(), epochs=1, config=TrainConfig(), engine=ENGINE, seed=0)
    assert first.optimizer_state
    again = TrainConfig(lr=1e-3, optimizer="adamw", temporary_norms=True)
    extras = TrainExtras(optimizer_state=first.optimizer_state)
    assert (
        fit(
            model, batches(), epochs=1, config=again, engine=ENGINE, seed=0, extras=extras
        ).optimizer_state
        == {}
    )


def test_a_plain_model_is_fine_tuned_in_another_way_than_it_was_trained() -> None:
    trained = fit(Plain(), batches(), epochs=1, config=TrainConfig(lr=0.02), engine=ENGINE, seed=0)
    assert (trained.lr, trained.finetune_lr) == (0.02, None)
    trained = fit(
        normalised(), batches(), epochs=1, config=TrainConfig(lr=0.02), engine=ENGINE, seed=0
    )
    assert trained.finetune_lr == 0.02


def test_a_deep_plain_model_learns_with_norms_at_a_rate_that_silences_it_without() -> None:
    def deep() -> nn.Module:
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
        for _ in range(16):
            layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    data = batches(12, 16)
    val = batches(4, 16, seed=9)
    reached = {}
    for norms in (False, True):
        config = TrainConfig(lr=1e-2, optimizer="adamw", temporary_norms=norms)
        fitted = fit(deep(), data, epochs=6, config=config, engine=ENGINE, seed=0, val=val)
        assert fitted.val is not None
        reached[norms] = fitted.val.accuracy
    assert reached[True] > reached[False] + 0.2
