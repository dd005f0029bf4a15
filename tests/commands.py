"""The command as a user types it, each time in a process of its own that has not to import torch again.

Importing takes four of the five seconds of a command on tiny images. One process per test session imports everything and then only forks:
what it forks runs `python -m prunedge` from its first line on, with its own folder, environment, signals, outputs and exit code. What
importing itself does is tried by the tests that start Python (`test_help`, `test_windows`, `test_plain_install`, ...).
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# What the verbs import, and what they import it for: models, metrics, ONNX, pages.
PRELOADED = [
    "prunedge.cli.app",
    "prunedge.cli.prune",
    "prunedge.cli.console",
    "prunedge.runs.session",
    "prunedge.runs.export",
    "prunedge.importance.audit",
    "prunedge.report",
    "prunedge.study",
    "lightning_fabric",
    "torchvision",
    "timm",
    "torchmetrics.functional.classification",
    "scipy.stats",
    "torch._dynamo",
    "torch.onnx",
    "onnxscript",
    "onnxruntime",
    "tests.runs.test_run",
]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED)


class Started:
    """A command that runs: what `subprocess.Popen` would be."""

    def __init__(self, *arguments: object, cwd: Path | None = None) -> None:
        self.args = ["prunedge", *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory(prefix="prunedge-command-")
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        place = str(cwd or Path.cwd())
        self._process: ForkServerProcess = _server.Process(
            target=_run, args=(self.args, place, dict(os.environ), self._outputs)
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: minus the signal's number where one ended the process; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.args, timeout, *self._said())
        return self._process.exitcode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        return self._said()

    def _said(self) -> tuple[str, str]:
        out, err = (
            file.read_text(encoding="utf-8") if file.exists() else "" for file in self._outputs
        )
        return out, err


def prunedge(
    *arguments: object, timeout: float = 300, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    started = Started(*arguments, cwd=cwd)
    code = started.wait(timeout)
    return subprocess.CompletedProcess(started.args, code, *started.communicate())


def _run(
    arguments: list[str], folder: str, environment: dict[str, str], outputs: list[Path]
) -> None:
    """In the new process: become the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # `sys.stdout` and `sys.stderr`, which have said nothing yet, write to these.
    for descriptor, file in zip((1, 2), outputs, strict=True):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, descriptor)
        os.close(handle)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # where the tests run in a shell's background they ignore it
    sys.path[0:0] = [folder]  # as `python -m` has it
    sys.argv = arguments
    runpy.run_module("prunedge", run_name="__main__", alter_sys=True)
