"""What an audit keeps in its folder: audit.json, and what is measured so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import field_validator
from safetensors import SafetensorError, safe_open

from prunedge.errors import RunError
from prunedge.importance import Partial
from prunedge.importance.fingerprint import tensors_digest
from prunedge.utils import checksums
from prunedge.utils.files import read_bytes, require_regular, written
from prunedge.utils.formats import FORMAT, KEY, refuse_newer, refuse_other
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import Record, require
from prunedge.utils.tensor_files import save_tensors, texts_of

AGAIN = "make it again in a new folder"
PARTIAL = "partial.safetensors"


class CorrelationRecord(Record):
    """Spearman's rho with its interval; None where it can't be told."""

    rho: float | None
    low: float | None
    high: float | None


class AgreementRecord(Record):
    """One criterion against the oracle."""

    criterion: str
    per_layer: CorrelationRecord
    overall: dict[str, CorrelationRecord]
    layers: dict[str, float | None]

    @field_validator("overall")
    @classmethod
    def _has_those_shown(cls, value: dict[str, CorrelationRecord]) -> dict[str, CorrelationRecord]:
        if not {"none", "l2"} <= value.keys():
            raise ValueError(
                "there is no correlation of raw scores, or of those divided by their norm"
            )
        return value


class AuditRecord(Record):
    """audit.json, as far as anything reads it."""

    recommendation: str
    channels: int
    images: int
    absolute: list[AgreementRecord]
    signed: list[AgreementRecord]


class Numbers(Record):
    """The numbers of partial.safetensors (`oracle.Partial`)."""

    batch: int
    next: int
    loss: float
    examples: int
    seconds: float
    seconds_whole: float


def kept_audit(folder: Path) -> dict[str, Any] | None:
    """What an audit has written into its folder, as plain JSON; None where there is none.

    RunError when it is damaged, or of another format.
    """
    file = folder / "audit.json"
    if not file.exists():
        return None
    try:
        record = json.loads(read_bytes(file, RunError))
        version = dict(record).get(KEY)
        refuse_newer(version, "audit", folder)
        if version is None and checksums.KEY not in record:
            refuse_other(None, "audit", folder, AGAIN)
        values = checksums.opened(record, file.name)
        require(AuditRecord, values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"damaged: {error}",
            where=file,
            remedy="delete it; the same `prunedge audit` writes it again",
        ) from None
    refuse_other(version, "audit", folder, AGAIN)
    return {key: value for key, value in values.items() if key != KEY}


def write_partial(folder: Path, fingerprint: str, partial: Partial) -> None:
    """Keep what is measured so far, whole or not at all."""
    numbers = json.dumps({key: value for key, value in vars(partial).items() if key != "sums"})
    digest = tensors_digest(partial.sums, f"{fingerprint} {numbers}")
    about = {KEY: str(FORMAT), "fingerprint": fingerprint, "numbers": numbers, "sha256": digest}
    with written(folder / PARTIAL) as temporary:
        save_tensors(partial.sums, temporary, about)


def read_partial(folder: Path, fingerprint: str) -> Partial | None:
    """What is measured so far; None where there is nothing.

    RunError where it is damaged, of another format, or of an audit with another fingerprint.
    """
    file = folder / PARTIAL
    if not file.exists():
        return None
    require_regular(file, RunError)
    try:
        with safe_open(file, "pt") as opened:
            about = texts_of(opened.metadata())
            version = json.loads(about.get(KEY, "null"))
            refuse_newer(version, "audit", folder)
            sums = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
        numbers = json.loads(about["numbers"])
        if version is None and not about.get("sha256"):
            refuse_other(None, "audit", folder, AGAIN)
        _check_digest(sums, about)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        pass_on_reading(error, file)
        _refuse_damaged(file, error)

    refuse_other(version, "audit", folder, AGAIN)
    if about["fingerprint"] != fingerprint:
        raise RunError(
            "this is the audit of another model, other images or other settings",
            where=folder,
            remedy="choose another --out, or delete the folder",
        )
    try:
        require(Numbers, numbers)
        return Partial(sums=sums, **numbers)
    except (ValueError, TypeError) as error:
        _refuse_damaged(file, error)


def _check_digest(sums: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    digest = tensors_digest(sums, f"{about['fingerprint']} {about['numbers']}")
    if about["sha256"] != digest:
        raise ValueError("it differs from its checksum")


def _refuse_damaged(file: Path, error: Exception) -> NoReturn:
    raise RunError(
        f"can't read what is measured so far: {error}",
        where=file,
        remedy="delete this file to begin anew",
    ) from None
