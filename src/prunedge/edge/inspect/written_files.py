"""The files for all images that inspections wrote into a folder, as its inspection.json lists them:
a later inspection removes those that it doesn't write itself, since they tell of other results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prunedge.edge.inspect.exports import FILES_OF_FORMATS
from prunedge.edge.inspect.sources import MARK
from prunedge.utils.files import read_text, write_bytes
from prunedge.utils.machine import pass_on_reading

FILES = "files"  # in inspection.json
CARDS = "defects.html"
PDF = "defects.pdf"
# Nothing else is removed, whatever a damaged inspection.json lists.
KNOWN = frozenset({CARDS, PDF, *(name for names in FILES_OF_FORMATS.values() for name in names)})


def files_for_all(formats: Iterable[str], has_cards: bool) -> frozenset[str]:
    """What an inspection writes for all images, beside its page and tables."""
    names = {name for each in formats for name in FILES_OF_FORMATS[each]}
    return frozenset(names | ({CARDS, PDF} if has_cards else set()))


def files_written(folder: Path) -> frozenset[str]:
    """What inspections wrote into a folder for all images; nothing where none is known."""
    listed = _mark(folder).get(FILES)
    if not isinstance(listed, list):
        return frozenset()
    return KNOWN & {name for name in listed if isinstance(name, str)}


def list_files(folder: Path, names: Iterable[str]) -> None:
    """Add files to the list of an inspection, before they are written."""
    mark = _mark(folder)
    mark[FILES] = sorted(files_written(folder) | set(names))
    write_bytes(folder / MARK, json.dumps(mark, indent=1).encode())


def is_record_of(file: Path, name: str) -> bool:
    """Whether NAME.json is what an inspection found in the image of this name."""
    return _document(file).get("name") == name


def _mark(folder: Path) -> dict[str, Any]:
    return dict(_document(folder / MARK))


def _document(file: Path) -> Mapping[str, Any]:
    """A JSON object of a file; an empty one where there is none."""
    try:
        document = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, file)
        return {}
    return document if isinstance(document, dict) else {}
