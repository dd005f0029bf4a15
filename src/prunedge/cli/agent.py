"""`prunedge agent`: watch, inspect, publish. Needs no torch."""

from __future__ import annotations

from pathlib import Path
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
    from prunedge.cli.agent_process import (
        device_name,
        end_on_signals,
        lines_on_stderr,
        read_password,
        state_folder,
    )
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
    password = read_password(password_file)
    settings = AgentSettings(
        bundle=bundle,
        watch=watch,
        topic=topic,
        device=device_name() if device_id is None else device_id,
        state=state or state_folder(),
        every=every,
        settle=settle,
        once=once,
        queue_limit=queue_limit,
        threads=threads,
        runtime=runtime,
        broker=parse_broker(broker, password=password, ca=ca, cert=cert, key=key),
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
    with lines_on_stderr():
        worker = Agent(settings)
        interrupted = end_on_signals(worker.stop)
        worker.run()
    if interrupted:
        raise KeyboardInterrupt
