"""A bundle and what is said of it in, a signed announcement out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath

from pydantic import ValidationError

from prunedge.edge.agent.messages import topic_problem
from prunedge.edge.bundle import Bundle, sha256
from prunedge.edge.manifest import MANIFEST
from prunedge.edge.update.announcement import parse_address, parse_announcement
from prunedge.edge.update.statement import Release, sign
from prunedge.errors import AgentError
from prunedge.utils.sanitize import shown

LONGEST_DAYS = 36_500
LONGEST_PLACE = 2000  # characters
# What a statement takes of each, in words.
SIGNED = {
    "version": "a whole number, 1 or more",
    "purpose": "a name of 1 to 100 characters in one line, such as cracks",
    "devices": "ids or patterns of letters, digits and . _ - * ?, 64 characters at most",
}


@dataclass(frozen=True)
class Terms:
    """What the signer says of a bundle: its `release` (a version that must rise), `purpose` and
    `devices` (ids or patterns), that it is found at `place` and taken for so many `days` from now
    on, the only `topic` on which it counts (None: any), and whether `new_classes` are meant.

    AgentError where a value can't be.
    """

    release: int
    purpose: str
    devices: tuple[str, ...]
    place: str
    days: float = 90.0
    topic: str | None = None
    new_classes: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.days <= LONGEST_DAYS:
            raise AgentError(
                f"{self.days:g} days",
                where="--days",
                remedy=f"give more than 0, and at most {LONGEST_DAYS:,}",
            )
        if not self.place or len(self.place) > LONGEST_PLACE:
            raise AgentError(
                f"a place of {len(self.place):,} characters",
                where="--place",
                remedy="give an https:// address or a folder",
            )
        fault = topic_problem(self.topic) if self.topic is not None else None
        if fault:
            raise AgentError(
                f"the topic '{shown(self.topic)}' {fault}",
                where="--topic",
                remedy="name one like site/models/bridge",
            )
        if "://" not in self.place and not _is_absolute(self.place):
            raise AgentError(
                f"'{shown(self.place)}' leads elsewhere on every device",
                where="--place",
                remedy=(
                    "give an https:// address, or the whole path of a folder as the devices see it"
                ),
            )


def announce(bundle: Bundle, terms: Terms, signer: Callable[[bytes], bytes]) -> str:
    """The announcement of a bundle, signed: one line of JSON. AgentError where an agent would not
    understand it.
    """
    if "://" in terms.place:
        parse_address(terms.place)
    digest = sha256(bundle.path / MANIFEST)
    announcement = {
        "bundle": terms.place,
        "sha256": digest,
        "statement": sign(digest, _release(bundle, terms), signer),
    }
    text = json.dumps(announcement, separators=(",", ":"))
    parse_announcement(text.encode())  # is it short enough, and what an agent understands?
    return text


def _release(bundle: Bundle, terms: Terms) -> Release:
    """What is signed of the bundle; AgentError that names the option which is wrong."""
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        return Release(
            version=terms.release,
            signed=now,
            expires=now + timedelta(days=terms.days),
            devices=list(terms.devices),
            topic=terms.topic,
            purpose=terms.purpose,
            classes=list(bundle.manifest.task.classes),
            new_classes=terms.new_classes,
        )
    except ValidationError as error:
        field = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        option = "release" if field == "version" else field
        raise AgentError(
            "not what can be signed",
            where=f"--{option}",
            remedy=f"give {SIGNED.get(field, 'what prunedge sign --help says')}",
        ) from None


def _is_absolute(place: str) -> bool:
    """Whether this is a whole path on some system: the devices' may be another than this one."""
    return PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute()
