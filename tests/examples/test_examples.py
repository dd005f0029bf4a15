"""What users copy works: the script of each task and the notebook, on tiny images."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prunedge as pe
from prunedge.study import Grid
from prunedge.study.grid import trials
from prunedge.tasks import TASKS
from tests.graded import DEGREES, write_degrees, write_widths
from tests.masked_images import numbers_with, write_lines
from tests.several_labels import write_several
from tests.tiny_images import write_tiny

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

MODEL = "tests.runs.test_run:small"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes that the test's model learns within seconds."""
    return write_tiny(tmp_path_factory.mktemp("examples") / "cracks", count=100)


def test_the_classification_script_goes_from_images_to_an_inspection(
    images: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "result"
    options = ["--weights", "none", "--size", "32", "--epochs", "5", "--batch-size", "8"]
    script = [sys.executable, EXAMPLES / "classification.py", images, "--out", out]
    command = [*script, "--model", MODEL, "--max-steps", "2", *options]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())

    assert done.returncode == 0, done.stderr
    assert accuracy_on_test(done.stdout, "unpruned") >= 90
    assert accuracy_on_test(done.stdout, "pruned") >= 85
    assert len(re.findall(r"damage with \d+%", done.stdout)) == 5
    assert (out / "report.html").is_file()
    assert (out / "bundle" / "manifest.json").is_file()


def test_masks_in_a_folder_for_each_class_become_masks_of_several(tmp_path: Path) -> None:
    for index, kind in enumerate(("MT_Crack", "MT_Break", "MT_Free") * 6):
        folder = tmp_path / "tiles" / kind / "Imgs"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = numbers_with(index, line=kind == "MT_Crack", blot=kind == "MT_Break")
        Image.fromarray((numbers > 0) * np.uint8(255)).save(folder / f"{index}.png")
        Image.fromarray(np.full((32, 32), 9 * index, np.uint8)).save(folder / f"{index}.jpg")
    script = [sys.executable, EXAMPLES / "masks_by_folder.py", tmp_path / "tiles", tmp_path / "out"]

    done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment())

    assert done.returncode == 0, done.stderr
    assert "3 classes: background, MT_Break, MT_Crack" in done.stdout
    data = pe.load_folder(tmp_path / "out" / "photos", masks=tmp_path / "out" / "masks", size=32)
    assert data.classes == ("background", "MT_Break", "MT_Crack")
    wanted = {"MT_Break": (1,), "MT_Crack": (2,), "MT_Free": ()}
    samples = [sample for split in data.splits().values() for sample in split.samples]
    assert len(samples) == 18
    assert all(sample.target == wanted[sample.path.parts[-3]] for sample in samples)


@pytest.mark.slow
def test_the_multilabel_script_goes_from_images_to_the_device(tmp_path: Path) -> None:
    manifest = write_several(tmp_path / "several", count=200)
    out = tmp_path / "result"
    options = ["--weights", "none", "--size", "32", "--epochs", "6", "--batch-size", "8"]
    script = [sys.executable, EXAMPLES / "multilabel.py", manifest, "--out", out]
    command = [*script, "--model", "test_resnet", "--max-steps", "1", *options]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())

    assert done.returncode == 0, done.stderr
    for which in ("unpruned", "pruned"):
        found = re.search(rf"test {which}: map ([\d.]+)%", done.stdout)
        assert found is not None
        assert float(found[1]) >= 85
    assert len(re.findall(r"shows \[.*\], in truth \[.*\]", done.stdout)) == 5
    assert (out / "report.html").is_file()
    assert (out / "bundle" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_ordinal_script_goes_from_images_to_the_device(tmp_path: Path) -> None:
    manifest = write_degrees(tmp_path / "degrees", count=180)
    out = tmp_path / "result"
    options = ["--weights", "none", "--size", "32", "--epochs", "6", "--batch-size", "8"]
    order = ["--order", ",".join(DEGREES)]
    script = [sys.executable, EXAMPLES / "ordinal.py", manifest, *order, "--out", out]
    command = [*script, "--model", "test_resnet", "--max-steps", "1", *options]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())

    assert done.returncode == 0, done.stderr
    assert "degrees: none < light < severe" in done.stdout
    for which in ("unpruned", "pruned"):
        found = re.search(rf"test {which}: kappa ([\d.]+),", done.stdout)
        assert found is not None
        assert float(found[1]) >= 0.8
    assert len(re.findall(r"png: (none|light|severe), in truth", done.stdout)) == 5
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_the_regression_script_goes_from_images_to_the_device(tmp_path: Path) -> None:
    manifest = write_widths(tmp_path / "widths", count=180)
    out = tmp_path / "result"
    options = ["--weights", "none", "--size", "32", "--epochs", "6", "--batch-size", "8"]
    script = [sys.executable, EXAMPLES / "regression.py", manifest, "--out", out]
    command = [*script, "--model", "test_resnet", "--max-steps", "1", *options]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())

    assert done.returncode == 0, done.stderr
    for which in ("unpruned", "pruned"):
        found = re.search(rf"test {which}: off by ([\d.]+) .* median: ([\d.]+)", done.stdout)
        assert found is not None
        assert float(found[1]) < 0.5 * float(found[2])
    answers = re.findall(r"png: value ([\d.]+), in truth ([\d.]+)", done.stdout)
    assert len(answers) == 5
    assert all(abs(float(answer) - float(truth)) < 1000 for answer, truth in answers)
    assert (out / "report.html").is_file()


