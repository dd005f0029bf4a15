"""Models of grey images: the same function as the model of three colours that they are made of, and one clear line where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.edge.image.normalise import ImageNorm, statistics
from prunedge.errors import ConfigError, ModelError, WeightsError
from prunedge.models import build, build_with_report, cost
from prunedge.models.one_channel import first_convolution


def colours(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(num_classes))


def grey(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


def normalised(images: torch.Tensor, norm: ImageNorm, channels: int) -> torch.Tensor:
    """Greys (n, 1, height, width) from 0 to 1 as models of so many channels are given them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics(norm, channels))
    return (images - mean) / std


def greys(size: int) -> torch.Tensor:
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))


# Where the first convolution pads (ResNet), the two are the same if colours are normalised alike;
# where it doesn't (SqueezeNet with a bias, a transformer's patches), always.
@pytest.mark.parametrize(
    ("name", "norm", "size"),
    [
        ("squeezenet1_1", "imagenet", 64),
        ("squeezenet1_1", "half", 64),
        ("timm/test_vit", "imagenet", 160),
        ("timm/test_resnet", "half", 64),
        ("timm/test_efficientnet", "half", 64),
    ],
)
def test_a_model_of_grey_images_answers_as_that_of_three_colours(
    name: str, norm: ImageNorm, size: int
) -> None:
    three = build(name, 3, "none", seed=2).eval()
    one = build(name, 3, "none", seed=2, in_channels=1, image_norm=norm).eval()
    images = greys(size)
    with torch.no_grad():
        wanted = three(normalised(images, norm, 3))
        found = one(normalised(images, norm, 1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_of_colours_that_are_normalised_apart_only_the_padding_differs() -> None:
    name = "timm/test_resnet"
    three = build(name, 3, "none").eval().get_submodule("conv1.0")
    one = build(name, 3, "none", in_channels=1).eval().get_submodule("conv1.0")
    images = greys(32)
    with torch.no_grad():
        wanted = three(normalised(images, "imagenet", 3))
        found = one(normalised(images, "imagenet", 1))
    within = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[within], wanted[within], rtol=1e-4, atol=1e-5)
    # Zeros are the mean colour for the one, the mean grey for the other.
    assert float((found - wanted).abs().max()) > 1e-3


def test_the_first_convolution_costs_a_third() -> None:
    three = build("squeezenet1_1", 2, "none")
    first = first_convolution(three, torch.zeros(1, 3, 64, 64), "squeezenet1_1")
    one = build("squeezenet1_1", 2, "none", in_channels=1)
    assert first.name == "features.0"
    assert first.macs == 64 * 3 * 3 * 3 * 31 * 31
    assert first.of_all == cost(three, torch.zeros(1, 3, 64, 64)).macs
    saved = first.of_all - cost(one, torch.zeros(1, 1, 64, 64)).macs
    assert saved == first.macs * 2 // 3


def test_weights_of_three_colours_are_summed_and_that_is_said(tmp_path: Path) -> None:
    name = "timm/test_resnet"
    file = tmp_path / "three.pth"
    source = build(name, 2, "none", seed=5)
    torch.save(source.state_dict(), file)
    one, loaded = build_with_report(name, 2, file, in_channels=1, image_norm="half")
    assert loaded is not None
    assert "conv1.0 is summed over the three colours, for grey images" in loaded.sentence()
    first = one.get_submodule("conv1.0")
    assert isinstance(first, nn.Conv2d)
    wanted = source.state_dict()["conv1.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(first.weight.detach(), wanted)


@pytest.mark.parametrize("maker", ["ours", "timm's"])
def test_weights_of_one_channel_are_taken_as_they_are(tmp_path: Path, maker: str) -> None:
    import timm

    name = "test_efficientnet"  # whose depthwise convolutions have one channel as well
    file = tmp_path / "one.pth"
    if maker == "ours":
        source = build(f"timm/{name}", 3, "none", seed=5, in_channels=1)
    else:
        source = timm.create_model(name, in_chans=1, num_classes=3)
    state = source.state_dict()
    torch.save(state, file)

    # Another number of classes: the head is new, and nothing else.
    one, loaded = build_with_report(f"timm/{name}", 2, file, in_channels=1)
    assert loaded is not None
    assert set(loaded.fresh) == {"classifier.weight", "classifier.bias"}
    assert "summed" not in loaded.sentence()
    for key, value in one.state_dict().items():
        if "classifier" not in key:
            wanted = state.get(key, torch.zeros_like(value))  # timm has no bias there
            assert torch.equal(value, wanted), key


@pytest.mark.parametrize(("held", "asked"), [(2, 1), (2, 3), (1, 3)])
def test_weights_of_another_number_of_channels_are_refused(
    tmp_path: Path, held: int, asked: Any
) -> None:
    import timm

    file = tmp_path / "other.pth"
    torch.save(timm.create_model("test_resnet", in_chans=held, num_classes=2).state_dict(), file)
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight") as error:
        build("timm/test_resnet", 2, file, in_channels=asked)
    assert "\n" not in str(error.value)
    # Only what would help is advised.
    assert ("in_channels=1" in str(error.value)) == (held == 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("googlenet", "normalises three colours by itself"),
        ("timm/test_nfnet", "is no plain convolution"),
        (f"{__name__}:colours", "no convolution that takes one channel"),
    ],
)
def test_models_that_can_not_see_grey_are_refused(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        build(name, 2, "none", in_channels=1)
    assert "\n" not in str(error.value)


def test_an_own_model_may_see_grey() -> None:
    model = build(f"{__name__}:grey", 2, "none", in_channels=1)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ModelError, match=r"2 channels.*in_channels=1"):
        build("squeezenet1_1", 2, "none", in_channels=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"in_channels=2.*1 or 3"):
        RunConfig.make("test", data="x", model="squeezenet1_1", in_channels=2)
