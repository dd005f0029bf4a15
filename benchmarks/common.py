"""What every measurement shares: taking turns, medians with their spread, and a file that says where and with what it was made."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy", "onnxruntime", "openvino", "executorch", "torch-pruning", "prunedge")


def turns(rivals: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each rival, once in every round: they take turns, so that a slow minute is slow for all of them."""
    for _ in range(warm_up):
        for work in rivals.values():
            work()
    took: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds):
        order = list(rivals) if number % 2 == 0 else list(reversed(rivals))
        for name in order:
            start = perf_counter()
            rivals[name]()
            took[name].append(perf_counter() - start)
    return took


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Ours through theirs, round by round: the median, and the lowest and highest."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def spread(found: Sequence[float]) -> dict[str, float]:
    """The median of several, and the lowest and highest."""
    return {"median": statistics.median(found), "low": min(found), "high": max(found), "rounds": len(found)}


def told(one: Mapping[str, float], digits: int = 2) -> str:
    """A ratio with its spread, for people."""
    return f"{one['median']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"


def save(name: str, result: Mapping[str, Any]) -> None:
    """Write results/NAME.json, with the machine, the versions and the commit beside the figures."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**about(), **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def about() -> dict[str, Any]:
    """Machine, versions, commit."""
    import torch

    from prunedge.edge.bench.hardware import processor

    found: dict[str, str] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "machine": {
            "processor": processor(), "cores": len(os.sched_getaffinity(0)), "torch_threads": torch.get_num_threads(),
            "vector": torch.backends.cpu.get_cpu_capability(), "amx": torch.cpu._is_amx_tile_supported(),
            "bf16": torch.cpu._is_avx512_bf16_supported(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": found,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "--", ":/src") else ""),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *map(os.path.basename, sys.argv[1:])]),
    }  # fmt: skip


def in_process(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """What another process of this script prints as JSON on its last line: its memory is its own."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_mb() -> float:
    """The most memory that this process has held, in 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM on this system")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()
