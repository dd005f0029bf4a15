"""Cases of a test that `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def some_slow(cases: Iterable[Any], slow: Container[Any]) -> list[Any]:
    """The cases, those that take long marked as slow; a tuple is several arguments."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=pytest.mark.slow) if case in slow else case)
    return marked
