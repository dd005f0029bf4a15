"""What a device installs: the wheel and its plain dependencies in a fresh environment, without anything of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import prunedge
from prunedge.cli.verbs import TRAINING, VERBS
from prunedge.edge.image.size import square
from prunedge.edge.tasks.base import TaskSpec
from prunedge.export import export_bundle
from tests.small_models import Mobile, randomise

ROOT = Path(__file__).parents[2]
# The target was 120 MB; onnxruntime (76), numpy (57) and Pillow (20) alone are more: see `benchmarks/plain_install.py`.
MEGABYTES = 190


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the environment `env`; parallel workers share one."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / "device", shared / "device.made"
    with FileLock(shared / "device.lock"):
        if not made.exists():
            _python("pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
            _python("venv", "--without-pip", folder / "env")
            constraints = ("-c", ROOT / "constraints.txt")
            _python(
                "pip",
                "--python",
                folder / "env",
                "install",
                "--no-compile",
                *constraints,
                *folder.glob("*.whl"),
            )
            made.touch()
    return folder


def _python(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that torch, which is here and not there, has exported."""
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    out = tmp_path_factory.mktemp("bundles") / "b"
    task = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))
    about = {"model_name": "m", "task": task, "macs": 1, "params": 1}
    return export_bundle(randomise(Mobile()), out, images=images, **about).path  # type: ignore[arg-type]


def run(device: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """A command of the environment, which sees nothing else."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program, *arguments = map(str, command)
    return subprocess.run(
        [device / "env" / "bin" / program, *arguments],
        capture_output=True,
        text=True,
        cwd=device,
        env=alone,
        timeout=60,
    )


def site(device: Path) -> Path:
    (found,) = (device / "env" / "lib").glob("python3*/site-packages")
    return found


def test_one_pure_wheel_is_for_every_machine(device: Path) -> None:
    (wheel,) = device.glob("*.whl")
    assert wheel.name == f"prunedge-{prunedge.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        assert not [name for name in opened.namelist() if name.endswith((".so", ".pyd", ".dylib"))]


def test_it_brings_no_training_stack(device: Path) -> None:
    names = sorted(TRAINING | {"pandas", "pyarrow", "ray", "openvino", "executorch", "sympy"})
    code = f"import importlib.util as u, json; print(json.dumps([n for n in ['numpy', *{names}] if u.find_spec(n)]))"
    assert json.loads(run(device, "python", "-c", code).stdout) == ["numpy"]


def test_it_is_as_small_as_its_parts_allow(device: Path) -> None:
    size: dict[str, float] = {}
    for file in site(device).rglob("*"):
        top = file.relative_to(site(device)).parts[0]
        if file.is_file() and file.suffix != ".pyc":
            size[top] = size.get(top, 0) + file.stat().st_size / 1e6
    largest = ", ".join(
        f"{name} {size[name]:.0f}" for name in sorted(size, key=lambda name: -size[name])[:6]
    )
    assert sum(size.values()) < MEGABYTES, f"{sum(size.values()):.0f} MB: {largest}"


def test_it_measures_a_bundle_that_answers_as_torch_did(device: Path, bundle: Path) -> None:
    done = run(device, "prunedge", "bench", bundle, "--patches", 20, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["bundles"]
    assert found["self_test"]["agreement"] == 1
    assert found["self_test"]["relative_difference"] < 1e-4
    assert found["runtime"].startswith("onnxruntime")
    assert found["seconds_total"] > 0
    home = run(device, "python", "-c", "import prunedge; print(prunedge.__file__)").stdout.strip()
    assert Path(home).is_relative_to(site(device))


def test_what_it_can_not_note_it_does_not_measure_first(device: Path, bundle: Path) -> None:
    done = run(device, "prunedge", "bench", bundle, "--patches", 10**9, "--out", "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'bench' needs torch")
    assert len(done.stderr.splitlines()) == 1


def test_it_explains_itself(device: Path) -> None:
    assert run(device, "prunedge", "--version").stdout.strip() == prunedge.__version__
    told = run(device, "prunedge", "--help")
    assert told.returncode == 0
    assert all(verb in told.stdout for verb in VERBS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "run"),
        ("prune", "images", "--model", "resnet18", "--out", "run"),
        ("prune", "--resume", "run"),
        ("export", "run", "--out", "bundle"),
        ("check", "images"),
        ("evaluate", "run", "images"),
        ("report", "run"),
        ("study", "crossval", "images", "--model", "resnet18", "--out", "study"),
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_so_in_one_line(device: Path, arguments: tuple[str, ...]) -> None:
    done = run(device, "prunedge", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: '{arguments[0]}' needs ")
    assert line.endswith("pip install 'prunedge[prune]'")
