"""Times as a user writes them: a number in the setting's own unit, or a text with its unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator


def _in_unit_of(units: Mapping[str, float], example: str) -> Callable[[Any], Any]:
    """Reads a text by its unit; a number is taken as it is."""

    def read(time: Any) -> Any:
        if not isinstance(time, str):
            return time
        match = re.fullmatch(rf"(-?\d+(?:\.\d+)?)\s*({'|'.join(units)})", time.strip())
        if match is None:
            raise ValueError(f"not a time: write it as {example}")
        return float(match[1]) * units[match[2]]

    return read


# `5ms`, `0.2s`, or a number of milliseconds.
Milliseconds = Annotated[float, BeforeValidator(_in_unit_of({"ms": 1.0, "s": 1e3}, "5ms"))]
# `30min`, `90s`, `1.5h`, or a number of minutes.
Minutes = Annotated[
    float, BeforeValidator(_in_unit_of({"min": 1.0, "s": 1 / 60, "h": 60.0}, "30min"))
]
