"""Several processes, started as users do: by torchrun, on a port that is free."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TIMEOUT_S = 180.0


def torchrun(
    count: int, *arguments: object, timeout: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS` in `count` processes; all of them end with the time."""
    started = launch(count, *arguments)
    try:
        out, err = started.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        started.terminate()  # torchrun ends its processes; killed, it would leave them behind
        raise
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


def launch(count: int, *arguments: object) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        "-m",
        *map(str, arguments),
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def together(function: Callable[[], Any], count: int, folder: Path) -> list[Any]:
    """What a function of a test module gives in each of `count` processes."""
    done = torchrun(count, "tests.processes", function.__module__, function.__name__, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, called, target = sys.argv[1:]
    torch.save(
        getattr(importlib.import_module(name), called)(), Path(target) / f"{os.environ['RANK']}.pt"
    )
