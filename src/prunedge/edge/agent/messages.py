"""What is said over MQTT, and where: topics, message ids, and JSON payloads of findings, failures
and status.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prunedge.edge.logs import one_line
from prunedge.errors import AgentError

if TYPE_CHECKING:
    from prunedge.edge.agent.watch import Arrival
    from prunedge.edge.inspect.inspection import Inspection
    from prunedge.edge.update.slots import LoadedBundle

REGIONS = 100  # regions that a message names; a broker may refuse a message that is too long


@dataclass(frozen=True)
class Message:
    """One message with an id of its own: the same event always has the same id, however often it is
    sent.
    """

    id: str
    topic: str
    payload: str


@dataclass(frozen=True)
class Topics:
    """Where a device publishes: below one topic of its own."""

    base: str

    def __post_init__(self) -> None:
        problem = topic_problem(self.base)
        if problem:
            raise AgentError(
                f"the topic {one_line(self.base)!r} {problem}", remedy="name one like site/bridge-7"
            )

    @property
    def findings(self) -> str:
        """One message for each image."""
        return f"{self.base}/findings"

    @property
    def errors(self) -> str:
        """Images that can't be read, bundles that are refused, messages that are not ours."""
        return f"{self.base}/errors"

    @property
    def status(self) -> str:
        """The last known state of the device, retained."""
        return f"{self.base}/status"


def topic_problem(topic: str) -> str | None:
    """What is wrong with a topic to publish to, or None."""
    if not topic or len(topic.encode("utf-8", "replace")) > 200:
        return "must have 1 to 200 bytes"
    if any(c in topic for c in "+#") or not topic.isprintable():
        return "must hold no wildcard (+ or #) and no control character"
    if topic.startswith("$") or "" in topic.split("/"):
        return "must not start with $ and have no empty level"
    return None


def message_id(*parts: str) -> str:
    """32 hexadecimal digits that depend on all parts and on their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Inspected:
    """An image that was inspected: all that a message about it can tell.

    `arrival` is the file, `sha256` that of its content, `bundle` what it was inspected with.
    """

    arrival: Arrival
    sha256: str
    bundle: LoadedBundle
    inspection: Inspection


def finding(topics: Topics, device: str, inspected: Inspected) -> Message:
    """What was found in an image.

    The id depends on the device, the image's name and content and the bundle. The inspection's map
    and the regions' outlines, each of up to 200 points, are left out, and of the regions, which
    come worst first, REGIONS stay.
    """
    name = inspected.arrival.stamp.name
    bundle = inspected.bundle.sha256
    figures = inspected.inspection.to_json()
    regions = figures["regions"]
    for region in regions:
        region.pop("polygon", None)
    for left_out in ("map", "name", "regions", "footprint"):
        del figures[left_out]

    values = {
        "image": name,
        "image_sha256": inspected.sha256,
        "bundle_sha256": bundle,
        "is_damaged": bool(regions),
        **figures,
        "regions": regions[:REGIONS],
        "regions_left_out": max(0, len(regions) - REGIONS),
    }
    id = message_id("finding", device, name, inspected.sha256, bundle)
    return _message(id, topics.findings, device, values)


def failure(topics: Topics, device: str, kind: str, about: str, error: object, key: str) -> Message:
    """Something that went wrong, told once: `kind` is image, bundle, message or agent; `key`
    tells one event from another.
    """
    id = message_id("failure", device, kind, key)
    return _message(
        id,
        topics.errors,
        device,
        {"kind": kind, "about": one_line(about), "error": one_line(error)},
    )


def status(device: str, state: str, **more: Any) -> str:
    """The payload of a status message: `state` is online or offline."""
    return _json({"state": state, "device": device, "time": now(), **more})


def now() -> str:
    """The time in UTC, in ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(id: str, topic: str, device: str, values: dict[str, Any]) -> Message:
    return Message(id, topic, _json({"id": id, "device": device, "time": now(), **values}))


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False, separators=(",", ":"))
