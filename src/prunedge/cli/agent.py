"""`prunedge agent`: watch, inspect, publish. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from prunedge.cli.agent_options import NO_UPDATES, BrokerOptions, ModelOptions
from prunedge.cli.inspect_options import DEFAULT, InspectOptions
from prunedge.cli.options import Flag


def agent(
    bundle: Path,
    *,
    watch: str,
    topic: str,
    broker: BrokerOptions,
    device_id: str | None = None,
    state: Path | None = None,
    every: float = 2.0,
    settle: float = 2.0,
    once: Flag = False,
    queue_limit: int = 100_000,
    models: ModelOptions = NO_UPDATES,
    inspection: InspectOptions = DEFAULT,
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
    topic
        Below it the agent publishes: TOPIC/findings, TOPIC/errors, TOPIC/status.
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
    threads
        Threads that one inference may use.
    runtime
        The form of the model to run; without it the bundle's first.
    """
    from prunedge.cli.agent_process import (
        device_name,
        end_on_signals,
        lines_on_stderr,
        state_folder,
    )
    from prunedge.edge.agent import Agent, AgentSettings
    from prunedge.utils.systems import limit_memory_to_machine

    settings = AgentSettings(
        bundle=bundle,
        watch=watch,
        broker=broker.settings(),
        topic=topic,
        state=state or state_folder(),
        device=device_name() if device_id is None else device_id,
        inspection=inspection.settings(),
        update=models.settings(),
        every=every,
        settle=settle,
        once=once,
        queue_limit=queue_limit,
        threads=threads,
        runtime=runtime,
    )
    limit_memory_to_machine()
    with lines_on_stderr():
        worker = Agent(settings)
        interrupted = end_on_signals(worker.stop)
        worker.run()
    if interrupted:
        raise KeyboardInterrupt
