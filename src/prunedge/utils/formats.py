"""The format of the files that prunedge reads back: a number that each names, and that is looked at
before its checksum.

What another version wrote is not damaged. It is refused in a line that says which format it has,
which one is read here, and what to do. Bundles have a number of their own
(`prunedge.edge.bundle.FORMAT`), since a device reads nothing else.
"""

from __future__ import annotations

from prunedge.errors import RunError

FORMAT = 1  # of run folders, studies and audits
KEY = "format"
UPDATE = "pip install --upgrade prunedge"


def refuse_newer(found: object, thing: str, where: object) -> None:
    """Raise RunError where a `thing` (`run`, `audit`) names a format that is higher than ours.

    To be asked before its checksum is looked at: a newer version may make checksums in another way.
    """
    if type(found) is int and found > FORMAT:
        raise RunError(_other(found, thing), where=where, remedy=f"update prunedge ({UPDATE})")


def refuse_other(found: object, thing: str, where: object, again: str = "make it again") -> None:
    """Raise RunError where a `thing` names another format than ours, or none (`found` is None), as
    those of prunedge 0.1 do.

    To be asked once its checksum was right: before that a missing number may as well be damage.
    `again` says how to have the thing anew.
    """
    refuse_newer(found, thing, where)
    if type(found) is int and found == FORMAT:
        return
    what = of_0_1(thing) if found is None else _other(found, thing)
    raise RunError(what, where=where, remedy=f"{again}, or open it with the version that made it")


def of_0_1(thing: str) -> str:
    """That a `thing` is one of prunedge 0.1, which named no formats."""
    plural = "studies" if thing == "study" else "histories" if thing == "history" else f"{thing}s"
    return f"this {thing} was made by prunedge 0.1, whose {plural} this version does not read"


def _other(found: object, thing: str) -> str:
    return f"this {thing} has format {found!r}; this prunedge reads format {FORMAT}"
