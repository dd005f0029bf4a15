"""Where times are measured: this machine, or another through ssh, with the runtime that will be
deployed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunedge.edge.bench.probe import require_timed
from prunedge.edge.bench.ssh import Host
from prunedge.errors import PrunedgeError
from prunedge.utils.advice import option
from prunedge.utils.arguments import require
from prunedge.utils.files import real_path

LOCAL = "local"


@dataclass(frozen=True)
class Timed:
    """Milliseconds by file name, and what they were measured with."""

    ms: Mapping[str, float]
    runtime: str
    device: Mapping[str, Any]


@dataclass(frozen=True)
class Timer:
    """A device (`local`, or ssh://user@host), the runtime's target there and the threads that it
    may use.
    """

    address: str = LOCAL
    target: str = "onnx"
    threads: int = 1

    def __post_init__(self) -> None:
        require("address", self.address, str, "local, or ssh://user@host")
        require("threads", self.threads, int, "a whole number")
        if self.threads < 1:
            raise PrunedgeError(
                f"{self.threads} threads", where=option("threads"), remedy="give 1 or more"
            )
        require_timed(self.target)
        if self.address != LOCAL:
            Host.parse(self.address)

    def time(self, files: Mapping[str, Path]) -> Timed:
        """Milliseconds of one run of each ONNX file, on one image. PrunedgeError when the device
        can't.
        """
        arguments = ["probe", "files", "--runtime", self.target, "--threads", str(self.threads)]
        if self.address == LOCAL:
            answer = _here(arguments, files)
        else:
            answer = Host.parse(self.address).run(
                arguments, {f"files/{name}": file for name, file in files.items()}
            )
        try:
            return Timed(
                {name: float(answer["ms"][name]) for name in files},
                str(answer["runtime"]),
                dict(answer["device"]),
            )
        except (KeyError, TypeError, ValueError):
            remedy = "install the same version there"
            raise PrunedgeError(
                "its answer is another prunedge's", where=self.address, remedy=remedy
            ) from None


def _here(arguments: list[str], files: Mapping[str, Path]) -> Any:
    """In a process of its own: this one has torch's threads and memory."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "files").mkdir()
        for name, file in files.items():
            (Path(folder) / "files" / name).symlink_to(real_path(file))
        done = subprocess.run(
            [sys.executable, "-m", "prunedge", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PrunedgeError(
            lines[-1].removeprefix("error: "),
            where=LOCAL,
            remedy="can its runtime run the model at all? try --runtime onnx",
        )
    return json.loads(done.stdout)
