"""What the config of a run says of the run beside its settings: the format in its first line, the
sign and a checksum in its last.

The sign stands for the run in the checksums of all its files. No other module reads or writes these
two lines, so that whoever takes anything from a run folder asks for its format by the same words.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunedge.errors import RunError
from prunedge.utils import checksums
from prunedge.utils.files import read_bytes
from prunedge.utils.formats import KEY, refuse_newer, refuse_other
from prunedge.utils.machine import pass_on_reading

CONFIG = "config.toml"
_SEAL = re.compile(r"# run ([0-9a-f]{16}) sha256 ([0-9a-f]{64})\n\Z")


def signed(text: str, sign: str) -> str:
    """The text of a config with a last line that holds the run's sign and a checksum."""
    return f"{text}# run {sign} sha256 {_digest(text, sign)}\n"


def sign_in(text: str) -> str:
    """The sign that the text of a run's config holds, right or not; empty where it holds none."""
    seal = _SEAL.search(text)
    return seal[1] if seal else ""


def sign_of(run: Path) -> str:
    """The sign of the run in a folder that holds a config.

    RunError where another version of prunedge wrote the config, or where it is not what was
    written. MachineError where it can't be read now.
    """
    file = run / CONFIG
    try:
        # Not read_text: it would take other ends of lines for those that were written.
        text = read_bytes(file, RunError).decode()
        values = tomllib.loads(text)
        version = values.get(KEY)
        refuse_newer(version, "run", run)
        seal = _SEAL.search(text)
        if seal is not None and seal[2] != _digest(text[: seal.start()], seal[1]):
            raise checksums.Broken("it differs from its checksum")
        if seal is None and not (version is None and _is_unsealed(values, text)):
            raise checksums.Broken("its last line is no checksum")
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, file)
        remedy = (
            "bring it back from a copy; where you have edited it, change the run with --resume "
            "instead"
        )
        raise RunError(f"the config is damaged: {error}", where=file, remedy=remedy) from None
    refuse_other(version, "run", run)
    return sign_in(text)


def _is_unsealed(values: Mapping[str, Any], text: str) -> bool:
    """Whether a config is one of those that prunedge 0.1 wrote before its files had checksums."""
    last = text.rstrip().rpartition("\n")[2]
    return {"data", "model"} <= values.keys() and not last.startswith("#")


def _digest(text: str, sign: str) -> str:
    return checksums.digest(text, f"{sign} {CONFIG}")
