"""What users copy works: the script of each task and the notebook, on tiny images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunedge.tasks import TASKS
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


def test_every_task_has_a_script() -> None:
    assert {script.stem for script in EXAMPLES.glob("*.py")} == set(TASKS)


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
