"""Runs whose model sees one channel: trained, pruned, judged, exported and gone on from; and a line where others could."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import prunedge as pe
from prunedge.cli.app import main
from prunedge.config import RunConfig
from prunedge.edge import open_bundle
from prunedge.edge.session import open_session
from prunedge.errors import ModelError, PrunedgeError
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import write_bundle
from prunedge.runs.judged_model import predictor_of
from prunedge.runs.onward import config_from_run
from prunedge.runs.run import open_run
from tests.refusals import refusal
from tests.tiny_images import write_tiny

NAME = "timm/test_resnet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of grey images."""
    folder = write_tiny(tmp_path_factory.mktemp("images"), 24, 32)
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    return folder


def recipe(data: Path, **changes: Any) -> RunConfig:
    values = {
        "model": NAME,
        "weights": "none",
        "size": 32,
        "train_epochs": 8,
        "precision": "32",
        "step_ratio": 0.3,
        "max_drop": 100.0,
        "max_steps": 1,
        "epochs": 1,
        "polish": 0,
        "batch_size": 8,
        "lr": 0.02,
        "in_channels": 1,
    }
    return RunConfig.make("test", data=str(data), **{**values, **changes})


@pytest.fixture(scope="module")
def pruned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    execute.prune(recipe(data, baseline=["scratch"]), out)
    return out


@pytest.fixture(scope="module")
def exported(pruned: Path) -> Path:
    formats = ("onnx", "onnx-int8", "tensorrt")
    write_bundle(open_run(pruned), pruned.parent / "bundle", formats=formats, max_int8_drop=100.0)
    return pruned.parent / "bundle"


def first_layer(model: nn.Module) -> nn.Conv2d:
    layer = model.get_submodule("conv1.0")
    assert isinstance(layer, nn.Conv2d)
    return layer


def test_every_model_of_a_run_sees_one_channel(pruned: Path) -> None:
    run = open_run(pruned)
    assert run.config.data.in_channels == 1
    steps = run.steps()
    assert steps[-1].macs < steps[0].macs
    for model in (run.load_first(), run.load()):
        assert first_layer(model).in_channels == 1
        assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 2)
    assert (run.read("baselines.json") or {})["scratch"]["macs"] == run.best().macs


def test_a_bundle_of_it_sees_one_channel_and_loads_again(exported: Path) -> None:
    bundle = open_bundle(exported)
    assert bundle.manifest.task.in_channels == 1
    script = (exported / "build_tensorrt.sh").read_text(encoding="utf-8")
    assert "--maxShapes=images:32x1x32x32" in script

    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    model = pe.load(exported)
    with torch.no_grad():
        wanted = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.449) / 0.226)
    found = open_session(bundle).answer(pixels)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-3)


def test_run_and_bundle_are_judged_and_answer_alike(
    pruned: Path, exported: Path, data: Path
) -> None:
    values = []
    for place in (pruned, exported):
        values.append(pe.evaluate_on(place, data, split="all", resamples=10).judged.value)
    assert values[0] == values[1]

    files = [np.asarray(Image.open(file)) for file in sorted(data.rglob("*.png"))[:3]]
    pixels = np.stack(files)[..., None]
    found = predictor_of(pruned).outputs(pixels)
    wanted = open_session(open_bundle(exported)).answer(pixels)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_who_goes_on_from_it_sees_one_channel_too(pruned: Path) -> None:
    assert config_from_run(pruned, {}).data.in_channels == 1
    with pytest.raises(PrunedgeError, match="this many channels: 1"):
        config_from_run(pruned, {"in_channels": 3})


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_run_says_what_grey_images_would_save(
    data: Path, tmp_path: Path, in_channels: int
) -> None:
    lines: list[str] = []
    config = recipe(data, in_channels=in_channels, train_epochs=0)
    execute.train(config, tmp_path / "run", Callbacks(on_line=lines.append))
    told = [line for line in lines if "all images are grey" in line]
    if in_channels == 1:
        assert told == []
        return
    (line,) = told
    first = 3 * 3 * 3 * first_layer(open_run(tmp_path / "run").load()).out_channels * 16 * 16
    assert "in_channels=1 would save two thirds of conv1.0" in line
    assert f"{2 * first / 3 / 1e6:,.1f} of the model's" in line


def test_a_run_that_does_not_say_sees_three_channels(data: Path, tmp_path: Path) -> None:
    execute.train(recipe(data, in_channels=3, train_epochs=0), tmp_path / "run")
    file = tmp_path / "run" / "config.toml"
    text = file.read_text(encoding="utf-8")
    assert "in_channels = 3\n" in text
    file.write_text(text.replace("in_channels = 3\n", ""), encoding="utf-8")
    assert RunConfig.from_toml(file).data.in_channels == 3


def test_the_library_goes_the_same_way(data: Path, tmp_path: Path) -> None:
    images = pe.load_folder(data, size=32, in_channels=1, cache_dir=tmp_path)
    model = pe.build(NAME, images.classes, "none", in_channels=images.in_channels)
    pe.fit(model, images, epochs=1, pretrained=False, engine=pe.make_engine("32"), lr=0.02)
    loop = pe.prune(model, images, max_drop=100.0, max_steps=1, polish=0, batch_size=8)
    steps = list(loop)
    assert steps[-1][0].macs < steps[0][0].macs
    bundle = pe.export_bundle(steps[-1][1], images, tmp_path / "bundle", model_name=NAME)
    assert json.loads((bundle.path / "manifest.json").read_text())["task"]["in_channels"] == 1
    page = pe.write_report(
        tmp_path / "page.html",
        [step for step, _ in steps],
        images,
        models=(model, steps[-1][1]),
        model_name=NAME,
    )
    assert "in channels" in page.read_text(encoding="utf-8")


def test_a_model_of_the_other_number_of_channels_is_one_clear_error(
    data: Path, tmp_path: Path
) -> None:
    images = pe.load_folder(data, size=32, cache_dir=tmp_path)
    model = pe.build(NAME, images.classes, "none", in_channels=1)
    for use in (lambda: pe.fit(model, images), lambda: pe.cost(model, images.example())):
        with pytest.raises(ModelError, match="other channels: in_channels=1") as error:
            use()
        assert "\n" not in str(error.value)


def test_the_command_line_takes_one_channel_or_three(
    pruned: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--in-channels 2: give 1 or 3" in refusal("train", data, "--in-channels", 2)
    with pytest.raises(SystemExit):
        main(["groups", "--from", str(pruned), "--json"])
    assert json.loads(capsys.readouterr().out)["macs"] == open_run(pruned).best().macs
    line = refusal("groups", "--from", pruned, "--in-channels", 3)
    assert "sees 1 channel" in line
