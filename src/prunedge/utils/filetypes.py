"""What a file or folder is, where another kind was wanted: told by its first bytes, or by what
stands in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from prunedge.utils.advice import command
from prunedge.utils.files import require_regular

TEXT = "a text file"
MISNAMED = "a file with an image's name"
_SHORT = b"BM"  # a text may begin so as well
# (place, bytes there), what begins so
_MAGIC = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, _SHORT, "a BMP image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89HDF", "an HDF5 file"),
)
PACKED = (
    "a tar archive",
    "a gzip archive",
    "an HDF5 file",
)  # what weights may lie in, though not as prunedge reads them
_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
_BEGINNING = 512
_LARGEST = 10**7  # bytes of a manifest; of strangers' files it is none


def kind_of_file(file: Path) -> str | None:
    """What a file is by its first bytes, else by an image's suffix: `a PNG image`, `a text file`.
    None where these don't tell.

    Raises OSError when it can't be read, PrunedgeError when it is no regular file.
    """
    require_regular(file)
    with file.open("rb") as opened:
        start = opened.read(_BEGINNING)
    is_text = _is_text(start)
    for place, sign, said in _MAGIC:
        if start[place : place + len(sign)] == sign and not (is_text and sign == _SHORT):
            return said
    page = start.lstrip().lower()
    if page.startswith((b"<!doctype html", b"<html")):
        return "a web page, not what it was to download"
    is_called_so = file.suffix.lower() in _IMAGES
    if is_text:
        return TEXT + (" with an image's name" if is_called_so else "")
    return MISNAMED if is_called_so else None


def _is_text(start: bytes) -> bool:
    """Whether a file's beginning is text; a character may be cut in two at its end."""
    try:
        text = start[: len(start) - 3 if len(start) == _BEGINNING else None].decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(char.isprintable() or char in "\n\r\t" for char in text)


def kind_of_folder(folder: Path) -> tuple[str, str] | None:
    """What prunedge made a folder as (`a run`), and the command that it is for; None where it made
    none of it.
    """
    if (folder / "study.toml").is_file():
        return "a study", command("study", "status", folder)
    if (folder / "config.toml").is_file():
        return "a run", command("show", folder)
    if (folder / "inspection.json").is_file():
        return "an inspection", f"open {folder / 'inspection.html'}"
    if _holds(folder / "manifest.json", "forms"):
        return "a bundle", command("bench", folder)
    return None


def instead(folder: Path | str, missing: str, otherwise: str) -> tuple[str, str]:
    """Why a folder is not what was wanted (`it is a study`, else that it holds nothing called
    `missing`), and what to do then.
    """
    found = kind_of_folder(Path(folder))
    if found is not None:
        return f"it is {found[0]}", found[1]
    return (f"it holds no {missing}" if Path(folder).exists() else "there is none"), otherwise


def _holds(file: Path, key: str) -> bool:
    try:
        is_small = file.is_file() and file.stat().st_size <= _LARGEST
        found = json.loads(file.read_bytes()) if is_small else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and key in found
