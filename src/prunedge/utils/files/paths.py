"""Paths of what is written: links followed, folders made, addresses refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prunedge.errors import PrunedgeError


def real_path(path: Path | str) -> Path:
    """The absolute path without links.

    Unlike Path.resolve it takes a link that leads to itself: opening that raises.
    """
    return Path(os.path.realpath(path))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Path.mkdir calls itself for each folder above: a thousand of them are too many.
    """
    missing = []
    path = folder
    while True:
        try:
            path.mkdir()
            break
        except FileNotFoundError:
            if path.parent == path:
                raise
            missing.append(path)
            path = path.parent
        except OSError:
            if not path.is_dir():
                raise
            break

    for path in reversed(missing):
        path.mkdir(exist_ok=True)


def behind_links(target: Path) -> Path:
    """The path that is really written to: where a symbolic link leads.

    Whether something lies there or not. PrunedgeError for a link that leads to itself.
    """
    if not os.path.islink(target):
        return target
    real = real_path(target)
    if os.path.islink(real):
        raise PrunedgeError(
            "this is a link that leads to itself",
            where=target,
            remedy="remove the link, or choose another place",
        )
    return real


def is_address(place: object) -> bool:
    """Whether this names something by URL, also one that `Path` took a slash of."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]", str(place)) is not None


def refuse_url(path: Path) -> None:
    """PrunedgeError where a path to be written is an address, which would become a folder `s3:`."""
    if is_address(path):
        raise PrunedgeError(
            "this can't be written to an address",
            where=path,
            remedy="name a folder of this machine",
        )
