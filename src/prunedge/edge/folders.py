"""Folders and all folders below them, however deep somebody made them: a stack, no recursion, and a
limit that is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# levels below the folder that was named; nobody keeps images further down, and each level makes
# every path longer
DEEPEST = 100


@dataclass(frozen=True)
class Level:
    """One folder: its path, its path below the root (empty for the root itself, else with a slash
    at its end), its files' names, sorted.
    """

    path: str
    prefix: str
    files: list[str]


def walk(
    root: str | os.PathLike[str],
    *,
    links: bool = False,
    enters: Callable[[str], bool] = lambda path: True,
    failed: Callable[[str, OSError], None],
    too_deep: Callable[[str], None],
) -> Iterator[Level]:
    """The folder `root` and those below it, each before its own folders, these by name. Hidden
    folders are left alone.

    `links`: linked folders are entered, too, each real folder once. `enters(path)` says whether a
    folder below is wanted. `failed(path, error)` hears of folders that can't be read,
    `too_deep(path)` of those more than DEEPEST levels down. Raises OSError when `root` itself can't
    be read.
    """
    waiting = [(os.fspath(root), "", 0)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        path, prefix, depth = waiting.pop()
        if depth > DEEPEST:
            too_deep(path)
            continue
        try:
            if links and not _is_new(path, seen):
                continue
            folders, files = _entries(path, links)
        except OSError as error:
            if not depth:
                raise
            failed(path, error)
            continue
        yield Level(path, prefix, files)
        below = [
            (os.path.join(path, name), f"{prefix}{name}/", depth + 1) for name in reversed(folders)
        ]
        waiting += [folder for folder in below if enters(folder[0])]


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _is_folder(entry: os.DirEntry[str], links: bool) -> bool:
    """Whether it is a folder. A link that leads to itself, or to where nobody may look, is none:
    whoever opens it says what is wrong.
    """
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:
        return False


def _entries(path: str, links: bool) -> tuple[list[str], list[str]]:
    """The names of the folders and of the other things in a folder, sorted."""
    folders, files = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if not _is_folder(entry, links):
                files.append(entry.name)
            elif not entry.name.startswith("."):
                folders.append(entry.name)
    return sorted(folders), sorted(files)
