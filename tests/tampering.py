"""What a disk, a stranger or another version of prunedge does to the files of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunedge.utils import checksums
from prunedge.utils.signs import sign_in, signed


def flip(file: Path, place: int, mask: int = 0xFF) -> None:
    """Change one byte of a file; `place` counts from the end where it is negative."""
    data = bytearray(file.read_bytes())
    data[place] ^= mask
    file.write_bytes(data)


@contextmanager
def edited(run: Path) -> Iterator[Path]:
    """Let a test edit the files of a run: without checksums inside, and sealed again at the end as prunedge would seal them."""
    sign = sign_in((run / "config.toml").read_text(encoding="utf-8"))
    assert sign
    unsealed(run)
    yield run
    _seal(run, sign)


def in_format(run: Path, number: int | None, *, is_sealed: bool = True) -> Path:
    """Make a run one of another format (None: of prunedge 0.1, which named none), with right checksums or without any."""
    sign = sign_in((run / "config.toml").read_text(encoding="utf-8"))
    unsealed(run)
    line = "" if number is None else f"format = {number}\n"
    recipe = run / "config.toml"
    recipe.write_text(
        re.sub(r"\Aformat = 1\n", line, recipe.read_text(encoding="utf-8")), encoding="utf-8"
    )
    if (run / "history.jsonl").exists():
        rewrite_history(run, lambda record: _with_format(record, number))
    if is_sealed:
        _seal(run, sign)
    return run


def rewrite_history(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change each line of a history, which has no checksums (`edited`)."""
    history = run / "history.jsonl"
    lines = [change(json.loads(line)) for line in history.read_text(encoding="utf-8").splitlines()]
    history.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def unsealed(run: Path) -> None:
    """Take away every checksum that a run's recipe, records and history carry."""
    recipe = run / "config.toml"
    recipe.write_text(
        re.sub(r"# run .*\n\Z", "", recipe.read_text(encoding="utf-8")), encoding="utf-8"
    )
    for file in run.glob("*.json"):
        file.write_text(
            json.dumps(_without_seal(json.loads(file.read_text(encoding="utf-8")))),
            encoding="utf-8",
        )
    if (run / "history.jsonl").exists():
        rewrite_history(run, _without_seal)


def reseal_bundle(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the manifest of a bundle says, with checksums to match: what somebody with bad intentions would send."""
    file = folder / "manifest.json"
    told = _without_seal(json.loads(file.read_text(encoding="utf-8")))
    change(told)
    for name, entry in told["files"].items():
        if (folder / name).is_file():
            entry |= {
                "sha256": checksums.file_digest(folder / name),
                "bytes": (folder / name).stat().st_size,
            }
    file.write_text(json.dumps(checksums.sealed(told, file.name)), encoding="utf-8")


def _with_format(record: dict[str, Any], number: int | None) -> dict[str, Any]:
    rest = {key: value for key, value in record.items() if key != "format"}
    return rest if number is None else {"format": number, **rest}


def _without_seal(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: value for key, value in found.items() if key != checksums.KEY}
    return [one for one in found if not (isinstance(one, dict) and list(one) == [checksums.KEY])]


def _seal(run: Path, sign: str) -> None:
    """What prunedge writes beside a run's files: their checksums in the history, in the chain, and in each record."""
    if (run / "history.jsonl").exists():
        rewrite_history(
            run,
            lambda record: checksums.sealed(_with_digests(run, record), f"{sign} history.jsonl"),
        )
    for file in run.glob("*.json"):
        # The study's own record is no record of the run: it knows no sign.
        about = file.name if file.name == "study.json" else f"{sign} {file.name}"
        found = json.loads(file.read_text(encoding="utf-8"))
        if file.name == "chain.json" and (run / "first" / "model.safetensors").exists():
            found["weights"] = checksums.file_digest(run / "first" / "model.safetensors")
        file.write_text(json.dumps(checksums.sealed(found, about)), encoding="utf-8")
    recipe = run / "config.toml"
    recipe.write_text(signed(recipe.read_text(encoding="utf-8"), sign), encoding="utf-8")


def _with_digests(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    folder = run / "checkpoints" / f"step-{record['index']:03d}"
    kept = {file.name: checksums.file_digest(file) for file in sorted(folder.glob("*"))}
    named = record.get("files", {})
    # What is no longer gone on from was deleted, and stays named.
    return (
        {**record, "files": {name: kept.get(name, named[name]) for name in named}}
        if named
        else record
    )
