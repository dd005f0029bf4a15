"""What the user can type where he is: options as the command, a study's file or Python calls them,
and commands that can be copied.
"""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = Literal["python", "command", "study"]

_place: Place = "python"
_verb: str | None = None
# Where an option of the command is not called as the config calls it.
_OF_THE_COMMAND = {"start": "from", "cost": "for", "costs": "cost"}
# Who trains and does no more, `prunedge train` and `pe.fit`, has no other epochs.
OF_TRAINING = {"train_epochs": "epochs"}


def flag(key: str, verb: str | None = None) -> str:
    """What the command line calls a setting: `--finetune-lr`."""
    names = {**_OF_THE_COMMAND, **(OF_TRAINING if verb == "train" else {})}
    return f"--{names.get(key, key).replace('_', '-')}"


def speak(place: Place, verb: str | None = None) -> None:
    """Say from now on how things are called there: on the command line (of a verb), in a study's
    file, or in Python, as it is at first.
    """
    global _place, _verb
    _place = place
    _verb = verb


@contextmanager
def speaking(place: Place, verb: str | None = None) -> Iterator[None]:
    """The same until the block ends."""
    before = _place, _verb
    speak(place, verb)
    try:
        yield
    finally:
        speak(*before)


def place() -> Place:
    """Where the user is."""
    return _place


def option(key: str, value: Any = None) -> str:
    """How a setting is called where the user is: `--lr 0.002`, `lr = 0.002` in a study's file,
    `lr=0.002` in Python.

    `key` is its key in a config (`finetune_lr`). Without a `value` it is the name alone: `--lr`, ``
    `lr` ``, `lr=`.
    """
    if _place == "command":
        if value is False:
            return flag(key, _verb).replace("--", "--no-", 1)
        shown = "" if value is None or value is True else f" {value}"
        return flag(key, _verb) + shown
    if _place == "study":
        shown = (
            f'"{value}"'
            if isinstance(value, str)
            else str(value).lower()
            if isinstance(value, bool)
            else value
        )
        return f"`{key}`" if value is None else f"`{key} = {shown}`"
    shown = repr(value) if isinstance(value, str) else value
    name = OF_TRAINING.get(key, key) if _verb == "train" else key
    return f"{name}={'' if value is None else shown}"


def command(*words: object) -> str:
    """A command as it can be copied into a shell: `prunedge` and these words, each quoted where it
    has to be.
    """
    return " ".join(quoted(word) for word in ("prunedge", *words))


def quoted(word: object) -> str:
    """A word for a shell, in one line whatever is in it: what can't be printed (line breaks) is
    written as bash and zsh read it.
    """
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + re.sub(r"[^ -&(-\[\]-~]", lambda match: _escaped(match[0]), text) + "'"


def _escaped(char: str) -> str:
    """A character between `$'` and `'`."""
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file's name that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return (
        f"\\x{number:02x}"
        if number < 0x80
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )
