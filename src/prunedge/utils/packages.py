"""The versions of what computes, as runs and bundles note them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from prunedge import __version__


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package that is installed, prunedge's own first: that of the code at
    work, where an installation may still name another.
    """
    versions = {"prunedge": __version__}
    for name in packages:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
