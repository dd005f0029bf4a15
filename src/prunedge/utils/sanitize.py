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
    """A text with every character that can't be printed as Python writes it (`\\x1b`).

    But for those in `keep` (line breaks, tabs). Also what isn't text at all: bytes of a file's name
    that are no UTF-8 would end the printing with an error.
    """
    characters = []
    for character in str(text):
        if character.isprintable() or character in keep:
            characters.append(character)
        else:
            characters.append(character.encode("unicode_escape").decode())
    return "".join(characters)


def by_kind(reasons: Mapping[str, str], most: int = 4) -> list[str]:
    """A line for each kind of reason, the most frequent kind first.

    `REASON (20 of them: NAME, NAME, NAME, NAME and 16 more)`. Reasons are of the same kind where
    they differ in their numbers and the names themselves only; the first of each kind is shown.
    """
    lines = []
    for names in kinds(reasons):
        examples = ", ".join(names[:most])
        if len(names) > most:
            examples += f" and {len(names) - most} more"
        if len(names) > 1:
            examples = f"{len(names)} of them: {examples}"
        lines.append(f"{reasons[names[0]]} ({examples})")
    return lines


def kinds(reasons: Mapping[str, str]) -> list[list[str]]:
    """The names with each kind of reason, the most frequent kind first."""
    by_kind: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_kind.setdefault(_kind(name, why), []).append(name)
    return sorted(by_kind.values(), key=len, reverse=True)


def _kind(name: str, why: str) -> str:
    """A reason without what differs between those of its kind: its own name, and numbers."""
    if len(name) >= _SPEAKING:  # a short one may be a word of the reason
        why = why.replace(name, "#")
    return _NUMBER.sub("#", why)


class Lines(logging.Formatter):
    """Each record as such a line; a traceback, which only a bug brings, keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return shown(super().format(record), keep="\n\t" if record.exc_info else "")