def test_the_segmentation_script_goes_from_masks_to_lengths(tmp_path: Path) -> None:
    images = write_lines(tmp_path / "walls", 60)
    out = tmp_path / "result"
    options = ["--weights", "none", "--size", "32", "--epochs", "8", "--max-drop", "90"]
    script = [sys.executable, EXAMPLES / "segmentation.py", images / "photos", images / "masks"]
    model = ["--model", "tests.masked_images:tiny_unet", "--max-steps", "1", "--out", out]

    done = subprocess.run(
        [*script, *model, *options], capture_output=True, text=True, timeout=300, env=environment()
    )

    assert done.returncode == 0, done.stderr
    assert "classes: background, damage" in done.stdout
    found = re.search(r"test unpruned: IoU ([\d.]+)%", done.stdout)
    assert found is not None
    assert float(found[1]) >= 50
    assert "test pruned: IoU" in done.stdout
    assert len(re.findall(r"png: [\d.]+% damaged", done.stdout)) == 5
    assert re.search(r"    \d+ pixels long, [\d.]+ wide", done.stdout)
    assert (out / "report.html").is_file()


def test_the_script_of_an_own_loop_prunes_a_u_net(tmp_path: Path) -> None:
    images = write_lines(tmp_path / "walls", 32)
    out = tmp_path / "unet.pt"
    options = ["--size", "32", "--epochs", "6", "--max-drop", "0.9", "--max-steps", "1"]
    script = [sys.executable, EXAMPLES / "unet.py", images / "photos", images / "masks"]

    done = subprocess.run(
        [*script, *options, "--out", out],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )

    assert done.returncode == 0, done.stderr
    macs = [int(found) for found in re.findall(r"step \d+: (\d+) million MACs, ", done.stdout)]
    assert len(macs) == 3  # unpruned, pruned, polished
    assert macs[1] * 5 < macs[0]
    assert out.stat().st_size * 5 < 4 * 14_328_209  # bytes of the unpruned U-Net's weights
    assert len((EXAMPLES / "unet.py").read_text().splitlines()) < 80


