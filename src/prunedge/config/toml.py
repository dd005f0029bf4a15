"""A config's and a study's file: TOML text to values by their keys, and back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunedge.errors import PrunedgeError
from prunedge.utils.files import read_text
from prunedge.utils.machine import pass_on_reading


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a TOML file; PrunedgeError when this `what` can't be read."""
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, path)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        remedy = "name a TOML file in UTF-8, as `key = value` in each line"
        raise PrunedgeError(f"can't read the {what}: {why}", where=path, remedy=remedy) from None


def toml_text(values: Mapping[str, Any]) -> str:
    """TOML text; what is None is left out."""
    import tomli_w  # the device has none

    return tomli_w.dumps({key: value for key, value in values.items() if value is not None})
