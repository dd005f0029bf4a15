"""Checksums that files carry with them.

Whoever reads a file knows whether it is what was written, in that folder, and for that purpose.
A seal is the SHA-256 of a JSON value in its canonical form, together with what the file is
(`about`: its name, and the run that it belongs to). A dict carries it as its last key, a list as
its last item. What a flipped byte changes, what was written for another run, and what was written
under another name has a wrong seal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunedge.utils.files import read_bytes, require_regular

KEY = "sha256"


class Broken(ValueError):
    """What was read is not what was written, or was written for something else."""


def digest(value: Any, about: str) -> str:
    """The SHA-256, in hexadecimal, of plain JSON and what it is about."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{about}\n{text}".encode(errors="surrogatepass")).hexdigest()


def sealed(value: Any, about: str) -> Any:
    """A dict or list as plain JSON, with its seal."""
    # As it will be read: JSON turns tuples into lists and all keys into text.
    plain = json.loads(json.dumps(value))
    mark = {KEY: digest(plain, about)}
    return {**plain, **mark} if isinstance(plain, dict) else [*plain, mark]


def opened(content: Any, about: str) -> Any:
    """What was read without its seal; Broken where it has none, or another value's."""
    value: Any
    if isinstance(content, dict) and KEY in content:
        value = dict(content)
        seal = value.pop(KEY)
    elif isinstance(content, list) and content and _is_seal(content[-1]):
        value = content[:-1]
        seal = content[-1][KEY]
    else:
        raise Broken("it has no checksum")
    if seal != digest(value, about):
        raise Broken("it differs from its checksum")
    return value


def _is_seal(item: Any) -> bool:
    return isinstance(item, dict) and list(item) == [KEY]


def read(file: Path, about: str) -> Any:
    """The value of a JSON file without its seal.

    ValueError (Broken is one) where it is damaged, PrunedgeError where it is no file.
    """
    return opened(json.loads(read_bytes(file)), about)


def file_digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    require_regular(file)
    with file.open("rb") as opened_file:
        return hashlib.file_digest(opened_file, "sha256").hexdigest()


def check(file: Path, wanted: Mapping[str, str]) -> None:
    """Broken where the file is named in `wanted` (name: SHA-256) and is another."""
    known = wanted.get(file.name)
    if known is not None and file_digest(file) != known:
        raise Broken("it differs from its checksum")
