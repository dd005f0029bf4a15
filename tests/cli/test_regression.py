"""`--task regression` from images to the device, in the words and the unit of the numbers."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import prunedge as pe
from prunedge.edge.image.read import read_image
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.session import open_session
from prunedge.edge.update.selftest import selftest
from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.graded import write_bars, write_widths

TASK = ("--task", "regression")
TRAINING = ("--model", "test_resnet", "--weights", "none", "--size", "32", "--batch-size", "8")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_widths(tmp_path_factory.mktemp("regression") / "images").parent


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images.parent / "trained"
    settings = (*TASK, "--epochs", "6", "--precision", "32", "--out", out)
    done = prunedge("train", images, *TRAINING, *settings)
    assert done.returncode == 0, done.stderr
    assert "mae " in done.stdout
    assert "accuracy" not in done.stdout
    return out


@pytest.fixture(scope="module")
def pruned(trained: Path) -> Path:
    out = trained.parent / "pruned"
    settings = ("--step-ratio", "0.3", "--max-drop", "400%", "--max-steps", "1", "--out", out)
    done = prunedge("prune", "--from", trained, *settings)
    assert done.returncode == 0, done.stderr
    done = prunedge("prune", "--resume", out, "--max-steps", "2", "--max-drop", "900")
    assert done.returncode == 0, done.stderr
    assert "max drop: 900.0 instead of 400%" in done.stdout + done.stderr
    assert "mae on validation data" in done.stdout
    return out


@pytest.fixture(scope="module")
def bundle(pruned: Path) -> Path:
    out = pruned.parent / "bundle"
    formats = ("--format", "onnx,onnx-int8", "--max-int8-drop", "50%")
    done = prunedge("export", pruned, "--out", out, *formats)
    assert done.returncode == 0, done.stderr
    assert "same numbers on 100.0%" in done.stdout
    assert re.search(r"answers differ by at most [\d.]+ \([\d.]+ in the mean\)", done.stdout)
    return out


def truth_of(images: Path) -> dict[str, float]:
    with (images / "manifest.csv").open() as file:
        return {line["path"]: float(line["value"]) for line in csv.DictReader(file)}


def test_check_counts_ranges_and_tells_what_the_median_is_off_by(images: Path) -> None:
    done = prunedge("check", images, *TASK, "--size", "32", "--json")
    report = json.loads(done.stdout)
    assert len(report["classes"]) == 4
    assert all(
        sum(side[name] for side in report["counts"].values()) == 30 for name in report["classes"]
    )
    table = prunedge("check", images, *TASK, "--size", "32").stdout
    assert "always answering the median of the training images (value 1" in table
    assert "class" not in table


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*TASK, "--metric", "accuracy"), "choose mae, rmse, r2"),
        ((*TASK, "--confidence", "0.9"), "--confidence 0.9"),
        ((*TASK, "--max-drop", "much"), "--max-drop much: no drop (prunedge prune): write it as 3"),
        ((*TASK, "--max-drop", "-5%"), "must be 0 or more"),
        ((*TASK, "--order", "1,2"), "acts only with --task ordinal"),
        (("--task", "multilabel"), "no labels, but numbers (column value)"),
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


@pytest.mark.parametrize("label", ["much", "nan", "inf", "1e999", "", "3 mm"])
def test_a_label_that_is_no_number_is_one_line_with_file_and_image(
    tmp_path: Path, label: str
) -> None:
    file = write_bars(tmp_path / "images", [1, 2, 3], "path,value", ["1", label, "3"])
    done = prunedge("check", file, *TASK, "--size", "32")
    assert done.returncode == 2
    assert f"'{label}' of 001.png is no finite number (column value)" in done.stderr
    assert "manifest.csv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_keeps_the_scale_that_its_model_learned_by(
    images: Path, trained: Path, pruned: Path, tmp_path: Path
) -> None:
    data = pe.load_folder(images, task="regression", size=32)
    (scale,) = data.spec.scales
    for path in (trained, pruned):
        config = open_run(path).config
        assert (config.task.name, config.task.metric) == ("regression", "mae")
        assert config.data.scales == [list(scale.model_dump().values())]
    first = open_run(pruned).steps()[0]
    assert set(first.metrics) == {"loss", "mae", "rmse", "r2"}
    assert first.majority is not None
    assert first.metric_after < 0.5 * first.majority
    # Other images have another mean: the model still answers by its own.
    fewer = write_bars(
        tmp_path / "others",
        [8 + index % 9 for index in range(60)],
        "path,value",
        [f"{1800 + 100 * (index % 9)}" for index in range(60)],
    ).parent
    out = tmp_path / "onward"
    settings = ("--max-drop", "1000", "--max-steps", "1", "--polish", "0", "--out", out)
    done = prunedge("prune", fewer, "--from", trained, "--step-ratio", "0.2", *settings)
    assert done.returncode == 0, done.stderr
    assert open_run(out).config.data.scales == open_run(trained).config.data.scales
    assert open_run(out).steps()[0].metric_after < 300


def test_without_a_drop_the_error_may_rise_by_five_percent(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "usual"
    settings = ("--step-ratio", "0.1", "--max-steps", "1", "--polish", "0", "--out", out)
    done = prunedge("prune", "--from", trained, *settings)
    assert done.returncode == 0, done.stderr
    assert open_run(out).config.stop.max_drop == "5%"


def test_the_report_speaks_of_how_far_off_answers_are(pruned: Path) -> None:
    assert prunedge("report", pruned).returncode == 0
    page = (pruned / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "test_resnet estimating value" in page
    assert "stays within 900 of the unpruned model's mae" in page
    assert "How far off on the test split" in page
    assert "always the median" in page
    for word in ("accuracy", "% sure", "Right and wrong"):
        assert word not in page
    assert "always answering" in prunedge("show", pruned).stdout


def test_the_device_answers_in_the_unit_of_the_numbers(images: Path, bundle: Path) -> None:
    assert selftest(bundle, []) > 0
    session = open_session(pe.open_bundle(bundle))
    truth = truth_of(images)
    names = sorted(truth)[::10]
    pixels = np.stack(
        [read_image(images / name, session.bundle.manifest.task.size) for name in names]
    )
    (answers,) = session.predict(pixels).T
    wanted = np.array([truth[name] for name in names])
    assert np.abs(answers - wanted).mean() < 300
    assert session.warning() is None
    done = prunedge("bench", bundle, "--patches", "4")
    assert done.returncode == 0, done.stderr


def test_an_inspection_tells_the_number_of_each_photograph(images: Path, bundle: Path) -> None:
    out = bundle.parent / "inspected"
    photos = bundle.parent / "photos"
    photos.mkdir()
    for name in ("000.png", "060.png", "119.png"):
        (photos / name).write_bytes((images / name).read_bytes())
    done = prunedge("inspect", bundle, photos, "--threshold", "2000", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "damage: value of 2,000 or more" in done.stdout + done.stderr
    assert "estimated, the highest first" in done.stdout
    record = json.loads((out / "119.png.json").read_text())
    assert record["numbers"]["value"] > 2000
    assert record["regions"][0]["number"] == pytest.approx(record["highest"])
    assert not json.loads((out / "000.png.json").read_text())["regions"]
    page = (out / "inspection.html").read_text(encoding="utf-8")
    assert "from a number of 2,000 on" in page
    assert "e+03" not in page
    with (out / "findings.csv").open(encoding="utf-8-sig") as file:
        assert all(float(line["number"]) >= 2000 for line in csv.DictReader(file))
    done = prunedge("inspect", bundle, photos, "--threshold", "0.5")
    assert done.returncode == 2
    assert "0.5 lies outside of what the model learned of value" in done.stderr


def test_what_the_agent_sends_has_the_number(images: Path, bundle: Path) -> None:
    session = open_session(pe.open_bundle(bundle))
    found = inspect_image(images / "119.png", session, Settings())
    assert set(found.to_json()["numbers"]) == {"value"}
    # As a place between the lowest and the highest number of the training images.
    within = min(max(found.numbers["value"], 0), 2600)
    assert found.to_json()["highest"] == pytest.approx(within, abs=1)


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
        "task": "regression",
        "model": "test_resnet",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
        "train_epochs": 2,
        "max_steps": 1,
        "max_drop": ["50%", 200],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (tmp_path / "study.toml").write_text("\n".join(lines))
    done = prunedge("study", tmp_path / "study.toml", "--out", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    assert prunedge("report", tmp_path / "study").returncode == 0


def test_several_numbers_have_a_column_each(tmp_path: Path) -> None:
    widths = [index * 16 / 79 for index in range(80)]
    rows = [f"{width:.2f},{10 - width / 4:.2f}" for width in widths]
    file = write_bars(tmp_path / "images", widths, "path,width_mm,rest_mm", rows)
    out = tmp_path / "run"
    settings = (*TASK, "--epochs", "2", "--precision", "32", "--out", out)
    done = prunedge("train", file, *TRAINING, *settings)
    assert done.returncode == 0, done.stderr
    assert open_run(out).config.data.classes == ["width_mm", "rest_mm"]
    done = prunedge("export", out, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    session = open_session(pe.open_bundle(tmp_path / "bundle"))
    assert session.predict(np.zeros((3, 32, 32, 3), np.uint8)).shape == (3, 2)


def test_the_library_opens_what_the_command_made(images: Path, pruned: Path, bundle: Path) -> None:
    data = pe.load_folder(images, task="regression", size=32)
    assert data.outputs == 1
    for place in (pruned, bundle):
        found = pe.evaluate(pe.load(place), data.test)
        assert found.n == len(data.test)
        assert set(found.values) == {"mae", "rmse", "r2"}
