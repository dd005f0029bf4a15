"""The options of `prunedge agent` that belong together: those of its broker, and those of new
bundles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from prunedge.edge.agent import Broker, UpdateSettings


@Parameter(name="*")
@dataclass(frozen=True)
class BrokerOptions:
    """Where the broker is, and how to reach it.

    Parameters
    ----------
    broker
        mqtts://[USER@]HOST[:PORT], or mqtt:// without encryption. MQTT 5.
    ca
        The authority of the broker's certificate (PEM); without it the system's authorities.
    cert
        The agent's own certificate (PEM).
    key
        The key of that certificate (PEM).
    password_file
        A file that holds the user's password.
    """

    broker: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    password_file: Path | None = None

    def settings(self) -> Broker:
        """The library's broker; AgentError where something of it is wrong."""
        from prunedge.cli.agent_process import read_password
        from prunedge.edge.agent import parse_broker

        password = read_password(self.password_file)
        return parse_broker(
            self.broker, password=password, ca=self.ca, cert=self.cert, key=self.key
        )


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Where new bundles are announced, and which of them are taken. The defaults are those of the
    library's `UpdateSettings`.

    Parameters
    ----------
    model_topic
        Where new bundles are announced.
    model_from
        A folder or https:// address below which announced bundles must lie; may be given several
        times.
    model_key
        The public key (Ed25519, PEM) that announced bundles must be signed for (`prunedge sign`).
    model_purpose
        The purpose that they must be signed for; that of the first which was taken, unless given.
    model_max_mb
        The largest bundle to fetch, in MB.
    model_minutes
        Minutes that fetching a bundle may take.
    model_slower
        How many times longer than the bundle at work an announced one may take for a photograph.
    """

    model_topic: str | None = None
    model_from: list[str] | None = None
    model_key: Path | None = None
    model_purpose: str | None = None
    model_max_mb: int = 500
    model_minutes: float = 60.0
    model_slower: float = 20.0

    def settings(self) -> UpdateSettings:
        """The library's settings; AgentError where a value can't be."""
        from prunedge.edge.agent import UpdateSettings
        from prunedge.edge.update.announcement import parse_origins

        return UpdateSettings(
            topic=self.model_topic,
            origins=parse_origins(self.model_from or []),
            key=self.model_key,
            purpose=self.model_purpose,
            largest_bytes=self.model_max_mb * 1_000_000,
            fetch_seconds=self.model_minutes * 60,
            slower=self.model_slower,
        )


# Shared, since it is frozen.
NO_UPDATES = ModelOptions()
