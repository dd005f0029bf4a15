"""Small records in the cache folder: JSON with a checksum. What is damaged is said, and made
anew.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from prunedge.utils import checksums
from prunedge.utils.files import write_text
from prunedge.utils.machine import unusable_cache

log = logging.getLogger(__name__)


def cached(file: Path) -> Any:
    """The record; None where there is none, or it is not what was written: it has to be made anew.

    MachineError where the cache can't be used.
    """
    try:
        return checksums.read(file, file.name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable_cache(error, file.parent) from None
    except (ValueError, RecursionError) as error:
        log.warning("a file of the cache is damaged and made anew: %s (%s)", file, error)
        return None


def keep_cached(file: Path, value: Any) -> None:
    """Write a record: a dict or a list."""
    write_text(file, json.dumps(checksums.sealed(value, file.name)))
