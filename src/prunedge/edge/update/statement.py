"""What a signature covers: which bundle, which version, for which devices and purpose, until when.
Signed and judged here.

The form is an in-toto statement (https://in-toto.io/Statement/v1) about one subject, the bundle's
manifest, in a DSSE envelope (https://github.com/secure-systems-lab/dsse), as OpenSSF's model
signing has it, signed with Ed25519. Versions that only rise, and a date of expiry, are the ideas of
The Update Framework against announcing again what was signed long ago.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from prunedge.edge.logs import one_line
from prunedge.edge.manifest import MANIFEST
from prunedge.errors import AgentError, ExtraMissing
from prunedge.utils.files import read_secret
from prunedge.utils.machine import pass_on
from prunedge.utils.records import first_mistake

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
RELEASE = "urn:prunedge:bundle-release:1"
LARGEST_VERSION = 2**53 - 1  # what JSON keeps exactly everywhere
ANEW = "prunedge sign BUNDLE --key KEY --release N --purpose P --devices D, see docs/agent.md"

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._*?-]{1,64}$")]
Purpose = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]


class Release(BaseModel):
    """What the signer says of a bundle.

    `version` only rises from one release to the next. `devices` are ids, or patterns with * and ?.
    `topic` is the only one on which the announcement counts; None for any. `new_classes`: that they
    or the task differ from those of the bundle at work is meant.
    """

    model_config = _STRICT

    version: int = Field(ge=1, le=LARGEST_VERSION)
    signed: AwareDatetime
    expires: AwareDatetime
    devices: list[Pattern] = Field(min_length=1, max_length=1000)
    topic: str | None = Field(default=None, max_length=200)
    purpose: Purpose
    classes: list[str] = Field(min_length=1, max_length=10_000)
    new_classes: bool = False


class _Digest(BaseModel):
    model_config = _STRICT

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Subject(BaseModel):
    model_config = _STRICT

    name: Literal["manifest.json"]
    digest: _Digest


class Statement(BaseModel):
    """An in-toto statement about a bundle: the SHA-256 of its manifest, which stands for all of its
    files, and the release.
    """

    model_config = _STRICT

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicateType: Literal["urn:prunedge:bundle-release:1"]  # noqa: N815  in-toto's name
    predicate: Release

    @property
    def sha256(self) -> str:
        """Of the manifest."""
        return self.subject[0].digest.sha256

    @property
    def release(self) -> Release:
        """What is said of it."""
        return self.predicate


class _Signature(BaseModel):
    model_config = _STRICT

    sig: str = Field(max_length=200)
    keyid: str | None = Field(default=None, max_length=200)


class Envelope(BaseModel):
    """A DSSE envelope: a payload in Base64 and signatures over its type and its bytes; one by the
    key that is asked for suffices.
    """

    model_config = _STRICT

    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815  in-toto's name
    payload: str = Field(max_length=60_000)
    signatures: list[_Signature] = Field(min_length=1, max_length=16)


@dataclass(frozen=True)
class Taken:
    """The release of the highest version that was ever taken: what must not be gone behind."""

    version: int
    sha256: str
    purpose: str
    signed: datetime


@dataclass(frozen=True)
class Recipient:
    """What a device asks of a statement: its own id, the topic that it listens to, and the purpose,
    if it was told one.
    """

    device: str
    topic: str
    purpose: str | None = None


def encoded(kind: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding of a payload and its type."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def sign(sha256: str, release: Release, signer: Callable[[bytes], bytes]) -> dict[str, Any]:
    """The envelope of a statement that the bundle whose manifest has this SHA-256 is that release,
    as JSON's types.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": MANIFEST, "digest": {"sha256": sha256}}],
        "predicateType": RELEASE,
        "predicate": release.model_dump(mode="json"),
    }
    payload = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
    signature = base64.b64encode(signer(encoded(PAYLOAD, payload))).decode()
    return {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": signature}],
    }


def open_envelope(
    envelope: Envelope, is_signed: Callable[[bytes, bytes], bool] | None
) -> Statement:
    """The statement in an envelope; AgentError when it isn't one of ours, or when no signature is
    right (None: none is looked at).
    """
    payload = _decoded(envelope.payload, "the statement")
    if is_signed is not None:
        text = encoded(envelope.payloadType, payload)
        if not any(
            is_signed(_decoded(entry.sig, "the signature"), text) for entry in envelope.signatures
        ):
            raise AgentError("the signature is wrong", remedy="don't trust this bundle")
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        raise AgentError(
            f"not a statement about a bundle: {one_line(first_mistake(error))}",
            remedy=f"sign it anew: {ANEW}",
        ) from None


def judge(statement: Statement, asked: Recipient, taken: Taken | None, now: datetime) -> None:
    """AgentError that says why a release is not for this device, or not any more.

    A clock that was set back doesn't bring an old release back: it is not earlier than the last
    release that was taken was signed.
    """
    release = statement.release
    if not any(fnmatchcase(asked.device, pattern) for pattern in release.devices):
        meant = one_line(", ".join(release.devices))
        raise AgentError(
            f"it is signed for {meant}, this device is {asked.device}",
            remedy="sign it for this device if that is meant",
        )
    if release.topic not in (None, asked.topic):
        what = (
            f"it is signed for the topic {one_line(release.topic)}, this is {one_line(asked.topic)}"
        )
        raise AgentError(what, remedy="announce it there")
    wanted = asked.purpose or (taken.purpose if taken is not None else None)
    if wanted is not None and release.purpose != wanted:
        what = (
            f"it is signed for the purpose '{one_line(release.purpose)}', this device's is "
            f"'{one_line(wanted)}'"
        )
        raise AgentError(what, remedy="if that is meant, start the agent with --model-purpose")
    if now < release.expires and taken is not None:
        now = max(now, taken.signed)
    if now >= release.expires:
        raise AgentError(
            f"it expired on {release.expires.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            remedy=f"sign it anew: {ANEW}",
        )
    if taken is None:
        return
    if release.version < taken.version:
        what = (
            f"version {release.version:,} is older than {taken.version:,}, which was taken before"
        )
        raise AgentError(what, remedy="to go back, sign the old bundle anew with a higher version")
    if release.version == taken.version and statement.sha256 != taken.sha256:
        raise AgentError(
            f"version {release.version:,} was another bundle before",
            remedy="sign each bundle with a higher version",
        )


def load_signer(file: Path) -> Callable[[bytes], bytes]:
    """A function that signs, by the Ed25519 private key in a PEM file."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "'sign' needs cryptography, which is not installed",
            remedy="pip install 'prunedge[agent]'",
        ) from None
    made = "openssl genpkey -algorithm ed25519 -out signing.pem"
    try:
        key: Any = load_pem_private_key(read_secret(file), password=None)
    except OSError as error:
        raise AgentError(
            f"the private key can't be read ({error.strerror})", where=file, remedy=made
        ) from None
    except TypeError:
        remedy = "openssl pkey -in THIS -out a file in a safe place, and sign with that"
        raise AgentError(
            "the private key is locked by a password", where=file, remedy=remedy
        ) from None
    except ValueError:
        raise AgentError("not a private key in PEM", where=file, remedy=made) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise AgentError("not an Ed25519 private key", where=file, remedy=made)
    return key.sign


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise AgentError(f"{what} is not in Base64", remedy=f"sign it anew: {ANEW}") from None
