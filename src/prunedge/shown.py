"""Text from strangers as a terminal, a log or a page may have it: names of files and classes can hold what a terminal obeys."""

from __future__ import annotations

import logging


def shown(text: object, keep: str = "") -> str:
    """A text with every character that can't be printed as Python writes it (`\\x1b`), but for those in `keep` (line breaks, tabs).

    Also what isn't text at all: bytes of a file's name that are no UTF-8 would end the printing with an error.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in str(text))


class Lines(logging.Formatter):
    """Each record as one such line; a traceback, which only a fault of ours has, keeps its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return shown(super().format(record), keep="\n\t" if record.exc_info else "")
