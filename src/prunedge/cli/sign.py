"""`prunedge sign`: an announcement that devices in the field take. Needs no torch."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from prunedge.cli.options import Flag


def sign(
    bundle: Path,
    *,
    key: Path,
    release: int,
    purpose: str,
    devices: list[str],
    place: str,
    days: float = 90.0,
    topic: str | None = None,
    new_classes: Flag = False,
) -> None:
    """Print the announcement of a bundle, signed: one line of JSON, to be published on the agents'
    --model-topic.

    Example: `prunedge sign bundles/v2 --key signing.pem --release 2 --purpose cracks --devices
    'bridge-*' --place https://models.example/v2`

    Parameters
    ----------
    bundle
        The bundle, as `prunedge export` made it; every file is verified.
    key
        The private key (Ed25519, PEM): openssl genpkey -algorithm ed25519 -out signing.pem
    release
        The version, a whole number that must rise: a device never takes a lower one than it had.
    purpose
        What the bundle is for. A device takes bundles of one purpose: its --model-purpose, or that
        of the first that it took.
    devices
        Device ids, or patterns with * and ?; may be given several times.
    place
        Where the devices find it: an https:// address, or a folder as they see it.
    days
        Days from now on after which no device takes it any more.
    topic
        The only topic on which it may be announced; any, unless given.
    new_classes
        The classes differ from those of the bundle at work, and that is meant.
    """
    import json
    import sys
    from datetime import UTC, datetime, timedelta

    from pydantic import ValidationError

    from prunedge.edge import open_bundle
    from prunedge.edge.agent.messages import topic_problem
    from prunedge.edge.bundle import sha256
    from prunedge.edge.manifest import MANIFEST
    from prunedge.edge.update.announcement import parse_address, parse_announcement
    from prunedge.edge.update.statement import Release, load_signer, sign
    from prunedge.errors import AgentError
    from prunedge.utils.sanitize import shown

    if not 0 < days <= 36_500:
        raise AgentError(
            f"{days:g} days", where="--days", remedy="give more than 0, and at most 36,500"
        )
    if not place or len(place) > 2000:
        raise AgentError(
            f"a place of {len(place):,} characters",
            where="--place",
            remedy="give an https:// address or a folder",
        )
    fault = topic_problem(topic) if topic is not None else None
    if fault:
        raise AgentError(
            f"the topic '{shown(topic)}' {fault}",
            where="--topic",
            remedy="name one like site/models/bridge",
        )
    if "://" not in place and not _is_absolute(place):
        remedy = "give an https:// address, or the whole path of a folder as the devices see it"
        raise AgentError(
            f"'{shown(place)}' leads elsewhere on every device", where="--place", remedy=remedy
        )
    signer = load_signer(key)
    opened = open_bundle(bundle)
    if "://" in place:
        parse_address(place)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        signed_release = Release(
            version=release,
            signed=now,
            expires=now + timedelta(days=days),
            devices=devices,
            topic=topic,
            purpose=purpose,
            classes=list(opened.manifest.task.classes),
            new_classes=new_classes,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = str(problem["loc"][0])
        option = "release" if field == "version" else field
        remedy = "see prunedge sign --help"
        raise AgentError(
            f"not what can be signed: {problem['msg']}", where=f"--{option}", remedy=remedy
        ) from None
    digest = sha256(bundle / MANIFEST)
    announcement = {
        "bundle": place,
        "sha256": digest,
        "statement": sign(digest, signed_release, signer),
    }
    text = json.dumps(announcement, separators=(",", ":"))
    parse_announcement(text.encode())  # is it short enough, and what an agent understands?
    sys.stdout.write(text + "\n")


def _is_absolute(place: str) -> bool:
    """Whether this is a whole path on some system: the devices' may be another than this one."""
    return PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute()
