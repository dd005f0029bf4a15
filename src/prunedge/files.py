"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from prunedge.systems import replace, sync_open_file


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable by others."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
        sync_open_file(opened)
    # Temporary files are private; a run is made to be looked at by others.
    os.chmod(temporary, 0o644)
    replace(temporary, file)
