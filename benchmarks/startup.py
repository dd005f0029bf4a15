"""How long prunedge takes before it does anything, beside Python's own start, where the training stack is installed.

The plain install of a device is measured by benchmarks/plain_install.py.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from common import save, turns

COMMANDS = {
    "python": ["-c", "pass"],
    "prunedge --help": ["-m", "prunedge", "--help"],
    "import prunedge.edge": ["-c", "import prunedge.edge"],
    "import torch": ["-c", "import torch"],
    "prune --help": ["-m", "prunedge", "prune", "--help"],
    "import prunedge.runs.execute": ["-c", "import prunedge.runs.execute"],
}


def main() -> None:
    """Time every command in turn, print and write."""
    took = turns({name: lambda command=command: _run(command) for name, command in COMMANDS.items()}, 7)
    rows = []
    for name, seconds in took.items():
        more = sorted(a - b for a, b in zip(seconds, took["python"], strict=True))
        rows.append(
            {"command": name, "seconds": sorted(seconds)[3], "more_than_python": {"median": more[3], "low": more[0], "high": more[-1]}}
        )
        print(f"{name:22} {sorted(seconds)[3]:.2f} s, {more[3]:.2f} ({more[0]:.2f} to {more[-1]:.2f}) more than python")
    save("startup", {"target": {"prunedge --help": 0.5}, "rows": rows})


def _run(command: list[str]) -> None:
    start = perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    if perf_counter() - start > 60:
        raise RuntimeError(f"{command} took a minute")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
