"""`--task multilabel` from images to the device, in the words of that task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import prunedge as pe
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.session import open_session
from prunedge.edge.update.selftest import selftest
from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.several_labels import CLASSES, write_several

TRAINING = ("--model", "test_resnet", "--weights", "none", "--size", "32", "--batch-size", "8")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_several(tmp_path_factory.mktemp("several") / "images").parent


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images.parent / "trained"
    settings = ("--task", "multilabel", "--epochs", "6", "--precision", "32", "--out", out)
    done = prunedge("train", images, *TRAINING, *settings)
    assert done.returncode == 0, done.stderr
    assert "map " in done.stdout
    return out


@pytest.fixture(scope="module")
def pruned(trained: Path) -> Path:
    out = trained.parent / "pruned"
    settings = ("--step-ratio", "0.3", "--max-drop", "100", "--max-steps", "1", "--out", out)
    done = prunedge("prune", "--from", trained, *settings)
    assert done.returncode == 0, done.stderr
    done = prunedge("prune", "--resume", out, "--max-steps", "2")
    assert done.returncode == 0, done.stderr
    assert "map on validation data" in done.stdout
    return out


@pytest.fixture(scope="module")
def bundle(pruned: Path) -> Path:
    out = pruned.parent / "bundle"
    done = prunedge("export", pruned, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "same labels on 100.0%" in done.stdout
    return out


def test_check_counts_what_each_image_lists(images: Path) -> None:
    done = prunedge("check", images, "--task", "multilabel", "--size", "32", "--json")
    report = json.loads(done.stdout)
    assert report["classes"] == list(CLASSES)
    assert {name: sum(side[name] for side in report["counts"].values()) for name in CLASSES} == {
        "crack": 80,
        "rust": 80,
    }
    assert 0.2 < report["majority"] < 0.6  # the most frequent of four sets of labels
    # Of four images one shows neither, and one shows both.
    assert sum(report["without"].values()) == 40
    assert sum(report["several"].values()) == 40
    table = prunedge("check", images, "--task", "multilabel", "--size", "32").stdout
    rows = [line.split() for line in table.splitlines()]
    assert [row[-1] for row in rows if row[:1] == ["none"]] == ["40"]
    assert [row[-1] for row in rows if row[:1] == ["several"]] == ["40"]


def test_without_the_task_the_lists_are_refused_and_the_task_is_named(images: Path) -> None:
    done = prunedge("check", images, "--size", "32")
    assert done.returncode == 2
    assert "--task multilabel takes them so" in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("--task", "palmistry"),
            "--task palmistry: no such task (prunedge prune): choose classification, multi",
        ),
        (("--task", "multilabel", "--metric", "accuracy"), "choose map, f1, exact"),
        (("--task", "multilabel", "--confidence", "0.9"), "confidence is that of exact"),
    ],
)
def test_what_the_task_has_not_is_one_line(
    images: Path, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    done = prunedge("prune", images, *TRAINING, *settings, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_task_and_the_task_s_own_metric(trained: Path, pruned: Path) -> None:
    for path in (trained, pruned):
        config = open_run(path).config
        assert (config.task.name, config.task.metric) == ("multilabel", "map")
    metrics = open_run(pruned).steps()[0].metrics
    assert set(metrics) == {"loss", "map", "f1", "exact"}
    assert metrics["map"] > 0.8


def test_another_task_needs_another_model(trained: Path, pruned: Path, tmp_path: Path) -> None:
    done = prunedge("prune", "--from", trained, "--task", "classification", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "--from has a model for multilabel" in done.stderr
    done = prunedge("prune", "--resume", pruned, "--task", "classification")
    assert done.returncode == 2
    assert "--task can't change" in done.stderr


def test_the_report_speaks_of_what_is_found(pruned: Path) -> None:
    assert prunedge("report", pruned).returncode == 0
    page = (pruned / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "test_resnet finding crack, rust" in page
    assert "<th>average precision</th>" in page
    assert "accuracy" not in page
    assert "always answering" in prunedge("show", pruned).stdout


def test_the_device_finds_each_kind_and_all_classes_may_be_damage(
    images: Path, bundle: Path
) -> None:
    assert selftest(bundle, []) > 0
    done = prunedge("inspect", bundle, images / "003.png", "--out", bundle.parent / "inspected")
    assert done.returncode == 0, done.stderr
    assert "damage: crack, rust; sound: none of these" in done.stdout + done.stderr
    done = prunedge("bench", bundle, "--patches", "4")
    assert done.returncode == 0, done.stderr
    assert "self-test answers" in done.stdout


@pytest.mark.slow
def test_a_study_of_several_trials_runs_through(images: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": str(images),
        "task": "multilabel",
        "model": "test_resnet",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
        "train_epochs": 2,
        "max_steps": 1,
        "criterion": ["mutual-information", "weight-l2"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tmp_path / "study.toml").write_text("\n".join(lines))
    done = prunedge("study", tmp_path / "study.toml", "--out", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    assert "2 trials from 1 starting model" in done.stdout + done.stderr
    assert prunedge("report", tmp_path / "study").returncode == 0


def test_the_library_opens_what_the_command_made(images: Path, pruned: Path, bundle: Path) -> None:
    data = pe.load_folder(images, task="multilabel", size=32)
    for place in (pruned, bundle):
        found = pe.evaluate(pe.load(place), data.test)
        assert found.n == len(data.test)
        assert set(found.values) == {"map", "f1", "exact"}


def test_an_inspection_says_which_class_it_is_of(images: Path, bundle: Path) -> None:
    session = open_session(pe.open_bundle(bundle))
    both = [name for name in sorted(images.glob("*.png")) if int(name.stem) % 4 == 3]
    seen = set()
    for path in both[:8]:
        inspection = inspect_image(path, session, Settings())
        seen |= {region.label for region in inspection.regions}
    assert seen <= set(CLASSES)
    assert seen
