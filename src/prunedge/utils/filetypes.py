"""What a file or folder is, where another kind was wanted.

Told by its first bytes, or by the files in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from prunedge.utils.advice import command
from prunedge.utils.files import require_regular

TEXT = "a text file"
MISNAMED = "a file with an image's name"
_SHORT = b"BM"  # a text may begin so as well
# (offset, bytes there, the kind of file that has them)
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
# Kinds of files in which weights may lie, though not as prunedge reads them.
PACKED = ("a tar archive", "a gzip archive", "an HDF5 file")
_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
_BEGINNING = 512
_LARGEST = 10**7  # bytes of a manifest; of strangers' files it is none


def kind_of_file(file: Path) -> str | None:
    """What a file is by its first bytes, else by an image's suffix: `a PNG image`, `a text file`.

    None where these don't tell. Raises OSError when it can't be read, PrunedgeError when it is no
    regular file.
    """
    require_regular(file)
    with file.open("rb") as opened:
        start = opened.read(_BEGINNING)
    is_text = _is_text(start)
    for offset, sign, kind in _MAGIC:
        begins_so = start[offset : offset + len(sign)] == sign
        if begins_so and not (is_text and sign == _SHORT):
            return kind
    page = start.lstrip().lower()
    if page.startswith((b"<!doctype html", b"<html")):
        return "a web page, not what it was to download"

    has_image_name = file.suffix.lower() in _IMAGES
    if is_text:
        return TEXT + (" with an image's name" if has_image_name else "")
    return MISNAMED if has_image_name else None


def _is_text(start: bytes) -> bool:
    """Whether a file's beginning is text; a character may be cut in two at its end."""
    if len(start) == _BEGINNING:
        start = start[:-3]
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(char.isprintable() or char in "\n\r\t" for char in text)


def kind_of_folder(folder: Path) -> tuple[str, str] | None:
    """What prunedge made a folder as (`a run`), and the command that reads it; None of others."""
    if (folder / "study.toml").is_file():
        return "a study", command("study", "status", folder)
    if (folder / "config.toml").is_file():
        return "a run", command("show", folder)
    if (folder / "inspection.json").is_file():
        return "an inspection", f"open {folder / 'inspection.html'}"
    if is_bundle(folder):
        return "a bundle", command("bench", folder)
    return None


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like one that `prunedge export` made."""
    return _holds(folder / "manifest.json", "forms")


def instead(folder: Path | str, missing: str, otherwise: str) -> tuple[str, str]:
    """Why a folder is not what was wanted, and what to do then.

    `it is a study`, else that it holds nothing called `missing`.
    """
    known = kind_of_folder(Path(folder))
    if known is not None:
        kind, remedy = known
        return f"it is {kind}", remedy
    if Path(folder).exists():
        return f"it holds no {missing}", otherwise
    return "there is none", otherwise


def _holds(file: Path, key: str) -> bool:
    """Whether it is a JSON file of a dict with this key."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return False
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and key in content