@pytest.mark.slow
def test_the_talk_s_tables_stand_beside_a_study_in_its_order(tmp_path: Path) -> None:
    settings = {
        "data": '["cracks/"]',
        "model": f'"{MODEL}"',
        "weights": '"none"',
        "size": "16",
        "folds": "2",
        "epochs": "[1, 2]",
        "max_drop": "100.0",
        "bench": "0",  # takes as long as all the rest
    }
    text = (EXAMPLES / "talk" / "study.toml").read_text(encoding="utf-8")
    for key, value in settings.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text)
        assert count == 1, key
    more = 'batch_size = 8\ntrain_epochs = 6\nmax_steps = 1\npolish = 0\nprecision = "32"\n'
    write_tiny(tmp_path / "cracks", count=60)
    (tmp_path / "study.toml").write_text(text + more, encoding="utf-8")

    study = [sys.executable, "-m", "prunedge", "study", "study.toml", "--out", "study"]
    done = run_in(tmp_path, *study, "--workers", "1")
    assert done.returncode == 0, done.stderr
    done = run_in(tmp_path, sys.executable, str(EXAMPLES / "talk" / "tables.py"), "study")
    assert done.returncode == 0, done.stderr

    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [line[0].removeprefix("| ") for line in lines] == [
        "accuracy without pruning",
        "accuracy after pruning",
        "where filters go",
        "epochs of a step: accuracy",
        "epochs of a step: pruning time",
        "inference on the server, 3,720 patches",
        "inference on the edge, 3,720 patches",
        "size",
        "variance over folds, points²",
        "gain on the edge against the server",
    ]
    spread = r"-?[\d.]+ ± [\d.]+ \(n = 2\)"
    for epochs, found in enumerate(lines[0][2].split("<br>"), 1):
        assert re.match(rf"cracks, {MODEL}, epochs {epochs}: {spread} %", found)
    assert re.match(rf"cracks, {MODEL}: 1 against 2 epochs: {spread} points", lines[3][2])
    assert lines[5][2].count("not measured yet") == 2
    assert f"- model: {MODEL}; the talk: vgg16, resnet18." in done.stdout
    assert "- epochs" not in done.stdout


def test_a_trial_of_the_talk_that_was_timed_has_its_ratio(tmp_path: Path) -> None:
    columns = {
        "trial": "a",
        "is_done": "True",
        "latency_ms_baseline": "9.0",
        "latency_ms_best": "4.5",
    }
    text = ",".join(columns) + "\n" + ",".join(columns.values()) + "\n"
    (tmp_path / "study.csv").write_text(text, encoding="utf-8")
    tables = runpy.run_path(str(EXAMPLES / "talk" / "tables.py"))
    found = tables["finished_trials"](tmp_path / "study.csv")
    assert tables["times"](found) == "9.00 to 4.50 ms a patch, 2.0 x"


def test_the_talk_s_study_asks_for_all_of_its_results(tmp_path: Path) -> None:
    grid = Grid.from_toml(EXAMPLES / "talk" / "study.toml")
    found = trials(grid)
    assert len(found) == 40
    assert len({trial.start.name for trial in found}) == 20
    assert sum(map(grid.is_timed, found)) == 8
    assert grid.values["data"] == [
        str(EXAMPLES / "talk" / "cracks"),
        str(EXAMPLES / "talk" / "corrosion"),
    ]


def test_every_task_has_a_script() -> None:
    scripts = {script.stem for script in EXAMPLES.glob("*.py")}
    assert set(TASKS) <= scripts
    # What is beside them prepares images, or brings its own training, which the guide lists.
    guide = (ROOT / "docs" / "own-training.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)\.py`", guide, re.MULTILINE))
    assert scripts - set(TASKS) == {"masks_by_folder", "boxes_for_yolo", *listed}


def test_every_script_is_short_and_says_how_it_is_run() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert scripts

    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 80, script.name
        assert f"python examples/{script.name}" in text.split('"""')[1]


def test_the_notebook_runs_from_top_to_bottom(images: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    use_settings(notebook, images)

    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=environment())

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert accuracy_on_test(printed, "pruned") >= 85
    assert (tmp_path / "first-steps" / "report.html").is_file()


def test_notebooks_are_kept_without_outputs() -> None:
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), path.name
            assert not cell.get("execution_count"), path.name


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that is run in a folder."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment()
    )


def environment() -> dict[str, str]:
    """The test's own models can be imported from wherever the example runs."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


def use_settings(notebook: object, images: Path) -> None:
    """Fill the cell that is tagged `parameters` with what takes seconds."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings = {
        "images": str(images),
        "model_name": MODEL,
        "weights": "none",
        "size": 32,
        "epochs": 5,
        "batch_size": 8,
    }
    names = set(re.findall(r"^(\w+) = ", cell.source, re.MULTILINE))
    assert names == set(settings)
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())


def accuracy_on_test(printed: str, which: str) -> float:
    """The accuracy in percent that an example prints for the unpruned or the pruned model."""
    return float(re.search(rf"test accuracy, {which}:\s+([\d.]+)%", printed)[1])
