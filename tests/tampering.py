"""What a disk, a stranger or an older prunedge does to the files of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prunedge.utils.checksums import KEY


def flip(file: Path, place: int, mask: int = 0xFF) -> None:
    """Change one byte of a file; `place` counts from the end where it is negative."""
    data = bytearray(file.read_bytes())
    data[place] ^= mask
    file.write_bytes(data)


def as_older(run: Path) -> Path:
    """Make a run what an older prunedge would have left: without any checksum, so that its files can be edited. Gives the folder."""
    recipe = run / "recipe.toml"
    recipe.write_text(re.sub(r"# run .*\n\Z", "", recipe.read_text(encoding="utf-8")), encoding="utf-8")
    for file in run.glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            found.pop(KEY, None)
            found.pop("weights", None) if file.name == "chain.json" else None
        else:
            del found[-1]
        file.write_text(json.dumps(found), encoding="utf-8")
    history = run / "history.jsonl"
    lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line.pop(KEY, None)
        line.pop("files", None)
    history.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return run
