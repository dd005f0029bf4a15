"""Twelve bits in sixteen, and photographs that are not square, from the training to the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import prunedge
from tests.deep_images import write_deep


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images (56 x 40, deep), a run that learned them and one that pruned it, and a bundle."""
    folder = tmp_path_factory.mktemp("deep")
    write_deep(folder / "d", 60, shape=(40, 56))
    common = (
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        32,
        "--batch-size",
        16,
        "--precision",
        "32",
    )
    done = prunedge("train", folder / "d", *common, "--epochs", 6, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "greys of more than eight bits: black to white is 10" in done.stdout, done.stderr
    more = ("--max-steps", 1, "--step-ratio", 0.2, "--max-drop", 50, "--precision", "32")
    assert (
        prunedge("prune", "--from", folder / "run", *more, "--out", folder / "pruned").returncode
        == 0
    )
    assert prunedge("export", folder / "pruned", "--out", folder / "bundle").returncode == 0
    return folder


def test_the_device_answers_as_training_did(trained: Path) -> None:
    told = json.loads(prunedge("show", trained / "pruned", "--json").stdout)
    accuracy = told["test"]["best"]["accuracy"]
    assert accuracy > 0.9
    manifest = json.loads((trained / "bundle" / "manifest.json").read_text())
    assert manifest["view"] == {"kind": "patch", "width": 56, "height": 40}
    assert 1000 <= manifest["greys"]["low"] < manifest["greys"]["high"] <= 1146
    right = 0
    for label in ("crack", "sound"):
        found = json.loads(
            prunedge("inspect", trained / "bundle", trained / "d" / label, "--json").stdout
        )
        assert all(one["patches"] == 1 and one["patch"] == [56, 40] for one in found["images"])
        right += sum((one["probability"] >= 0.5) == (label == "crack") for one in found["images"])
    assert right / 120 > 0.9


def test_the_run_keeps_the_range_and_goes_on_with_it(trained: Path) -> None:
    engine = json.loads((trained / "run" / "engine.json").read_text())
    assert f'range = "{engine["range"]}"' in (trained / "pruned" / "config.toml").read_text()
    page = Path(prunedge("report", trained / "pruned").stdout.strip())
    assert f"--range {engine['range']}" in page.read_text(encoding="utf-8")


def test_a_model_that_ends_in_a_softmax_is_refused_before_anything_is_made(
    trained: Path, tmp_path: Path
) -> None:
    common = ("--weights", "none", "--size", 32, "--out", tmp_path / "run")
    done = prunedge("train", trained / "d", "--model", "tests.system.test_pixels:softened", *common)
    assert done.returncode == 2
    assert "ends in a softmax" in done.stderr
    assert "remove the last layer" in done.stderr
    assert not (tmp_path / "run").exists()


def softened(num_classes: int):  # type: ignore[no-untyped-def]
    from torch import nn

    from tests.runs.test_run import small

    return nn.Sequential(small(num_classes), nn.Softmax(1))
