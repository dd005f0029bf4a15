"""What an agent is told to do, checked before it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from prunedge.edge.agent.broker import Broker
from prunedge.edge.agent.messages import topic_problem
from prunedge.edge.agent.outbox import BACKOFF_S
from prunedge.edge.inspect import Settings
from prunedge.edge.logs import one_line
from prunedge.edge.update.announcement import Origins
from prunedge.edge.update.pace import DEADLINE_S
from prunedge.errors import AgentError
from prunedge.utils.files import real_path

LONGEST_S = 366 * 24 * 3600.0  # that any time may be; the system can't wait much longer


@dataclass(frozen=True)
class UpdateSettings:
    """Where new bundles are announced, and which of them are taken.

    `topic` is where they are announced (None: nowhere), `origins` where they may come from, `key`
    the public key that they are signed for (a PEM file), `purpose` what for. `largest_bytes` is how
    large a bundle may be, `fetch_seconds` how long fetching one may take, `slower` how many times
    longer than the bundle at work one may take for a photograph. Raises AgentError when something
    of it can't be.
    """

    topic: str | None = None
    origins: Origins = field(default_factory=lambda: Origins((), ()))
    key: Path | None = None
    purpose: str | None = None
    largest_bytes: int = 500_000_000
    fetch_seconds: float = DEADLINE_S
    slower: float = 20.0

    def __post_init__(self) -> None:
        wrong = []
        if not self.largest_bytes >= 1:
            wrong.append("--model-max-mb")
        if not self.slower >= 1:
            wrong.append("--model-slower")
        if not 0 < self.fetch_seconds <= LONGEST_S:
            wrong.append("--model-minutes")
        _refuse_numbers(wrong)

        has_origins = bool(self.origins.folders or self.origins.urls)
        if self.purpose is not None and self.key is None:
            raise AgentError(
                "a purpose is known of signed bundles alone",
                where="--model-purpose",
                remedy="name the key that they are signed for by --model-key, or leave it out",
            )
        if self.topic is None and (self.key or self.purpose or has_origins):
            raise AgentError(
                "where bundles come from is told, but no topic that announces them",
                remedy="name it by --model-topic",
            )
        if self.topic is not None and not has_origins:
            raise AgentError(
                "nothing says where announced bundles may come from",
                remedy="name folders or https:// addresses by --model-from",
            )
        if self.topic is not None and (problem := topic_problem(self.topic)):
            raise AgentError(
                f"the model topic '{one_line(self.topic)}' {problem}",
                where="--model-topic",
                remedy="name one like site/models/bridge",
            )


@dataclass(frozen=True)
class AgentSettings:
    """`watch` is a folder, a camera or a video, as `prunedge inspect` takes them; times are in
    seconds.

    `runtime` is the form of the model to run, the bundle's first unless given. `state` is a
    folder of the agent's own, `queue_limit` how many messages may wait before it stops looking at
    images. Raises AgentError when something of it can't be.
    """

    bundle: Path
    watch: str
    broker: Broker
    topic: str
    state: Path
    device: str
    inspection: Settings = field(default_factory=Settings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    every: float = 2.0
    settle: float = 2.0
    once: bool = False
    queue_limit: int = 100_000
    threads: int = 1
    runtime: str | None = None
    backoff: tuple[float, float] = BACKOFF_S

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.device):
            raise AgentError(
                f"the device id {one_line(self.device)!r} is not taken",
                remedy="use 1 to 64 of A-Z a-z 0-9 . _ - (--device-id)",
            )
        if not self.watch:
            raise AgentError(
                "nothing is named to watch",
                where="--watch",
                remedy="name a folder, a camera or a video",
            )
        if "://" not in self.watch and real_path(self.watch) == real_path(self.state):
            raise AgentError(
                "the folder that is watched is the agent's own as well",
                where="--state",
                remedy="give each a folder of its own",
            )
        times = {"--every": self.every, "--settle": self.settle}
        counts = {"--queue-limit": self.queue_limit, "--threads": self.threads}
        wrong = [name for name, value in times.items() if not 0 <= value <= LONGEST_S]
        wrong += [name for name, value in counts.items() if not value >= 1]
        _refuse_numbers(wrong)


def _refuse_numbers(options: list[str]) -> None:
    """AgentError that names these options, if there are any."""
    if options:
        raise AgentError(
            f"{' and '.join(options)}: times must not be negative nor longer than a year, "
            "limits and threads at least 1",
            remedy="mend these values",
        )
