"""`prunedge agent`: watch, inspect, publish. Needs no torch."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated

from cyclopts import Parameter


def agent(
    bundle: Path,
    *,
    watch: str,
    broker: str,
    topic: str,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    password_file: Path | None = None,
    device_id: str | None = None,
    state: Path | None = None,
    every: float = 2.0,
    settle: float = 2.0,
    once: Annotated[bool, Parameter(negative="")] = False,
    queue_limit: int = 100_000,
    model_topic: str | None = None,
    model_from: list[str] | None = None,
    model_key: Path | None = None,
    model_purpose: str | None = None,
    model_max_mb: int = 500,
    model_minutes: float = 60.0,
    model_slower: float = 20.0,
    damage: tuple[str, ...] = (),
    threshold: float = 0.5,
    patch: str | None = None,
    range: str | None = None,
    overlap: float = 0.5,
    mm_per_pixel: float | None = None,
    max_megapixels: float = 200.0,
    batch: int = 16,
    threads: int = 1,
    runtime: str | None = None,
) -> None:
    """Watch a folder or a camera, inspect what arrives, and publish each finding over MQTT: none is
    lost, and none told twice.

    Example: `prunedge agent bundles/cracks --watch /srv/images --broker
    mqtts://bridge7@broker.example --topic site/bridge-7`

    The password comes from --password-file or the variable PRUNEDGE_MQTT_PASSWORD. docs/agent.md:
    topics, messages, a systemd unit.

    Parameters
    ----------
    bundle
        The bundle to begin with.
    watch
        A folder (with those below it), a camera (camera:0, /dev/video0 or rtsp://...; needs
        `prunedge[video]`) or a video.
    broker
        mqtts://[USER@]HOST[:PORT], or mqtt:// without encryption. MQTT 5.
    topic
        Below it the agent publishes: TOPIC/findings, TOPIC/errors, TOPIC/status.
    ca
        The authority of the broker's certificate (PEM); without it the system's authorities.
    cert
        The agent's own certificate (PEM).
    key
        The key of that certificate (PEM).
    password_file
        A file that holds the user's password.
    device_id
        The device's name in messages; the machine's name, unless given.
    state
        The agent's own folder: queue, images that are done, accepted bundles.
    every
        Seconds between two looks into the folder, or between two frames of the camera or video.
    settle
        Seconds for which a file must not have changed before it is read.
    once
        Work off what is there, deliver it, and end.
    queue_limit
        Messages that may wait; at more, images are left where they are.
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
    damage
        Classes that count as damage, with commas between them; without it those whose names don't
        say that all is well.
    threshold
        An area is damaged from this probability on.
    patch
        Side of a patch in the photograph's pixels (224, or 96x48), or whole; without it, what the
        bundle tells.
    range
        LOW:HIGH, the stored values that become black and white in greys of more than eight bits;
        without it, what the bundle tells.
    overlap
        Share of a patch that the next one sees again.
    mm_per_pixel
        Millimetres that a pixel shows: gives sizes in millimetres too.
    max_megapixels
        Larger images are refused before they are decoded.
    batch
        Patches at a time.
    threads
        Threads that one inference may use.
    runtime
        The form of the model to run; without it the bundle's first.
    """
    from prunedge.edge.agent import Agent, AgentSettings, parse_broker
    from prunedge.edge.image.read import parse_range
    from prunedge.edge.inspect import Settings
    from prunedge.edge.inspect.settings import parse_patch
    from prunedge.edge.update.announcement import parse_origins
    from prunedge.utils.systems import limit_memory_to_machine

    classes = tuple(name.strip() for text in damage for name in text.split(",") if name.strip())
    inspection = Settings(
        classes,
        threshold,
        None if patch is None else parse_patch(patch),
        overlap,
        batch,
        mm_per_pixel,
        max_megapixels,
        None if range is None else parse_range(range),
    )
    settings = AgentSettings(
        bundle=bundle,
        watch=watch,
        topic=topic,
        device=_machine() if device_id is None else device_id,
        state=state or _state(),
        every=every,
        settle=settle,
        once=once,
        queue_limit=queue_limit,
        threads=threads,
        runtime=runtime,
        broker=parse_broker(broker, password=_password(password_file), ca=ca, cert=cert, key=key),
        model_topic=model_topic,
        model_from=parse_origins(model_from or []),
        model_key=model_key,
        model_purpose=model_purpose,
        largest_bundle=model_max_mb * 1_000_000,
        fetch_seconds=model_minutes * 60,
        slower=model_slower,
        inspection=inspection,
    )
    limit_memory_to_machine()
    with _lines_on_stderr():
        worker = Agent(settings)
        interrupted = _end_on_signals(worker.stop)
        worker.run()
    if interrupted:
        raise KeyboardInterrupt


def _end_on_signals(stop: Event) -> list[int]:
    """Let SIGTERM and Ctrl-C end the agent in order; a second one ends it at once. The list is
    filled when Ctrl-C came.
    """
    interrupted: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        stop.set()
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return interrupted


@contextmanager
def _lines_on_stderr() -> Iterator[None]:
    """Show what the agent tells, with the time; the journal notes that itself."""
    from prunedge.edge.logs import Repeats, log
    from prunedge.utils.sanitize import Lines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        Lines("%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(message)s")
    )
    handler.addFilter(Repeats())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True


def _password(file: Path | None) -> str | None:
    from prunedge.errors import AgentError
    from prunedge.utils.files import read_secret

    if file is None:
        return os.environ.get("PRUNEDGE_MQTT_PASSWORD")
    try:
        return read_secret(file).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(
            f"the password can't be read ({error})",
            where=file,
            remedy="name a text file that the agent may read",
        ) from None


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "device"


def _state() -> Path:
    """systemd's folder for the service, or one below the user's home."""
    own = os.environ.get("STATE_DIRECTORY")
    if own:
        return Path(own.split(":")[0])
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        / "prunedge-agent"
    )
