"""The format of the files that prunedge reads back: a number that each names, and that is looked at
before its checksum.

What another version wrote is not damaged. It is refused in a line that says which format it has,
which one is read here, and what to do. Bundles have a number of their own
(`prunedge.edge.manifest.FORMAT`), since a device reads nothing else.
"""

from __future__ import annotations

from prunedge.errors import RunError

FORMAT = 1  # of run folders, studies and audits
KEY = "format"
UPDATE = "pip install --upgrade prunedge"


def refuse_newer(version: object, thing: str, where: object) -> None:
    """Raise RunError where a `thing` (`run`, `audit`) names a format above this prunedge's.

    To be called before its checksum is looked at: a newer version may make checksums in another
    way.
    """
    if type(version) is int and version > FORMAT:
        raise RunError(_other(version, thing), where=where, remedy=f"update prunedge ({UPDATE})")


def refuse_other(version: object, thing: str, where: object, again: str = "make it again") -> None:
    """Raise RunError where a `thing` names another format than this prunedge's, or none.

    `version` is None in those of prunedge 0.1. To be called once its checksum was right: before
    that a missing number may as well be damage. `again` says how to have the thing anew.
    """
    refuse_newer(version, thing, where)
    if type(version) is int and version == FORMAT:
        return
    what = of_0_1(thing) if version is None else _other(version, thing)
    raise RunError(what, where=where, remedy=f"{again}, or open it with the version that made it")


def of_0_1(thing: str) -> str:
    """That a `thing` is one of prunedge 0.1, which named no formats."""
    plural = {"study": "studies", "history": "histories"}.get(thing, f"{thing}s")
    return f"this {thing} was made by prunedge 0.1, whose {plural} this version does not read"


def _other(version: object, thing: str) -> str:
    return f"this {thing} has format {version!r}; this prunedge reads format {FORMAT}"
