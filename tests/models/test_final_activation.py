"""Models whose answers are probabilities already are noticed; all others pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunedge.errors import ModelError
from prunedge.models import build
from prunedge.models.final_activation import ending, refuse_probabilities, refuse_rectified


def body(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, outputs),
    )


class Ended(nn.Module):
    def __init__(self, end, outputs: int = 3) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.body, self.end = body(outputs), end

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(images))


class Blind(Ended):
    """Its forward tells autograd nothing."""

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.end(20 * self.body(images))


def by_hand(logits: torch.Tensor) -> torch.Tensor:
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def both_sides(logit: torch.Tensor) -> torch.Tensor:
    return torch.cat([1 - logit.sigmoid(), logit.sigmoid()], 1)


IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("net", "found"),
    [
        (Ended(nn.Softmax(1)), "softmax"),
        (Ended(by_hand), "softmax"),
        (Ended(both_sides, 1), "softmax"),
        (Ended(lambda x: x.softmax(1).clamp(1e-6, 1).view(-1, 3)), "softmax"),
        (Ended(nn.Sigmoid()), "sigmoid"),
        (Ended(lambda x: x.sigmoid().unsqueeze(2).flatten(1)), "sigmoid"),
        (Blind(nn.Softmax(1)), "softmax"),
        (Blind(nn.Sigmoid()), "sigmoid"),
    ],
)
def test_probabilities_are_noticed(net: nn.Module, found: str) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert ending(net, IMAGES) == found
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(
        ModelError, match=rf"this model ends in a {found}.*own:net.*remove the last layer"
    ):
        refuse_probabilities(net, IMAGES, "own:net")
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert ending(net, IMAGES) == found


@pytest.mark.parametrize(
    "end",
    [
        nn.Identity(),
        nn.LogSoftmax(1),
        nn.ReLU(),
        lambda x: x * x.sigmoid(),
        lambda x: 0 * x + 0.4,
        lambda x: x.abs() / 100,
        nn.Tanh(),
    ],
)
def test_logits_pass(end) -> None:  # type: ignore[no-untyped-def]
    refuse_probabilities(Ended(end), IMAGES)
    refuse_probabilities(Blind(end), IMAGES)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_models_of_the_libraries_pass(name: str) -> None:
    for seed in range(2):
        refuse_probabilities(build(name, 2, "none", seed=seed), torch.randn(2, 3, 64, 64), name)


@pytest.mark.parametrize(
    "net",
    [
        Ended(nn.ReLU()),
        Ended(lambda x: x.relu().view(-1, 3, 1, 1).mean((2, 3))),
        build("squeezenet1_0", 3, "none"),
    ],
)
def test_a_relu_at_the_end_is_refused_where_outputs_must_fall_below_0(net: nn.Module) -> None:
    images = IMAGES if isinstance(net, Ended) else torch.randn(2, 3, 64, 64)
    refuse_probabilities(net, images)
    with pytest.raises(ModelError, match="ends in a ReLU") as refused:
        refuse_rectified(net, images, "squeezenet")
    assert refused.value.where == "squeezenet"
    assert "no number below the mean" in refused.value.what


@pytest.mark.parametrize(
    "net", [body(), Ended(nn.Identity()), Ended(nn.LeakyReLU()), Blind(torch.relu)]
)
def test_other_ends_may_fall_below_0(net: nn.Module) -> None:
    refuse_rectified(net, IMAGES)
    refuse_rectified(net, torch.zeros(1, 5, 2, 2))
