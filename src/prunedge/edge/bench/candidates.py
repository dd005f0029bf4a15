"""A candidate of a bench, and the child process that has its model loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prunedge.edge.bench.breakdown import PASSES, LayerCall, profile_of
from prunedge.edge.bench.hardware import metered
from prunedge.edge.bench.workload import Workload
from prunedge.edge.bundle import Bundle
from prunedge.errors import BundleError, MachineError, PrunedgeError
from prunedge.utils.arguments import require
from prunedge.utils.machine import lacks_memory
from prunedge.utils.wording import first_of

LAST_WORDS = 300  # characters of a child's last line


@dataclass(frozen=True)
class Candidate:
    """A bundle, in its form for a target (None: its first)."""

    bundle: Bundle
    target: str | None = None

    def __post_init__(self) -> None:
        """Refuse a bundle's path."""
        require("bundle", self.bundle, Bundle, "what prunedge.open_bundle(...) gives")


def unlike(bundles: Sequence[Bundle]) -> list[str]:
    """In what bundles are not like the first, so that figures beside each other compare no two
    models of one task: a line for each.
    """
    first = bundles[0]
    lines = []
    for bundle in bundles[1:]:
        task, other = first.manifest.task, bundle.manifest.task
        things = {
            "task": (task.name, other.name),
            "classes": (first_of(task.classes), first_of(other.classes)),
            "size": (str(task.size), str(other.size)),
        }
        told = [f"{name} ({a}; {b})" for name, (a, b) in things.items() if a != b]
        if told:
            lines.append(f"{first.path} and {bundle.path} differ in {', '.join(told)}")
    return lines


class CandidateProcess:
    """A candidate in a child process of its own (`bench.worker`), which ends with the context.

    `pool` is a file of decoded images, None for noise. `about` is what the child says of its
    runtime, `joules` what it has taken so far, where the device `has_counter`. Its runtime is asked
    to take denormal numbers for zeros, or with `flush` false not to.
    """

    def __init__(
        self, candidate: Candidate, workload: Workload, pool: str | None, *, flush: bool = True
    ) -> None:
        self.candidate = candidate
        self.bundle = candidate.bundle
        self.pool = pool
        self._limits = workload.limits
        orders = {
            "bundle": str(self.bundle.path),
            "target": candidate.target,
            "threads": workload.threads,
            "largest": workload.largest,
            "pool": pool,
            "flush": flush,
            **asdict(workload.limits),
        }
        command = [sys.executable, "-m", "prunedge.edge.bench.worker", json.dumps(orders)]
        # A file, and no pipe, which would have to be read all the while.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  until the child ends
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.about = self._read()
        self.peak_rss_mb = 0.0
        self.joules = 0.0
        self.has_counter = False
        self.joules_for_image: float | None = None

    def __enter__(self) -> CandidateProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def block(self, batch: int, batches: int, what: str) -> list[float]:
        """Seconds of each of so many batches."""
        with metered() as energy:
            answer = self._ask(batch, batches, what)
        if energy.joules is not None:
            self.joules += energy.joules
            self.has_counter = True
        self.peak_rss_mb = answer["peak_rss_mb"]
        return answer["seconds"]

    def profile(self, batch: int) -> dict[str, Any]:
        """Where the time of a batch goes."""
        answer = self._ask(batch, PASSES, "profile")
        about = {
            "bundle": str(self.bundle.path),
            "target": self.candidate.target or self.bundle.target,
            "runtime": self.about["runtime"],
        }
        calls = []
        for calls_of_pass in answer["calls"]:
            calls.append([LayerCall(*call) for call in calls_of_pass])
        return profile_of(about, answer["spans"], calls)

    def _ask(self, batch: int, batches: int, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        order = json.dumps({"batch": batch, "batches": batches, "what": what})
        try:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer = json.loads(line)
        if "error" in answer:
            what, where, remedy = answer["error"]
            kind = MachineError if answer.get("is_machines") else BundleError
            raise kind(what, where=where, remedy=remedy)
        return answer

    def _died(self) -> PrunedgeError:
        """Why the child ended without an answer, in a line: what it could not catch itself, such as
        no memory for the modules that it imports, stands on its stderr.
        """
        code = self._process.wait()
        self._stderr.seek(0)
        told = self._stderr.read().decode(errors="replace")
        if "MemoryError" in told or lacks_memory(RuntimeError(told)):
            return self._limits.no_memory(self.bundle.path)

        last_words = told.strip().rpartition("\n")[2][:LAST_WORDS]
        what = f"the process that measures it died (exit code {code})"
        remedy = "is there enough memory?"
        if self._limits.memory_mb is not None:
            remedy += " allow more with --memory"
        return BundleError(
            f"{what}: {last_words}" if last_words else what,
            where=self.bundle.path,
            remedy=remedy,
        )
