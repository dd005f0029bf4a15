"""The files that people have: what trainers write around a state dict."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models import Loaded, build, build_with_report, read_weights

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def source() -> State:
    """A ResNet18 for 1,000 classes."""
    state = build("resnet18", 1000, "none", seed=1).state_dict()
    for name in state:
        if name.endswith("running_mean"):
            state[name].normal_(generator=torch.Generator().manual_seed(len(name)))
    return state


def backbone(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def other(state: State) -> State:
    """The same names with other numbers: what must not be taken."""
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def assert_backbone(path: Path, source: State) -> Loaded:
    """Builds for two classes from the file; every tensor of the backbone is the source's, and the head alone is new."""
    net, loaded = build_with_report("resnet18", 2, path)
    assert loaded is not None
    own = net.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in backbone(source).items())
    assert set(loaded.fresh) == {"fc.weight", "fc.bias"}
    assert "fc.weight" in loaded.sentence()
    return loaded


def projector() -> State:
    return {
        "projector.0.weight": torch.ones(8, 512),
        "projector.0.bias": torch.ones(8),
        "projector.2.weight": torch.ones(4, 8),
    }


def momentum(state: State) -> State:
    """MoCo v2: the query encoder with a projection in the place of its head, the key encoder, the queue."""
    ends = {
        "fc.0.weight": torch.ones(512, 512),
        "fc.0.bias": torch.ones(512),
        "fc.2.weight": torch.ones(128, 512),
    }
    return {
        **prefixed({**backbone(state), **ends}, "module.encoder_q."),
        **prefixed({**other(backbone(state)), **ends}, "module.encoder_k."),
        "module.queue": torch.ones(128, 64),
        "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
    }


LAYOUTS: dict[str, Any] = {
    "whole": lambda s: s,
    "backbone alone": backbone,
    "{net}": lambda s: {"net": s, "epoch": 3},
    "{net} beside another": lambda s: {"net": s, "discriminator": other(s)},
    "{network} beside another": lambda s: {"network": s, "discriminator": other(s)},
    "{model, optimizer}": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "epoch": 1,
    },
    "{state_dict: module.}": lambda s: {
        "state_dict": OrderedDict(prefixed(s, "module.")),
        "best_acc1": torch.tensor(71.0),
    },
    "{model_ema}": lambda s: {
        "model": other(s),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed(s, "module.")},
    },
    "{state_dict_ema}": lambda s: {"state_dict": other(s), "state_dict_ema": s, "arch": "resnet18"},
    "{ema: {module}}": lambda s: {"ema": {"module": s, "decay": 0.99}, "model": other(s)},
    "{ema: None}": lambda s: {"ema": None, "model": s},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "compiled in parallel": lambda s: {"model_state_dict": prefixed(s, "module._orig_mod.")},
    "backbone.": lambda s: {**prefixed(backbone(s), "backbone."), **projector()},
    "encoder.": lambda s: {"state_dict": {**prefixed(backbone(s), "encoder."), **projector()}},
    "MoCo": lambda s: {"state_dict": momentum(s), "arch": "resnet18"},
    "DINO": lambda s: {
        "student": prefixed(
            {**prefixed(other(backbone(s)), "backbone."), "head.mlp.0.weight": torch.ones(8, 512)},
            "module.",
        ),
        "teacher": {**prefixed(backbone(s), "backbone."), "head.mlp.0.weight": torch.ones(8, 512)},
        "dino_loss": {"center": torch.ones(1, 8)},
        "optimizer": {"state": {}},
        "epoch": 100,
    },
    "teacher and student": lambda s: {
        **prefixed(other(s), "student_backbone."),
        **prefixed(s, "teacher_backbone."),
    },
    "a model within one with a loss": lambda s: {
        "state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(2)}
    },
    "a loss beside the model": lambda s: {
        "state_dict": {**s, "criterion.weight": torch.ones(2), "val_acc.tp": torch.zeros(2)}
    },
    "auxiliary heads": lambda s: {
        **s,
        "aux1.weight": torch.ones(2, 512),
        "AuxLogits.fc.weight": torch.ones(2, 512),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_trainers_are_loaded_and_heads_of_others_left_out(
    layout: str, source: State, tmp_path: Path
) -> None:
    torch.save(LAYOUTS[layout](source), tmp_path / "file.pth")
    loaded = assert_backbone(tmp_path / "file.pth", source)
    for part in ("projector", "loss", "criterion", "encoder_k", "aux1"):
        assert (part in loaded.sentence()) == any(part in name for name in loaded.left_out)


def test_what_was_left_out_and_which_entry_was_taken_is_told(source: State, tmp_path: Path) -> None:
    torch.save(
        {"model": other(source), "model_ema": prefixed(source, "module.")}, tmp_path / "ema.pth"
    )
    said = assert_backbone(tmp_path / "ema.pth", source).sentence()
    assert "model_ema" in said
    assert "not from model" in said
    assert "without 'module.'" in said
    save_file(
        {**prefixed(backbone(source), "backbone."), **projector()}, tmp_path / "ssl.safetensors"
    )
    said = assert_backbone(tmp_path / "ssl.safetensors", source).sentence()
    assert "left out of the file: 3 of projector" in said


def test_a_model_that_is_there_twice_is_refused(source: State, tmp_path: Path) -> None:
    torch.save(
        {**prefixed(source, "first."), **prefixed(other(source), "second.")}, tmp_path / "twice.pth"
    )
    with pytest.raises(WeightsError, match=r"more than once, under 'first\.' and 'second\.'"):
        build("resnet18", 2, tmp_path / "twice.pth")
    torch.save({"camera_a": source, "camera_b": other(source)}, tmp_path / "entries.pth")
    with pytest.raises(WeightsError, match="several models: camera_a, camera_b"):
        build("resnet18", 2, tmp_path / "entries.pth")


def test_a_vgg_without_its_classifier_keeps_a_start_that_it_can_learn_from(tmp_path: Path) -> None:
    state = {
        name: tensor
        for name, tensor in build("vgg11", 3, "none", seed=2).state_dict().items()
        if name.startswith("features.")
    }
    save_file(state, tmp_path / "vgg.safetensors")
    net, loaded = build_with_report("vgg11", 2, tmp_path / "vgg.safetensors")
    assert loaded is not None
    assert {name.split(".")[1] for name in loaded.fresh} == {"0", "3", "6"}
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in state.items())
    seen: list[float] = []
    for place in (0, 3):
        net.classifier[place].register_forward_hook(
            lambda module, inputs, output: seen.append(float(output.std()))
        )
    with torch.no_grad():
        logits = net.eval()(torch.randn(2, 3, 32, 32))
    assert 0.3 < seen[1] / seen[0] < 3
    assert logits.abs().max() < 5


