"""Times as a user writes them: milliseconds in Python, `5ms` or `0.2s` as a text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

UNITS = {"ms": 1.0, "s": 1000.0}


def as_milliseconds(time: Any) -> Any:
    """A text with its unit as milliseconds; a number is some already."""
    if not isinstance(time, str):
        return time
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)", time.strip())
    if match is None:
        raise ValueError("not a time, write it as 5ms")
    return float(match[1]) * UNITS[match[2]]


Milliseconds = Annotated[float, BeforeValidator(as_milliseconds)]
