"""What the blocks of a model are, which of them stay as they are, and how fast each learns."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import prunedge as pe
from prunedge.errors import TrainError
from prunedge.train import TrainConfig, fit, make_engine
from prunedge.train.blocks import blocks_of, frozen_blocks, rate_shares
from tests.train.tiny import images, model

EXAMPLE = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("resnet18", 6, ["conv1", "layer1", "layer2", "layer3", "layer4"], "fc"),
        ("vgg11_bn", 9, ["features.0", "features.4", "features.8"], "classifier"),
        ("squeezenet1_1", 10, ["features.0", "features.3", "features.4"], "classifier"),
        ("timm/efficientnet_lite0", 10, ["conv_stem", "blocks.0", "blocks.1"], "classifier"),
        ("regnet_y_400mf", 6, ["stem", "trunk_output.block1"], "fc"),
    ],
)
def test_blocks_are_the_stages_that_users_know(
    name: str, count: int, first: list[str], last: str
) -> None:
    net = pe.build(name, 2, "none")
    found = blocks_of(net, EXAMPLE)
    assert len(found) == count
    assert [block.name for block in found][: len(first)] == first
    assert found[-1].name == last
    held = [parameter for block in found for parameter in block.parameters]
    assert sorted(held) == sorted(name for name, _ in net.named_parameters())


def test_a_norm_belongs_to_the_convolution_before_it() -> None:
    found = blocks_of(pe.build("resnet18", 2, "none"), EXAMPLE)
    assert found[0].parameters == ("conv1.weight", "bn1.weight", "bn1.bias")


class Backwards(nn.Module):
    """Defined from its end to its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3)
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.second(self.first(x))).mean((2, 3)))


def test_blocks_are_in_the_order_of_use() -> None:
    net = Backwards().train()
    statistics = net.norm.running_mean
    assert statistics is not None
    before = statistics.clone()
    found = blocks_of(net, torch.ones(1, 3, 8, 8))
    assert [block.name for block in found] == ["first", "second", "head"]
    assert found[1].parameters == ("second.weight", "second.bias", "norm.weight", "norm.bias")
    assert net.training
    assert torch.equal(statistics, before)


def test_blocks_stay_frozen_until_the_end_of_the_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = model()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    config = TrainConfig(lr=0.05, freeze=1)
    with caplog.at_level(logging.DEBUG):
        fitted = fit(net, images(16), epochs=1, config=config, engine=make_engine(), seed=0)
    assert "frozen: 0" in caplog.text
    for name, tensor in net.state_dict().items():
        is_frozen = name.startswith(("0.", "1."))
        assert torch.equal(tensor, before[name]) == is_frozen, name
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert set(fitted.optimizer_state) == {"6.weight", "6.bias"}


def test_something_has_to_be_left_to_train() -> None:
    net = model()
    blocks = blocks_of(net, EXAMPLE[:, :, :16, :16])
    what = r"freeze=2 leaves nothing to train: the model has 2 blocks \(0, 6\): give 1 at the most"
    with pytest.raises(TrainError, match=what), frozen_blocks(net, blocks, 2):
        pass


def test_what_lies_further_from_the_end_learns_more_slowly() -> None:
    blocks = blocks_of(Backwards(), torch.ones(1, 3, 8, 8))
    shares = rate_shares(blocks, 0.5)
    assert shares["first.weight"] == 0.25
    assert shares["second.weight"] == shares["norm.bias"] == 0.5
    assert shares["head.weight"] == 1.0

    steps = {}
    for decay in (None, 1e-6):
        net = model()
        before = net[0].weight.detach().clone()
        config = TrainConfig(lr=0.05, layer_decay=decay)
        fit(net, images(16), epochs=1, config=config, engine=make_engine(), seed=0)
        steps[decay] = float((net[0].weight.detach() - before).norm())
    assert 0 < steps[1e-6] < 1e-4 * steps[None]