def lightnings(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint as Lightning writes it: objects of classes that are not installed here, beside the weights."""
    module = types.ModuleType("lightning_made_up.utilities")
    exec(
        "class AttributeDict(dict):\n    pass\nclass Callback:\n    def __init__(self):\n        self.best = 1\n",
        module.__dict__,
    )
    for made in (module.AttributeDict, module.Callback):
        made.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, "lightning_made_up", types.ModuleType("lightning_made_up"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(
        {
            "epoch": np.int64(3),
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(2)},
            "callbacks": {
                "ModelCheckpoint": {
                    "best_k_models": {"a.ckpt": torch.tensor(0.3)},
                    "dirpath": Path("runs"),
                }
            },
            "hyper_parameters": module.AttributeDict(
                lr=0.1, seen=np.float64(0.5), options=argparse.Namespace(deep=True)
            ),
            "made": module.Callback(),
        },
        folder / "last.ckpt",
    )
    monkeypatch.delitem(sys.modules, module.__name__)
    return folder / "last.ckpt"


def test_lightnings_checkpoint_is_loaded_without_its_classes(
    source: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = assert_backbone(lightnings(source, tmp_path, monkeypatch), source)
    assert loaded.left_out == ("loss.weight",)


class Runs:
    """What would run code, were it unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.run, (["touch", str(self.mark)],)


def test_objects_beside_the_weights_are_never_run(source: State, tmp_path: Path) -> None:
    torch.save({"state_dict": source, "extra": Runs(tmp_path / "sprung")}, tmp_path / "mixed.pth")
    assert_backbone(tmp_path / "mixed.pth", source)
    torch.save({**source, "conv1.weight": Runs(tmp_path / "sprung")}, tmp_path / "within.pth")
    with pytest.raises(WeightsError, match=r"not tensors: conv1\.weight \("):
        read_weights(tmp_path / "within.pth")
    assert not (tmp_path / "sprung").exists()


class Whole(nn.Linear):
    """A class of the user's own, whose objects are saved whole."""


@pytest.mark.parametrize("entry", ["", "model"])
def test_a_whole_model_is_one_line_with_the_command_that_converts_it(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Whole(2, 2)
    torch.save({entry: whole, "epoch": 1} if entry else whole, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="could run its code") as caught:
        read_weights(tmp_path / "whole.pt")
    assert "\n" not in str(caught.value)
    command = str(caught.value).partition('python -c "')[2].rpartition('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(command)  # as the user would, who trusts the file
    assert torch.equal(read_weights("weights.pth")["weight"], whole.weight)


def test_a_torchscript_program_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Linear(2, 2)
    torch.jit.trace(net, torch.zeros(1, 2)).save(str(tmp_path / "net.pt"))
    with pytest.raises(WeightsError, match="TorchScript") as caught:
        read_weights(tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition('python -c "')[2].rpartition('"')[0])
    assert torch.equal(read_weights("weights.pth")["weight"], net.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_numbers_are_converted_and_told(
    dtype: torch.dtype, source: State, tmp_path: Path
) -> None:
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in source.items()
    }
    save_file(state, tmp_path / "half.safetensors")
    net, loaded = build_with_report("resnet18", 2, tmp_path / "half.safetensors")
    assert loaded is not None
    assert f"converted from {str(dtype).removeprefix('torch.')}" in loaded.sentence()
    assert net.conv1.weight.dtype == torch.float32
    assert torch.equal(net.conv1.weight, state["conv1.weight"].float())


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.uint8, torch.float8_e4m3fn])
def test_numbers_that_are_no_weights_are_refused_by_name(
    dtype: torch.dtype, source: State, tmp_path: Path
) -> None:
    state = {
        name: tensor.to(dtype) if name.endswith("conv1.weight") else tensor
        for name, tensor in source.items()
    }
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"not of floating point: conv1\.weight \(") as caught:
        build("resnet18", 2, tmp_path / "odd.pth")
    assert "float32" in str(caught.value)


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(
        {"conv1.weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)},
        tmp_path / "q.pth",
    )
    with pytest.raises(WeightsError, match="quantised"):
        read_weights(tmp_path / "q.pth")


def test_shapes_that_another_tool_has_pruned_are_named_with_what_to_do(
    source: State, tmp_path: Path
) -> None:
    narrow = {
        name: tensor[
            tuple(slice(0, max(1, n // 2)) if n > 3 else slice(None) for n in tensor.shape)
        ].clone()
        if tensor.ndim
        else tensor
        for name, tensor in source.items()
        if not name.startswith("fc.")
    }
    torch.save(narrow, tmp_path / "pruned.pth")
    with pytest.raises(
        WeightsError,
        match=r"as if it had been pruned.*before the pruning.*yourmodule:function as the model.*--from RUN",
    ):
        build("resnet18", 2, tmp_path / "pruned.pth")


def test_another_librarys_names_are_recognised(tmp_path: Path) -> None:
    torch.save(build("timm/vit_tiny_patch16_224", 2, "none").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"\(timm/NAME\)"):
        build("vit_b_16", 2, tmp_path / "vit.pth")


def test_a_masked_autoencoders_encoder_is_loaded_without_its_decoder(tmp_path: Path) -> None:
    source = build("timm/vit_tiny_patch16_224", 2, "none", seed=1).state_dict()
    decoder = {
        "mask_token": torch.ones(1, 1, 8),
        "decoder_blocks.0.norm1.weight": torch.ones(8),
        "decoder_pos_embed": torch.ones(1, 197, 8),
    }
    encoder = {name: tensor for name, tensor in source.items() if not name.startswith("head.")}
    torch.save({"model": {**encoder, **decoder}}, tmp_path / "mae.pth")
    net, loaded = build_with_report("timm/vit_tiny_patch16_224", 2, tmp_path / "mae.pth")
    assert loaded is not None
    assert set(loaded.fresh) == {"head.weight", "head.bias"}
    assert set(loaded.left_out) == decoder.keys()
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in encoder.items())
