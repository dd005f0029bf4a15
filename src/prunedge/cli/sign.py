"""`prunedge sign`: an announcement that devices in the field take. Needs no torch."""

from __future__ import annotations

from pathlib import Path

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
        The classes or the task differ from those of the bundle at work, and that is meant.
    """
    from prunedge.cli.console import tell
    from prunedge.edge import open_bundle
    from prunedge.edge.update.signing import Terms, announce
    from prunedge.edge.update.statement import load_signer

    terms = Terms(
        release=release,
        purpose=purpose,
        devices=tuple(devices),
        place=place,
        days=days,
        topic=topic,
        new_classes=new_classes,
    )
    signer = load_signer(key)
    tell(announce(open_bundle(bundle), terms, signer))
