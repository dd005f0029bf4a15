"""What a device gets: the megabytes of each package of the plain install, and how long its command takes to start.

    python benchmarks/plain_install.py [--rounds 7]

Builds the wheel of this tree and installs it with the versions of constraints.txt into a fresh environment. Starts are measured in turn, in
seconds of a clock and, since other work on the machine lengthens those, in seconds of the processor; medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "plain_install.json"
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # a PYTHONPATH would lead out of it
STARTS = {
    "python -c pass": ["-c", "pass"],
    "prunedge --version": ["-m", "prunedge", "--version"],
    "prunedge --help": ["-m", "prunedge", "--help"],
    "prunedge bench --help": ["-m", "prunedge", "bench", "--help"],
    "import prunedge.edge": ["-c", "import prunedge.edge"],
    "import onnxruntime": ["-c", "import onnxruntime"],
}


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree, made in a folder."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("prunedge-*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """A fresh environment with the plain install; returns its python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = ["install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", folder, *install], check=True)
    return folder / "bin" / "python"


def megabytes(python: Path) -> dict[str, dict[str, Any]]:
    """Megabytes (10^6 bytes) of each installed package: its files, and the bytecode that pip compiles from them."""
    (site,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    found = {}
    for package in distributions(path=[str(site)]):
        files = [Path(str(package.locate_file(file))) for file in package.files or []]
        sizes = [(file.suffix == ".pyc", file.stat().st_size / 1e6) for file in files if file.is_file()]
        found[package.name] = {
            "version": package.version, "files": sum(size for is_code, size in sizes if not is_code),
            "bytecode": sum(size for is_code, size in sizes if is_code),
        }  # fmt: skip
    return dict(sorted(found.items(), key=lambda one: -one[1]["files"]))


def starts(python: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each start, after one that warms the file cache."""
    clock: dict[str, list[float]] = {name: [] for name in STARTS}
    processor: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds + 1):
        for name, arguments in STARTS.items():
            started = time.perf_counter()
            child = subprocess.Popen([python, *arguments], stdout=subprocess.DEVNULL, env=ALONE)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0, name
            clock[name].append(time.perf_counter() - started)
            processor[name].append(usage.ru_utime + usage.ru_stime)
    return {name: {"seconds": statistics.median(clock[name][1:]), "cpu_seconds": statistics.median(processor[name][1:])} for name in STARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "env", build_wheel(Path(folder)))
        sizes, started = megabytes(python), starts(python, given.rounds)
    result: dict[str, Any] = {
        "machine": platform.machine(), "python": platform.python_version(), "processors": os.cpu_count(), "load": os.getloadavg()[0],
        "packages_mb": sizes, "starts": started,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{'package':<20}{'files MB':>10}{'bytecode':>10}")
    for name, size in sizes.items():
        print(f"{name:<20}{size['files']:>10.2f}{size['bytecode']:>10.2f}")
    print(f"{'all':<20}{sum(s['files'] for s in sizes.values()):>10.1f}{sum(s['bytecode'] for s in sizes.values()):>10.1f}\n")
    print(f"{'start':<24}{'ms':>8}{'CPU ms':>8}")
    for name, one in started.items():
        print(f"{name:<24}{1e3 * one['seconds']:>8.0f}{1e3 * one['cpu_seconds']:>8.0f}")


if __name__ == "__main__":
    main()
