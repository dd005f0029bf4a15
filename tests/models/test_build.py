from __future__ import annotations

import logging
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunedge.errors import ModelError, WeightsError
from prunedge.models import build, known_names


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "efficientnet_lite0", "timm/mobilenetv3_small_050"]
)
def test_a_name_becomes_a_model_with_one_output_per_class(name: str) -> None:
    net = build(name, ["crack", "sound", "unsure"], "none")
    assert net.training
    assert net.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(("name", "pixels"), [("googlenet", 32), ("inception_v3", 80)])
def test_auxiliary_heads_are_off(name: str, pixels: int) -> None:
    net = build(name, 2, "none").train()
    assert net(torch.randn(2, 3, pixels, pixels)).shape == (2, 2)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (
        build("squeezenet1_0", 2, "none", seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


def test_an_unknown_name_names_the_nearest_ones() -> None:
    with pytest.raises(ModelError, match=r"resnet81.*did you mean resnet18"):
        build("resnet81", 2, "none")
    assert {"resnet18", "vgg16_bn", "efficientnet_lite0"} <= set(known_names())


def test_no_classes_is_an_error() -> None:
    with pytest.raises(ModelError, match="at least one class"):
        build("resnet18", [], "none")


def test_a_function_of_the_users_is_called_with_the_number_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_build.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n"
        "def number(num_classes):\n    return num_classes\n"
    )
    monkeypatch.chdir(tmp_path)
    assert build("mine_for_build:tiny", 3, "none")[1].out_features == 3
    with pytest.raises(ModelError, match="returned int"):
        build("mine_for_build:number", 3, "none")
    with pytest.raises(WeightsError, match="weights='FILE'"):
        build("mine_for_build:tiny", 3, "imagenet")
    with pytest.raises(ModelError, match="no_such_module"):
        build("no_such_module:tiny", 3, "none")


def test_weights_that_cannot_be_downloaded_are_one_line_with_two_remedies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    for name in ("resnet18", "efficientnet_lite0"):
        with pytest.raises(WeightsError, match=r"weights='FILE'.*weights='none'") as caught:
            build(name, 2, "imagenet")
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_a_model_without_normalisation_starts_with_a_signal_that_keeps_its_size() -> None:
    net = build("vgg11", 2, "none").eval()
    seen: list[float] = []
    for layer in [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)][
        :-1
    ]:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(float(output.std())))
    with torch.no_grad():
        logits = net(torch.randn(2, 3, 32, 32))
    assert seen[0] > 0.5
    assert all(0.2 < later / seen[0] < 5 for later in seen)
    assert logits.abs().max() < 5


def test_a_random_head_starts_small_whatever_the_library_thinks() -> None:
    net = build("efficientnet_lite0", 2, "none")  # timm's own head would be uniform in +-0.7
    assert net.classifier.weight.abs().max() < 0.1
    assert not net.classifier.bias.any()


def test_models_round_trip_through_their_files(tmp_path: Path) -> None:
    net = build("squeezenet1_0", 2, "none", seed=3)
    state = net.state_dict()
    torch.save(state, tmp_path / "bare.pth")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        tmp_path / "wrapped.pt",
    )
    for folder in ("bundle", "run/checkpoints/step-000"):
        (tmp_path / folder).mkdir(parents=True)
        save_file(state, tmp_path / folder / "model.safetensors")
    for file in ("bare.pth", "wrapped.pt", "bundle", "run", "bundle/model.safetensors"):
        again = build("squeezenet1_0", 2, tmp_path / file).state_dict()
        assert all(torch.equal(again[key], state[key]) for key in state), file


def test_only_the_head_may_have_another_shape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = build("squeezenet1_0", 5, "none", seed=3).state_dict()
    torch.save(state, tmp_path / "five.pth")
    with caplog.at_level(logging.INFO):
        net = build("squeezenet1_0", 2, tmp_path / "five.pth")
    assert "classifier.1.weight" in caplog.text
    assert torch.equal(net.state_dict()["features.0.weight"], state["features.0.weight"])

    state["features.0.weight"] = torch.zeros(96, 1, 7, 7)
    del state["features.0.bias"]
    state["features.99.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError) as caught:
        build("squeezenet1_0", 2, tmp_path / "odd.pth")
    for part in (
        "features.0.weight (96, 1, 7, 7) for (96, 3, 7, 7)",
        "missing: features.0.bias",
        "not in the model: features.99.weight",
    ):
        assert part in str(caught.value)
