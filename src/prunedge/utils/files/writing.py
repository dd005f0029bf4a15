"""Files and folders that are written whole or not at all.

Whatever prunedge writes is made in a hidden folder beside its target (`.prunedge-NAME.new`),
brought to the disk, and renamed. As long as that goes on its writer holds a lock
(`.prunedge-NAME.lock`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from prunedge.errors import MachineError, PrunedgeError
from prunedge.utils.files.locks import (
    LOCK,
    PREFIX,
    clear_leftovers,
    held_lock,
    hidden_folder_of,
    own_hidden_folder,
)
from prunedge.utils.files.paths import make_folder
from prunedge.utils.files.reading import irregular_kind
from prunedge.utils.systems import replace, sync_file, sync_folder, sync_tree

LONGEST = 100  # bytes of a target's name that a hidden name repeats


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable by others."""
    with written(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(file: Path, content: bytes) -> None:
    """The same of bytes."""
    with written(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """An atomic write: gives a hidden path, and what is written there takes the file's name.

    When the block ends well it is brought to the disk, made readable by others, and renamed;
    otherwise the file is as it was. An OSError that comes of it names the file. A symbolic link is
    replaced: somebody else's run could hold one that leads to a file of yours. Where the user named
    the link, call `behind_links` first. Raises PrunedgeError where something lies there that is no
    regular file: a device would be replaced.
    """
    irregular = irregular_kind(file)
    if irregular is not None:
        raise PrunedgeError(
            f"can't write here: this is {irregular}, not a file",
            where=file,
            remedy="choose another name, or remove it",
        )
    with _naming(file), own_hidden_folder(file.parent) as folder:
        temporary = folder / file.name
        yield temporary
        os.chmod(temporary, 0o644)
        sync_file(temporary)
        replace(temporary, file)
        sync_folder(file.parent)


@contextmanager
def written_folder(target: Path, what: str) -> Iterator[Path]:
    """The same for a folder, which replaces whatever `target` is.

    One process at a time: InUse when another makes that target. `what` is being made, in words.
    What killed processes left beside the target is removed. A symbolic link is replaced, as by
    `written`, and what it leads to stays.
    """
    parent = target.absolute().parent
    make_folder(parent)
    lock_file = parent / f"{PREFIX}{_short(target.name)}{LOCK}"
    with _naming(target), held_lock(lock_file, target, what):
        clear_leftovers(parent)
        folder = hidden_folder_of(lock_file)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            yield folder
            sync_tree(folder)
            if target.is_symlink():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            replace(folder, target)
            sync_folder(parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _short(name: str) -> str:
    """A name that is short enough for a longer one to hold it: of long names, a digest."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    return sha256(encoded).hexdigest()[:24]


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let an OSError name the target instead of a hidden path or nothing.

    What other libraries make of an OSError becomes one again.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is not None and (named is None or PREFIX in str(named)):
            error.filename = str(target)
            error.filename2 = None
        raise
    except MachineError as error:
        if error.where is not None:
            raise
        raise MachineError(error.what, where=target, remedy=error.remedy) from error
    except Exception as error:
        # safetensors: "Error while serializing: I/O error: No space left on device (os error 28)"
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, PrunedgeError) or number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(target)) from error
