"""Whose code is run: names like `package.module:function` are imported from the working directory
only where the user gave them.

A run or a bundle that somebody sent names its model and its criterion, and may lie beside a
module of that name. What a user names (on the command line, or in Python) is theirs, and remembered
for the folder that it was named in, so that their own runs go on as before. A name that comes from
a file and that the user never gave there needs `--trust-code`.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from prunedge.errors import PrunedgeError

_given: set[Path] = set()  # notes of this process, also those that could not be written
_everything = False


def give(name: str) -> None:
    """The user gave this name; names without a colon are a library's own and need no trust."""
    if ":" not in name or (note := _note(name)) in _given:
        return
    _given.add(note)
    with suppress(OSError):  # a home that can't be written remembers nothing
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.write_text(f"{name}\n{os.getcwd()}\n", encoding="utf-8", errors="backslashreplace")


def trust_everything(is_meant: bool = True) -> None:
    """`--trust-code`: the user trusts whoever made what is opened, from now on and in this
    process.
    """
    global _everything
    _everything = _everything or is_meant


def check(name: str, where: object) -> None:
    """PrunedgeError when a name that comes from the file or folder `where` may not be imported from
    the working directory.
    """
    if ":" not in name or _everything or (note := _note(name)) in _given or note.is_file():
        return
    raise PrunedgeError(
        f"it names code of its own, {name}, which would be imported from {os.getcwd()}",
        where=where,
        remedy=(
            "if you trust who made it, add --trust-code (in Python: prunedge.load(..., "
            "trust_code=True))"
        ),
    )


def _note(name: str) -> Path:
    """The file that notes that the user gave a name in this working directory.

    It lies in a folder of the user's own, never in a run.
    """
    home = os.environ.get("XDG_STATE_HOME")
    state = Path(home) if home else Path(os.path.expanduser("~")) / ".local" / "state"
    key = f"{name}\0{os.path.realpath(os.getcwd())}"
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    return state / "prunedge" / "given" / digest
