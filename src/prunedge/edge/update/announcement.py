"""What is announced on the model topic, judged before anything is fetched: pure, but for reading
the public key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunedge.edge.logs import one_line
from prunedge.edge.update.statement import ANEW, Envelope, Statement, open_envelope
from prunedge.errors import AgentError, ExtraMissing
from prunedge.utils.files import read_secret, real_path
from prunedge.utils.machine import pass_on
from prunedge.utils.records import first_mistake

LARGEST = 64 * 1024  # bytes of a payload
HERE = ("localhost", "127.0.0.1", "::1")


class Announcement(BaseModel):
    """A new bundle: where its folder is, the SHA-256 of its manifest.json, and a signed statement
    about it.

    Without a statement `classes` names its classes if they are new.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bundle: str = Field(min_length=1, max_length=2000)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    statement: Envelope | None = None
    classes: list[str] | None = Field(default=None, min_length=1, max_length=10_000)


def parse_announcement(payload: bytes) -> Announcement:
    """The announcement in a payload; AgentError when it is not one of ours."""
    if len(payload) > LARGEST:
        raise AgentError(
            f"not an announcement: {len(payload):,} bytes, {LARGEST:,} at most",
            remedy="see docs/agent.md",
        )
    try:
        return Announcement.model_validate_json(payload)
    except ValidationError as error:
        raise AgentError(
            f"not an announcement: {one_line(first_mistake(error))}",
            remedy="see docs/agent.md",
        ) from None


@dataclass(frozen=True)
class Origins:
    """Folders and HTTPS addresses; an announcement may name only what lies below one of them."""

    folders: tuple[Path, ...]
    urls: tuple[SplitResult, ...]

    def place(self, text: str) -> Path | SplitResult:
        """Where an announced bundle is, made sure to lie below an allowed folder or address;
        AgentError when it doesn't.
        """
        if "://" not in text:
            folder = Path(text)
            resolved = real_path(folder)
            if folder.is_absolute() and any(
                resolved.is_relative_to(real_path(root)) for root in self.folders
            ):
                return resolved
        else:
            url = parse_address(text)
            if any(_is_below(url, root) for root in self.urls):
                return url
        raise AgentError(
            "the announced bundle lies below nothing that --model-from allows",
            where=one_line(text),
            remedy="allow it there",
        )


def parse_origins(texts: list[str]) -> Origins:
    """Origins from absolute folders and https:// addresses (http:// for this machine alone)."""
    folders = [Path(text) for text in texts if "://" not in text]
    for folder in folders:
        if not folder.is_absolute() or not folder.is_dir():
            raise AgentError(
                "--model-from names no folder that is there",
                where=folder,
                remedy="write an absolute path, or https://...",
            )
    return Origins(tuple(folders), tuple(parse_address(text) for text in texts if "://" in text))


def parse_address(text: str) -> SplitResult:
    """An address that a device fetches a bundle from: https, or http on this machine alone;
    AgentError for any other.
    """
    try:
        url = urlsplit(text)
        is_here = url.hostname in HERE
        _ = url.port
    except ValueError:
        raise AgentError(
            "this is no address", where=one_line(text), remedy="write https://HOST/FOLDER"
        ) from None
    if url.scheme != "https" and not (url.scheme == "http" and is_here):
        raise AgentError(
            "bundles are fetched by https only",
            where=one_line(text),
            remedy="write https://HOST/FOLDER",
        )
    path = unquote(url.path)
    if (
        not url.hostname
        or url.username is not None
        or ".." in path.split("/")
        or any(c in path for c in "\\%")
        or not text.isprintable()
    ):
        raise AgentError(
            "this address is not taken",
            where=one_line(text),
            remedy="write https://HOST/FOLDER, without a user or '..'",
        )
    return url


def _is_below(url: SplitResult, root: SplitResult) -> bool:
    def origin(of: SplitResult) -> tuple[str, str | None, int]:
        return of.scheme, of.hostname, of.port or (443 if of.scheme == "https" else 80)

    return origin(url) == origin(root) and (unquote(url.path).rstrip("/") + "/").startswith(
        unquote(root.path).rstrip("/") + "/"
    )


def load_key(file: Path) -> Callable[[bytes, bytes], bool]:
    """A function that tells whether a signature of a text is right, by the Ed25519 public key in a
    PEM file.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "--model-key needs cryptography, which is not installed",
            remedy="pip install 'prunedge[agent]'",
        ) from None
    made = "openssl genpkey -algorithm ed25519, then openssl pkey -pubout"
    try:
        key: Any = load_pem_public_key(read_secret(file))
    except OSError as error:
        raise AgentError(
            f"the public key can't be read ({error.strerror})", where=file, remedy=made
        ) from None
    except ValueError:
        raise AgentError("not a public key in PEM", where=file, remedy=made) from None
    if not isinstance(key, Ed25519PublicKey):
        raise AgentError("not an Ed25519 public key", where=file, remedy=made)

    def is_right(signature: bytes, text: bytes) -> bool:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return is_right


def stated(
    announcement: Announcement, is_signed: Callable[[bytes, bytes], bool] | None
) -> Statement | None:
    """The statement of an announcement, its signature verified where one is wanted (`is_signed`);
    None when there is none and needn't be.

    AgentError when a signature is wanted and missing or wrong, or when what stands beside the
    statement contradicts it.
    """
    if announcement.statement is None:
        if is_signed is None:
            return None
        raise AgentError("the announcement is not signed", remedy=f"sign it: {ANEW}")
    statement = open_envelope(announcement.statement, is_signed)
    beside = {
        "sha256": statement.sha256,
        "classes": announcement.classes and statement.release.classes,
    }
    edited = [name for name, value in beside.items() if getattr(announcement, name) != value]
    if edited:
        raise AgentError(
            f"the announcement's {edited[0]} is not that of its signed statement",
            remedy="don't trust this announcement",
        )
    return statement


def check_manifest(announcement: Announcement, manifest: bytes) -> None:
    """AgentError when a manifest is not the announced one."""
    digest = hashlib.sha256(manifest).hexdigest()
    if digest != announcement.sha256:
        raise AgentError(
            (
                f"the manifest's SHA-256 is {digest[:12]}..., announced was "
                f"{announcement.sha256[:12]}..."
            ),
            remedy="announce the right one",
        )
