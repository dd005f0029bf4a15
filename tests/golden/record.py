"""The golden run: every verb once on tiny images, its weights as checksums and its figures as numbers.

    python -m tests.golden.record            writes tests/golden/golden.json
    python -m tests.golden.record --compare  compares with it

The referee of a rebuilding: whatever is moved or renamed, these bytes and figures stay. One thread, float32, and only
those instructions that every x86-64 processor has, so that machines agree.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

GOLDEN = Path(__file__).with_name("golden.json")

# Vector instructions differ between processors, and with them the order of additions.
SAME_ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F",
}

TRAINING = (
    "--model",
    "test_resnet",
    "--weights",
    "none",
    "--size",
    "32",
    "--batch-size",
    "8",
    "--precision",
    "32",
    "--seed",
    "5",
)
# `auto`, the default, times both memory formats and takes the faster one: other roundings from run to run.
PRUNING = (
    "--precision",
    "32",
    "--step-ratio",
    "0.5",
    "--max-drop",
    "5",
    "--epochs",
    "1",
    "--extra-rounds",
    "0",
    "--for",
    "channels",
    "--confidence",
    "0.5",
    "--polish",
    "0",
)
STUDY = """
data = "{data}"
model = "test_resnet"
weights = "none"
size = 32
batch_size = 8
precision = "32"
train_epochs = 3
criterion = ["taylor", "weight-l2"]
step_ratio = [0.3, 0.5]
max_drop = 50.0
max_steps = 1
cost = "channels"
confidence = 0.5
epochs = 1
polish = 0
"""


def write_images(root: Path, per_class: int = 80, size: int = 32) -> Path:
    """Class folders `crack` and `sound` of noisy images (size, size, 3); some cracks are faint."""
    generator = np.random.default_rng(7)
    for label in ("crack", "sound"):
        folder = root / label
        folder.mkdir(parents=True)
        for index in range(per_class):
            pixels = generator.normal(140, 25, (size, size, 3))
            if label == "crack":
                row = int(generator.integers(3, size - 5))
                pixels[row : row + 2] -= generator.uniform(20, 110)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03d}.png")
    return root


def write_photograph(file: Path) -> Path:
    """A photograph (96, 128, 3) with one dark line."""
    generator = np.random.default_rng(11)
    pixels = generator.normal(140, 25, (96, 128, 3))
    pixels[40:42] -= 100
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return file


def prunedge(*arguments: str | Path) -> str:
    """What a verb prints; raises RuntimeError with its errors when it fails."""
    command = [sys.executable, "-m", "prunedge", *map(str, arguments)]
    environment = {**os.environ, **SAME_ARITHMETIC}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def checksum(file: Path) -> str:
    """SHA-256 over a safetensors file's tensors in the order of their names, whatever the header says."""
    digest = hashlib.sha256()
    tensors = load_file(file)
    for name in sorted(tensors):
        values = tensors[name].contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_of(run: Path) -> dict[str, str]:
    """The checksum of every file of weights in a run, by its path there."""
    files = sorted(run.rglob("*.safetensors"))
    return {file.relative_to(run).as_posix(): checksum(file) for file in files}


def without_times(value: Any) -> Any:
    """The same JSON value without seconds, dates, versions, paths, and names made of them."""
    changing = {
        "seconds",
        "second",
        "ms",
        "time",
        "date",
        "version",
        "versions",
        "path",
        "photographs",
        "created",
        "device",
        "machine",
        "computing",
        "run",
        "host",
        "name",
        "out",
        "data",
        "sha256",
        "counts",
        "source",
        "key",
    }
    if isinstance(value, dict):
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if key != "fraction_of_evaluation" and not changing.intersection(key.lower().split("_"))
        }
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value


def rounded(value: Any) -> Any:
    """The same JSON value with floats to seven digits: ONNX Runtime chooses its own instructions, so
    that processors differ in the ninth.
    """
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def record(folder: Path) -> dict[str, Any]:
    """Run every verb in an empty folder, and return weights and figures."""
    data = write_images(folder / "images")
    trained, pruned, study, bundle = (
        folder / name for name in ("trained", "pruned", "study", "bundle")
    )

    prunedge("train", data, *TRAINING, "--epochs", "4", "--out", trained)
    prunedge("prune", "--from", trained, *PRUNING, "--max-steps", "4", "--out", pruned)
    audit = prunedge(
        "audit",
        pruned,
        "--channels",
        "4",
        "--images",
        "12",
        "--criterion",
        "taylor",
        "--criterion",
        "weight-l2",
        "--json",
    )
    recipe = folder / "study.toml"
    recipe.write_text(STUDY.format(data=data.as_posix()), encoding="utf-8")
    table = prunedge("study", recipe, "--workers", "1", "--threads", "1", "--out", study, "--json")
    prunedge("export", pruned, "--out", bundle)
    photograph = write_photograph(folder / "photograph.png")
    found = prunedge(
        "inspect", bundle, photograph, "--patch", "32", "--out", folder / "inspected", "--json"
    )
    page = Path(prunedge("report", pruned).strip())

    return {
        "train": {"weights": weights_of(trained), "shown": shown(trained)},
        "prune": {"weights": weights_of(pruned), "shown": shown(pruned)},
        "audit": without_times(json.loads(audit)),
        "study": without_times(json.loads(table)),
        "inspect": rounded(without_times(json.loads(found))),
        "report": {"is_written": page.stat().st_size > 10_000},
    }


def shown(run: Path) -> Any:
    """What `show` tells of a run."""
    return without_times(json.loads(prunedge("show", run, "--json")))


def main() -> int:
    """Record, then write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--out", type=Path, default=GOLDEN)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = record(Path(folder))
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    if not options.compare:
        options.out.write_text(text, encoding="utf-8")
        return 0
    golden = GOLDEN.read_text(encoding="utf-8")
    if text == golden:
        print("the same")
        return 0
    difference = difflib.unified_diff(
        golden.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=1
    )
    print("DIFFERENT", *difference, sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
