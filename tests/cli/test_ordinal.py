"""`--task ordinal` from images to the device, in the words of that task."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import prunedge as pe
from prunedge.edge.update.selftest import selftest
from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.graded import DEGREES, write_degrees

ORDER = ",".join(DEGREES)
TASK = ("--task", "ordinal", "--order", ORDER)
TRAINING = ("--model", "test_resnet", "--weights", "none", "--size", "32", "--batch-size", "8")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_degrees(tmp_path_factory.mktemp("ordinal") / "images").parent


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images.parent / "trained"
    settings = (*TASK, "--epochs", "6", "--precision", "32", "--out", out)
    done = prunedge("train", images, *TRAINING, *settings)
    assert done.returncode == 0, done.stderr
    assert "kappa " in done.stdout
    return out


@pytest.fixture(scope="module")
def pruned(trained: Path) -> Path:
    out = trained.parent / "pruned"
    settings = ("--step-ratio", "0.3", "--max-drop", "100", "--max-steps", "1", "--out", out)
    done = prunedge("prune", "--from", trained, *settings)
    assert done.returncode == 0, done.stderr
    done = prunedge("prune", "--resume", out, "--max-steps", "2")
    assert done.returncode == 0, done.stderr
    assert "kappa on validation data" in done.stdout
    return out


@pytest.fixture(scope="module")
def bundle(pruned: Path) -> Path:
    out = pruned.parent / "bundle"
    formats = ("--format", "onnx,onnx-int8", "--max-int8-drop", "20")
    done = prunedge("export", pruned, "--out", out, *formats)
    assert done.returncode == 0, done.stderr
    assert "onnx, " in done.stdout
    assert "same degrees on 100.0%" in done.stdout
    return out


def test_check_counts_the_degrees_in_their_order(images: Path) -> None:
    done = prunedge("check", images, *TASK, "--size", "32", "--json")
    report = json.loads(done.stdout)
    assert report["classes"] == list(DEGREES)
    assert report["heading"] == "degree"
    table = prunedge("check", images, *TASK, "--size", "32").stdout
    assert table.startswith("degree ")
    assert f"--order={ORDER}" in table  # in the command that goes on


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("--task", "ordinal"), "have no order"),
        (("--task", "ordinal", "--order", "none,light"), "'severe' of 002.png is none of"),
        (("--task", "ordinal", "--order", "none"), "give two different degrees or more"),
        (("--order", ORDER), f"--order {ORDER}: acts only with --task ordinal"),
        ((*TASK, "--metric", "f1"), "choose kappa, degrees_off, two_off, accuracy"),
        ((*TASK, "--confidence", "0.9"), "confidence is that of accuracy"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_training(
    images: Path, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    done = prunedge("prune", images, *TRAINING, *settings, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_task_and_its_order(trained: Path, pruned: Path, tmp_path: Path) -> None:
    for path in (trained, pruned):
        config = open_run(path).config
        assert (config.task.name, config.task.metric) == ("ordinal", "kappa")
        assert (config.task.order, tuple(config.data.classes)) == (ORDER, DEGREES)
    metrics = open_run(pruned).steps()[0].metrics
    assert set(metrics) == {"loss", "kappa", "degrees_off", "two_off", "accuracy"}
    assert metrics["kappa"] > 0.8
    turned = ("--order", "severe,light,none")
    done = prunedge("prune", "--from", trained, *turned, "--out", tmp_path / "x")
    assert done.returncode == 2
    assert f"--from has a model of degrees in the order {ORDER}" in done.stderr


def test_the_report_speaks_of_grades(pruned: Path) -> None:
    assert prunedge("report", pruned).returncode == 0
    page = (pruned / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "test_resnet grading none &lt; light &lt; severe" in page
    assert "degrees_off" in page
    assert "always answering" in prunedge("show", pruned).stdout


def test_the_device_calls_all_but_the_lowest_degree_damage(images: Path, bundle: Path) -> None:
    assert selftest(bundle, []) > 0
    done = prunedge("inspect", bundle, images / "002.png", "--out", bundle.parent / "inspected")
    assert done.returncode == 0, done.stderr
    assert "damage: light, severe; sound: none" in done.stdout + done.stderr
    assert "severe" in done.stdout
    done = prunedge("bench", bundle, "--patches", "4")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_criterion_s_audit_and_a_study_run_through(
    images: Path, pruned: Path, tmp_path: Path
) -> None:
    criteria = (
        "--criterion",
        "taylor",
        "--criterion",
        "mutual-information",
        "--channels",
        "6",
        "--images",
        "24",
    )
    done = prunedge("audit", pruned, *criteria)
    assert done.returncode == 0, done.stderr
    values = {
        "data": str(images),
        "task": "ordinal",
        "order": ORDER,
        "model": "test_resnet",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
        "train_epochs": 2,
        "max_steps": 1,
        "criterion": ["mutual-information", "weight-l2"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (tmp_path / "study.toml").write_text("\n".join(lines))
    done = prunedge("study", tmp_path / "study.toml", "--out", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    assert prunedge("report", tmp_path / "study").returncode == 0


def test_the_library_opens_what_the_command_made(images: Path, pruned: Path, bundle: Path) -> None:
    data = pe.load_folder(images, task="ordinal", order=ORDER, size=32)
    assert data.outputs == 2
    for place in (pruned, bundle):
        found = pe.evaluate(pe.load(place), data.test)
        assert found.n == len(data.test)
        assert set(found.values) == {"kappa", "degrees_off", "two_off", "accuracy"}
