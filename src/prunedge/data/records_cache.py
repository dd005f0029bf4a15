"""Small records in the cache folder: JSON with a checksum. What is damaged is said, and made anew."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from prunedge.utils import checksums
from prunedge.utils.files import write_text

log = logging.getLogger(__name__)


def cached(file: Path) -> Any:
    """The record; None where there is none, or it is not what was written: it has to be made anew."""
    try:
        return checksums.read(file, file.name)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        log.warning("a file of the cache is damaged and made anew: %s (%s)", file, error)
        return None


def keep_cached(file: Path, value: Any) -> None:
    """Write a record: a dict or a list."""
    write_text(file, json.dumps(checksums.sealed(value, file.name)))
