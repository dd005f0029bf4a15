"""A folder that a device needs and no more: manifest, model, labels, preprocessing, self-test,
checksums.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunedge.edge.image.read import Greys
from prunedge.edge.manifest import (
    FORMAT,
    LARGEST_MANIFEST,
    LONGEST_NAME,
    MANIFEST,
    FileEntry,
    Form,
    Manifest,
    is_sound_name,
    other_format,
    parse_manifest,
)
from prunedge.edge.targets import TARGETS
from prunedge.edge.tasks import decoder_of
from prunedge.errors import BundleError
from prunedge.utils import checksums
from prunedge.utils.advice import command
from prunedge.utils.arguments import require_path
from prunedge.utils.files import real_path, require_regular
from prunedge.utils.filetypes import instead, is_bundle
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import first_mistake
from prunedge.utils.sanitize import shown
from prunedge.utils.systems import sync_open_file

SELFTEST = "selftest.npz"
AGAIN = "export or copy the bundle again"


@dataclass(frozen=True)
class Bundle:
    """A folder whose files were all found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def target(self) -> str:
        """The target that runs when none is named."""
        return next(iter(self.manifest.forms))

    @property
    def greys(self) -> Greys | None:
        """What greys of more than eight bits mean to its model; None when it was trained on
        eight-bit images.
        """
        span = self.manifest.greys
        return None if span is None else Greys(span.low, span.high, span.mixed)

    def form(self, target: str | None = None) -> Form:
        """The model for a target; BundleError when it was not exported."""
        name = self.target if target is None else target
        if name not in self.manifest.forms:
            targets = ", ".join(self.manifest.forms)
            remedy = f"it holds {targets}; {command('export', 'RUN', '--format', name)} makes it"
            raise BundleError(f"the bundle holds no '{name}'", where=self.path, remedy=remedy)
        return self.manifest.forms[name]

    def seen_as(self, target: str | None = None) -> Bundle:
        """The same, with the task as the model for a target decides it: a form in integers may have
        a threshold and a temperature of its own.
        """
        decision = self.form(target).decision
        if decision is None:
            return self
        task = self.manifest.task.model_copy(update={"decision": decision})
        return replace(self, manifest=self.manifest.model_copy(update={"task": task}))

    def model(self, target: str | None = None) -> Path:
        """The file that the target's runtime loads."""
        return self.path / self.form(target).files[0]

    def size_bytes(self, target: str | None = None) -> int:
        """Bytes of the model that the target's runtime loads."""
        return sum(self.manifest.files[name].bytes for name in self.form(target).files)


def open_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder, every file verified against its SHA-256.

    Raises BundleError when the folder holds no bundle, the manifest is damaged, is for a task that
    is not known, names a file outside the folder, or a file is missing, has another size or another
    checksum.
    """
    require_path("path", path)
    folder = Path(path)
    manifest = _manifest(folder)
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    for target, form in manifest.forms.items():
        _check_form(folder, target, form, manifest)
    _check_seal(folder / MANIFEST)
    if SELFTEST not in manifest.files:
        raise BundleError(
            f"the manifest names no {SELFTEST}",
            where=folder / MANIFEST,
            remedy="export the bundle again",
        )
    try:
        decoder_of(manifest.task)
    except BundleError as error:
        raise BundleError(error.what, where=folder, remedy=error.remedy) from None
    return Bundle(folder, manifest)


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    file = _inside(folder, name)
    require_regular(file, BundleError)
    if not entry.needed and not file.exists():
        return
    if file.is_file() and file.stat().st_size == entry.bytes and sha256(file) == entry.sha256:
        return

    _check_seal(folder / MANIFEST)  # or is it the manifest that is damaged?
    what = "a file differs from its checksum"
    if not file.is_file():
        what = "a file of the bundle is missing"
    raise BundleError(what, where=file, remedy=AGAIN)


def _check_form(folder: Path, target: str, form: Form, manifest: Manifest) -> None:
    is_known = target in TARGETS and form.files[0] == TARGETS[target].file
    needed = {name for name, entry in manifest.files.items() if entry.needed}
    if not is_known or not needed.issuperset(form.files):
        raise BundleError(
            f"the manifest's '{target}' is not one that can be run",
            where=folder / MANIFEST,
            remedy=f"targets of this prunedge: {', '.join(TARGETS)}",
        )


def write_manifest(
    folder: Path, names: list[str], optional: Collection[str] = (), **values: Any
) -> Manifest:
    """Write the manifest of a folder whose files are there, the `optional` ones being of no use to
    a device; returns it.
    """
    files = {}
    for name in names:
        file = folder / name
        files[name] = FileEntry(
            sha256=sha256(file), bytes=file.stat().st_size, needed=name not in optional
        )
    manifest = Manifest(format=FORMAT, files=files, sha256="", **values)
    record = checksums.sealed(manifest.model_dump(mode="json", exclude={"sha256"}), MANIFEST)
    with (folder / MANIFEST).open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(record, indent=1))
        sync_open_file(opened)
    return manifest.model_copy(update={"sha256": record[checksums.KEY]})


def sha256(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return checksums.file_digest(file)


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    require_regular(file, BundleError)
    if not file.is_file():
        why, remedy = instead(folder, MANIFEST, "name the folder that `prunedge export` made")
        if (folder / "config.toml").is_file():
            remedy = _of_run(folder)
        elif (folder / "export.json").is_file():
            why = "it is the export of a training of your own, whose task nobody knows"
            remedy = "run its model.onnx with ONNX Runtime; export.json says what it takes"
        raise BundleError(f"not a bundle ({why})", where=folder, remedy=remedy)
    try:
        if file.stat().st_size > LARGEST_MANIFEST:
            raise BundleError(
                "the manifest is too large to be one", where=file, remedy="don't trust this bundle"
            )
        text = file.read_bytes()
        other = other_format(text)
        if other is not None:
            what, remedy = other
            raise BundleError(what, where=folder, remedy=remedy)
        return parse_manifest(text)
    except (OSError, ValueError) as error:
        pass_on_reading(error, file)
        why = first_mistake(error) if isinstance(error, ValidationError) else str(error)
        raise BundleError(f"the manifest is damaged ({why})", where=file, remedy=AGAIN) from None


def _of_run(run: Path) -> str:
    """What to do where a run was named instead of its bundle."""
    bundles = [folder for folder in sorted(run.iterdir()) if is_bundle(folder)]
    if bundles:
        return f"name its bundle, {shown(bundles[0])}"
    return f"{command('export', run, '--out', 'BUNDLE')} makes one of it"


def _check_seal(file: Path) -> None:
    """BundleError where a manifest is not what was written. (Whether that was by whom it should be,
    a signature says.)
    """
    try:
        checksums.opened(json.loads(file.read_bytes()), MANIFEST)
    except ValueError as error:
        what = f"the manifest is damaged ({error})"
        raise BundleError(what, where=file, remedy=AGAIN) from None


def _inside(folder: Path, name: str) -> Path:
    file = folder / name
    if not is_sound_name(name) or not real_path(file).is_relative_to(real_path(folder)):
        text = shown(name) if len(name) < LONGEST_NAME else shown(name[:LONGEST_NAME]) + " ..."
        what = "the manifest names a file outside the bundle, or in a way that is not taken"
        raise BundleError(
            f"{what}: '{text}'",
            where=folder / MANIFEST,
            remedy="don't trust this bundle",
        )
    return file
