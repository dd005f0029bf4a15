"""Text from strangers as a terminal, a log or a page may have it: names of files and classes can
hold what a terminal obeys.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

_SPEAKING = 8  # characters of a name that is nothing else
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def shown(text: object, keep: str = "") -> str:
    """A text with every character that can't be printed as Python writes it (`\\x1b`), but for
    those in `keep` (line breaks, tabs).

    Also what isn't text at all: bytes of a file's name that are no UTF-8 would end the printing
    with an error.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def by_kind(reasons: Mapping[str, str], most: int = 4) -> list[str]:
    """One line for each kind of reason: `REASON (20 of them: NAME, NAME, NAME, NAME and 16 more)`,
    the most frequent kind first.

    Reasons are of one kind where they are the same but for their numbers and the names themselves;
    the first of each kind is told.
    """
    lines = []
    for names in kinds(reasons):
        some = ", ".join(names[:most]) + (
            f" and {len(names) - most} more" if len(names) > most else ""
        )
        lines.append(
            f"{reasons[names[0]]} ({some if len(names) == 1 else f'{len(names)} of them: {some}'})"
        )
    return lines


def kinds(reasons: Mapping[str, str]) -> list[list[str]]:
    """The names with each kind of reason, the most frequent kind first."""
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(_kind(name, why), []).append(name)
    return sorted(found.values(), key=len, reverse=True)


def _kind(name: str, why: str) -> str:
    """A reason without what differs from one to the next of its kind: its own name, and numbers."""
    if len(name) >= _SPEAKING:  # a short one may be a word of the reason
        why = why.replace(name, "#")
    return _NUMBER.sub("#", why)


class Lines(logging.Formatter):
    """Each record as one such line; a traceback, which only a fault of ours has, keeps its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return shown(super().format(record), keep="\n\t" if record.exc_info else "")
