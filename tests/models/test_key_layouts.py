"""A file of torchvision's fills timm's model of the same architecture, and the other way round, to equal answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models import build, build_with_report
from prunedge.models.key_layouts import COUNTERPARTS, ONE_WAY, reshaped, translated
from prunedge.models.makers import maker_of

SMALL = (
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
)
NAMED = (
    *SMALL,
    "mnasnet0_5",
    "swin_t",
    "regnet_x_400mf",
    "vgg11",
    "vgg13_bn",
    "vit_b_16",
)  # the larger ones are filled by the slow tests alone
CLASSES = 3


def random_model(name: str) -> nn.Module:
    """With norms whose numbers are not all alike, so that one in another's place is seen, and that fit what passes them."""
    model = build(name, CLASSES, "none", seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(
                    torch.rand(tensor.shape, generator=generator) * 0.4 + 0.8
                    if "bias" not in key
                    else tensor
                )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics are those of all that has passed
        norm.reset_running_stats()
    if norms:
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 96, 96, generator=generator))
    return model.eval()


def sorted_file(model: nn.Module, folder: Path) -> Path:
    """As hubs keep weights: by name, without the order in which modules were made."""
    save_file(
        {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())},
        folder / "weights.safetensors",
    )
    return folder / "weights.safetensors"


def check(source: str, target: str, folder: Path) -> None:
    model = random_model(source)
    loaded, told = build_with_report(target, CLASSES, sorted_file(model, folder))
    assert told is not None
    assert told.fresh == ()
    assert "'s names" in told.how
    size = (
        224
        if source.startswith(("vit", "swin", "timm/vit", "timm/swin", "vgg", "timm/vgg"))
        else 96
    )
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = model(images), loaded.eval()(images)
    assert float(wanted.std(0).max()) > 1e-6  # the answers tell the images apart
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device(
        "cpu" if "regnet" in name else "meta"
    ):  # torchvision's RegNets work their widths out in tensors
        model = maker_of(name).make(CLASSES)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "name",
    [
        name if name in NAMED else pytest.param(name, marks=pytest.mark.slow)
        for name in COUNTERPARTS
    ],
)
def test_every_name_has_its_counterpart_with_as_many_numbers(name: str) -> None:
    duplicate = f"timm/{COUNTERPARTS[name]}"
    shapes = {one: shapes_of(one) for one in (name, duplicate)}
    for source, target in ((name, duplicate), (duplicate, name)):
        found = translated(target, shapes[source], shapes[target])
        if source == duplicate and name.startswith(ONE_WAY):
            assert found is None
            continue
        assert found is not None
        assert found[0] == ("timm" if source == duplicate else "torchvision")
        given = {
            to: reshaped(shapes[source][key], shapes[target].get(to))
            for key, to in found[1].items()
        }
        derived = {
            key for key in {*given, *shapes[target]} if key.endswith("relative_position_index")
        }
        assert {key: given[key] for key in given.keys() - derived} == {
            key: shapes[target][key] for key in shapes[target].keys() - derived
        }


@pytest.mark.parametrize(
    "name",
    [
        name if name in SMALL else pytest.param(name, marks=pytest.mark.slow)
        for name in COUNTERPARTS
    ],
)
def test_both_libraries_models_answer_alike(name: str, tmp_path: Path) -> None:
    check(name, f"timm/{COUNTERPARTS[name]}", tmp_path)
    if not name.startswith(ONE_WAY):
        check(f"timm/{COUNTERPARTS[name]}", name, tmp_path)


def test_names_that_both_libraries_share_need_no_table(tmp_path: Path) -> None:
    model = random_model("resnet18")
    loaded, told = build_with_report("timm/resnet18", CLASSES, sorted_file(model, tmp_path))
    images = torch.randn(2, 3, 64, 64)
    assert told is not None
    assert told.how == "by name"
    torch.testing.assert_close(loaded.eval()(images), model(images))


def test_a_file_with_a_wrapper_and_another_head_starts_with_a_new_head(tmp_path: Path) -> None:
    """As trainers keep it: under `model.`, beside a loss."""
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=7)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(7)}}, tmp_path / "last.ckpt")
    loaded, told = build_with_report("timm/mobilenetv2_100", CLASSES, tmp_path / "last.ckpt")
    assert told is not None
    assert set(told.fresh) == {"classifier.weight", "classifier.bias"}
    assert "loss.weight" in told.left_out
    torch.testing.assert_close(loaded.conv_stem.weight, model.features[0][0].weight)


def test_a_backbone_alone_of_timm_s_fills_torchvision_s(tmp_path: Path) -> None:
    model = timm.create_model("convnext_tiny", num_classes=0)
    loaded, told = build_with_report("convnext_tiny", CLASSES, sorted_file(model, tmp_path))
    assert told is not None
    assert set(told.fresh) == {"classifier.2.weight", "classifier.2.bias"}
    torch.testing.assert_close(
        loaded.features[1][0].layer_scale.flatten(), model.stages[0].blocks[0].gamma
    )


@pytest.mark.slow
def test_old_files_of_torchvision_s_vision_transformers_fill_both(tmp_path: Path) -> None:
    """Their perceptrons' layers were called `linear_1` and `linear_2`; torchvision renames them when it loads."""
    model = random_model("vit_b_32")
    state = model.state_dict()
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): state[
            name
        ].contiguous()
        for name in sorted(state)
    }
    save_file(old, tmp_path / "old.safetensors")
    images = torch.randn(1, 3, 224, 224)
    for name in ("vit_b_32", "timm/vit_base_patch32_224"):
        loaded, _ = build_with_report(name, CLASSES, tmp_path / "old.safetensors")
        torch.testing.assert_close(loaded.eval()(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("mobilenet_v3_small", "timm/mobilenetv3_small_100"),  # other small numbers in their norms
        (
            "timm/efficientnet_b0",
            "efficientnet_b0",
        ),  # tf_efficientnet_b0 looks the same and pads otherwise
        ("mobilenet_v2", "timm/mobilenetv2_050"),  # another width
        ("regnet_y_400mf", "timm/regnety_002"),
    ],
)
def test_what_is_another_function_is_refused_in_a_line(
    source: str, target: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as raised:
        build(target, CLASSES, sorted_file(random_model(source), tmp_path))
    assert "model" in str(raised.value)
    assert "\n" not in str(raised.value)
