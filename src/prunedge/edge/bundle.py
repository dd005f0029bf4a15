"""A folder that a device needs and no more: manifest, network, labels, preprocessing, checksums."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunedge.errors import BundleError

MANIFEST = "manifest.json"
NETWORK = "model.onnx"
FORMAT: Literal[1] = 1
LARGEST = 4 * 2**30  # bytes; no network that we export comes near


class FileEntry(BaseModel):
    """One file of a bundle: its SHA-256 and its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=LARGEST)


class ExportCheck(BaseModel):
    """How the exported network compares with torch on real pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: int = Field(ge=1)
    max_abs_difference: float = Field(ge=0)
    labels_identical: bool


class Manifest(BaseModel):
    """What a device must know of a network. `metrics` are shares (0 to 1) by name; `macs` are for one picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    model: str
    classes: list[str] = Field(min_length=1)
    input_size: int = Field(ge=1, le=8192)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    metrics: dict[str, Any] = {}
    macs: int = Field(ge=0)
    params: int = Field(ge=0)
    check: ExportCheck
    versions: dict[str, str] = {}
    about: dict[str, Any] = {}
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Bundle:
    """A folder whose files were all found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def network(self) -> Path:
        """The ONNX file."""
        return self.path / NETWORK

    @property
    def size_bytes(self) -> int:
        """Bytes of the network that the device loads."""
        return self.manifest.files[NETWORK].bytes


def open_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder, every file verified against its SHA-256.

    Raises BundleError when the folder holds no bundle, the manifest is damaged, names a file outside the folder, or a file
    is missing, has another size or another checksum.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    for name, entry in manifest.files.items():
        file = _inside(folder, name)
        if not file.is_file():
            raise BundleError("a file of the bundle is missing", where=file, remedy="export or copy the bundle again")
        if file.stat().st_size != entry.bytes or sha256(file) != entry.sha256:
            raise BundleError("a file differs from its checksum", where=file, remedy="export or copy the bundle again")
    if NETWORK not in manifest.files:
        raise BundleError(f"the manifest names no {NETWORK}", where=folder / MANIFEST, remedy="export the bundle again")
    return Bundle(folder, manifest)


def write_manifest(folder: Path, names: list[str], **values: Any) -> Manifest:
    """Write the manifest of a folder whose files are there; returns it."""
    files = {name: FileEntry(sha256=sha256(folder / name), bytes=(folder / name).stat().st_size) for name in names}
    manifest = Manifest(files=files, **values)
    with (folder / MANIFEST).open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(manifest.model_dump(), indent=1))
        opened.flush()
        os.fsync(opened.fileno())
    return manifest


def sha256(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(f"not a bundle (it holds no {MANIFEST})", where=folder, remedy="name the folder that `prunedge export` made")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found else str(error)
        raise BundleError(f"the manifest is damaged ({why})", where=file, remedy="export or copy the bundle again") from None


def _inside(folder: Path, name: str) -> Path:
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name or not file.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"the manifest names a file outside the bundle: {name!r}", where=folder / MANIFEST, remedy="don't trust this bundle"
        )
    return file
