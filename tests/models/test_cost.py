from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunedge.errors import ModelError
from prunedge.models import Cost, build, cost


def test_a_hand_counted_model() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 2),
    )
    # convolution: 8 x 8 positions x 4 filters x 27 weights; linear: 256 x 2
    params = 4 * 27 + 4 + 4 + 4 + 256 * 2 + 2
    assert cost(net, torch.zeros(5, 3, 8, 8)) == Cost(
        macs=64 * 4 * 27 + 512, params=params, bytes=4 * (params + 8)
    )
    assert cost(net, torch.zeros(1, 3, 8, 8)).size_mb == pytest.approx(4 * (params + 8) / 1e6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_it_agrees_with_torchs_own_counter(name: str) -> None:
    net, image = build(name, 2, "none").eval(), torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    assert 2 * cost(net, image).macs == counter.get_total_flops()


def test_attention_is_counted_although_torch_fuses_it() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = torch.zeros(1, 5, 8)
    projections, scores, feed_forward = 5 * 8 * 32, 2 * 5 * 5 * 8, 2 * 5 * 8 * 16
    assert cost(layer, tokens).macs == projections + scores + feed_forward


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert cost(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)) == Cost(
        macs=32, params=16, bytes=64
    )


def test_the_model_and_the_random_state_stay_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[1].eval()
    state, random = (
        {key: tensor.clone() for key, tensor in net.state_dict().items()},
        torch.get_rng_state(),
    )
    cost(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in net] == [True, False, True]
    assert net.training
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_a_image_that_is_too_small_is_an_error_of_one_line() -> None:
    with pytest.raises(ModelError, match=r"doesn't take an image of 3x8x8.*size=") as caught:
        cost(build("inception_v3", 2, "none"), torch.zeros(1, 3, 8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vit_b_32", "timm/vit_tiny_patch16_224"])
def test_a_model_that_is_made_for_one_size_names_it_and_the_way_out(name: str) -> None:
    with torch.device("meta"):
        transformer = build(name, 2, "none")
    with pytest.raises(
        ModelError, match=r"made for 224 pixels: size=224; or .*img_size=\(32, 96\)"
    ):
        cost(transformer, torch.zeros(1, 3, 32, 96, device="meta"))


def test_a_function_of_one_s_own_makes_a_transformer_for_images_that_are_not_square() -> None:
    wide = build("tests.models.test_cost:wide", 2, "none")
    assert cost(wide, torch.zeros(1, 3, 32, 96)).macs > 0


def wide(num_classes: int) -> nn.Module:
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", depth=1, num_classes=num_classes, img_size=(32, 96)
    )
