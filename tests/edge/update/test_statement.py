"""Signed statements: what is older, foreign, expired or edited is refused with the reason, whoever announces it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.cli.app import main
from prunedge.edge.update.announcement import Announcement, load_key, parse_announcement, stated
from prunedge.edge.update.statement import (
    PAYLOAD,
    Envelope,
    Recipient,
    Release,
    Statement,
    Taken,
    encoded,
    judge,
    open_envelope,
    sign,
)
from prunedge.errors import AgentError
from tests.edge.agent.conftest import digest

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SHA = "a" * 64
KEY = Ed25519PrivateKey.generate()
ASKED = Recipient("bridge-7", "site/models")


def is_signed(signature: bytes, text: bytes) -> bool:
    try:
        KEY.public_key().verify(signature, text)
    except Exception:
        return False
    return True


def release(**changes: Any) -> Release:
    usual = {
        "version": 7,
        "signed": NOW,
        "expires": NOW + timedelta(days=30),
        "devices": ["bridge-*"],
        "purpose": "cracks",
        "classes": ["crack", "sound"],
    }
    return Release(**{**usual, **changes})


def statement(sha256: str = SHA, **changes: Any) -> Statement:
    return open_envelope(
        Envelope.model_validate(sign(sha256, release(**changes), KEY.sign)), is_signed
    )


def announced(**changes: Any) -> Announcement:
    text = json.dumps(
        {"bundle": "/x", "sha256": SHA, "statement": sign(SHA, release(), KEY.sign), **changes}
    )
    return parse_announcement(text.encode())


def taken(
    version: int = 7, sha256: str = SHA, purpose: str = "cracks", signed: datetime = NOW
) -> Taken:
    return Taken(version, sha256, purpose, signed)


def test_the_encoding_is_dsse_s() -> None:
    """The example of its specification."""
    assert (
        encoded("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_statement_is_in_toto_s() -> None:
    envelope = sign(SHA, release(), KEY.sign)
    told = json.loads(base64.b64decode(envelope["payload"]))
    assert envelope["payloadType"] == PAYLOAD == "application/vnd.in-toto+json"
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["subject"] == [{"name": "manifest.json", "digest": {"sha256": SHA}}]
    assert told["predicate"]["version"] == 7
    assert told["predicate"]["devices"] == ["bridge-*"]


@pytest.mark.parametrize(
    "known",
    [None, taken(), taken(6, "b" * 64), taken(1), taken(7, signed=NOW - timedelta(days=5))],
    ids=lambda one: str(one and one.version),
)
def test_what_is_right_is_taken(known: Taken | None) -> None:
    found = stated(announced(), is_signed)
    assert found is not None
    assert found.release == release()
    judge(found, ASKED, known, NOW)


@pytest.mark.parametrize(
    ("changes", "asked", "known", "now", "words"),
    [
        ({"version": 6}, ASKED, taken(7), NOW, "version 6 is older than 7.*higher version"),
        ({"version": 1}, ASKED, taken(2**50), NOW, "older"),
        ({}, ASKED, taken(7, "b" * 64), NOW, "version 7 was another bundle"),
        (
            {},
            Recipient("tower-1", "site/models"),
            None,
            NOW,
            r"signed for bridge-\*, this device is tower-1",
        ),
        ({"devices": ["bridge-1", "bridge-2"]}, ASKED, None, NOW, "bridge-1, bridge-2"),
        ({"devices": ["BRIDGE-7"]}, ASKED, None, NOW, "this device"),
        ({"devices": ["bridge-?x"]}, ASKED, None, NOW, "this device"),
        ({"topic": "other/models"}, ASKED, None, NOW, "topic other/models"),
        ({"purpose": "rust"}, ASKED, taken(1), NOW, "purpose 'rust'.*'cracks'.*--model-purpose"),
        ({}, Recipient("bridge-7", "site/models", "rust"), None, NOW, "purpose 'cracks'.*'rust'"),
        ({}, ASKED, None, NOW + timedelta(days=30), "expired on 2026-12-26 12:00 UTC"),
        ({}, ASKED, None, NOW + timedelta(days=999), "expired"),
        # A device whose clock was set back knows at least when the last one was signed.
        (
            {"version": 8},
            ASKED,
            taken(7, signed=NOW + timedelta(days=60)),
            datetime(1970, 1, 2, tzinfo=UTC),
            "expired",
        ),
    ],
)
def test_what_is_old_foreign_or_expired_is_refused(
    changes: dict[str, Any], asked: Recipient, known: Taken | None, now: datetime, words: str
) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        judge(statement(**changes), asked, known, now)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def edited(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A statement that was changed after it had been signed."""
    envelope = sign(SHA, release(), KEY.sign)
    told = json.loads(base64.b64decode(envelope["payload"]))
    change(told)
    return {**envelope, "payload": base64.b64encode(json.dumps(told).encode()).decode()}


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "version": lambda told: told["predicate"].update(version=8),
    "expires": lambda told: told["predicate"].update(expires="2036-01-01T00:00:00Z"),
    "devices": lambda told: told["predicate"].update(devices=["*"]),
    "purpose": lambda told: told["predicate"].update(purpose="rust"),
    "classes": lambda told: told["predicate"].update(classes=["sound", "crack"]),
    "new_classes": lambda told: told["predicate"].update(new_classes=True),
    "topic": lambda told: told["predicate"].update(topic=None),
    "digest": lambda told: told["subject"][0]["digest"].update(sha256="b" * 64),
    "spaces": lambda told: None,  # the same values, written in another way
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_edited_after_signing_is_refused(name: str) -> None:
    with pytest.raises(AgentError, match="signature is wrong"):
        stated(announced(statement=edited(EDITS[name])), is_signed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"statement": None}, "not signed.*prunedge sign"),
        ({"sha256": "b" * 64}, "sha256 is not that of its signed statement"),
        ({"classes": ["crack", "rust"]}, "classes is not that of its signed statement"),
        (
            {"statement": {**sign(SHA, release(), KEY.sign), "signatures": [{"sig": "?"}]}},
            "not in Base64",
        ),
        ({"statement": {**sign(SHA, release(), KEY.sign), "payload": "?"}}, "not in Base64"),
        (
            {
                "statement": {
                    **sign(SHA, release(), KEY.sign),
                    "signatures": [{"sig": base64.b64encode(bytes(64)).decode()}],
                }
            },
            "wrong",
        ),
        ({"statement": sign(SHA, release(), Ed25519PrivateKey.generate().sign)}, "wrong"),
    ],
)
def test_announcements_that_are_not_signed_as_they_should_be(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AgentError, match=words):
        stated(announced(**changes), is_signed)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "model.onnx", "digest": {"sha256": SHA}}]},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {}},
        {"predicate": {**release().model_dump(mode="json"), "version": 0}},
        {"predicate": {**release().model_dump(mode="json"), "version": 2**53}},
        {"predicate": {**release().model_dump(mode="json"), "version": "8"}},
        {"predicate": {**release().model_dump(mode="json"), "version": 7.5}},
        {"predicate": {**release().model_dump(mode="json"), "expires": "2036-01-01T00:00:00"}},
        {"predicate": {**release().model_dump(mode="json"), "expires": "soon"}},
        {"predicate": {**release().model_dump(mode="json"), "devices": []}},
        {"predicate": {**release().model_dump(mode="json"), "devices": ["a b"]}},
        {"predicate": {**release().model_dump(mode="json"), "more": 1}},
    ],
)
def test_signed_by_us_but_no_statement_of_ours(change: dict[str, Any]) -> None:
    """Another program of the same key's owner must not be able to sign for a device by chance."""
    told = {**json.loads(base64.b64decode(sign(SHA, release(), KEY.sign)["payload"])), **change}
    payload = json.dumps(told).encode()
    signature = base64.b64encode(KEY.sign(encoded(PAYLOAD, payload))).decode()
    envelope = {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": signature}],
    }
    with pytest.raises(AgentError, match="not a statement about a bundle"):
        open_envelope(Envelope.model_validate(envelope), is_signed)


def test_a_signature_over_the_payload_alone_is_none() -> None:
    envelope = sign(SHA, release(), KEY.sign)
    plain = base64.b64encode(KEY.sign(base64.b64decode(envelope["payload"]))).decode()
    with pytest.raises(AgentError, match="wrong"):
        open_envelope(
            Envelope.model_validate({**envelope, "signatures": [{"sig": plain}]}), is_signed
        )


def test_one_signature_of_several_suffices_while_keys_change() -> None:
    envelope = sign(SHA, release(), KEY.sign)
    other = sign(SHA, release(), Ed25519PrivateKey.generate().sign)
    both = {**envelope, "signatures": [*other["signatures"], *envelope["signatures"]]}
    assert open_envelope(Envelope.model_validate(both), is_signed).sha256 == SHA


@settings(max_examples=200)
@given(st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_versions_only_rise(version: int, highest: int, same: bool) -> None:
    known = taken(highest, SHA if same else "b" * 64)
    is_right = version > highest or (version == highest and same)
    if is_right:
        judge(statement(version=version), ASKED, known, NOW)
    else:
        with pytest.raises(AgentError):
            judge(statement(version=version), ASKED, known, NOW)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "signing.pem").write_bytes(
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signing.pub.pem").write_bytes(public)
    return tmp_path / "signing.pem"


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_verb_signs_what_an_agent_takes(
    bundles: tuple[Path, Path], key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [
        "--key",
        key,
        "--purpose",
        "cracks",
        "--devices",
        "bridge-*",
        "--devices",
        "tower-1",
        "--place",
        "https://models.example/v2",
    ]
    assert (
        run("sign", bundles[1], *usual, "--release", 3, "--days", 10, "--topic", "site/models") == 0
    )
    text = capsys.readouterr().out
    found = parse_announcement(text.encode())
    told = stated(found, load_key(key.with_name("signing.pub.pem")))
    assert len(text.splitlines()) == 1
    assert told is not None
    assert told.sha256 == digest(bundles[1])
    assert found.bundle == "https://models.example/v2"
    assert told.release.classes == [
        "crack",
        "sound",
        "other",
    ]
    assert told.release.devices == [
        "bridge-*",
        "tower-1",
    ]
    assert told.release.expires - told.release.signed == timedelta(days=10)
    judge(told, ASKED, None, datetime.now(UTC))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--release": "0"}, "--release"),
        ({"--release": "-3"}, "--release"),
        ({"--release": "two"}, "--release"),
        ({"--release": str(2**60)}, "--release"),
        ({"--days": "0"}, "--days"),
        ({"--days": "nan"}, "--days"),
        ({"--days": "1e9"}, "--days"),
        ({"--devices": "bridge 7"}, "--devices"),
        ({"--purpose": ""}, "--purpose"),
        ({"--topic": "a/#"}, "--topic"),
        ({"--place": ""}, "--place"),
        ({"--place": "x" * 5000}, "--place"),
        ({"--place": "http://models.example/v2"}, "https only"),
        ({"--key": "/nowhere.pem"}, "/nowhere.pem"),
        ({"--key": "/dev/null"}, "not a private key"),
        ({"BUNDLE": "/nowhere"}, "not a bundle"),
    ],
)
def test_bad_input_of_the_verb_is_one_line(
    changes: dict[str, str],
    words: str,
    bundles: tuple[Path, Path],
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = {
        "--key": str(key),
        "--purpose": "cracks",
        "--devices": "b",
        "--place": "/x",
        "--release": "1",
    }
    options = {**usual, **{name: value for name, value in changes.items() if name != "BUNDLE"}}
    assert (
        run(
            "sign",
            changes.get("BUNDLE", bundles[0]),
            *(word for pair in options.items() for word in pair),
        )
        == 2
    )
    said = capsys.readouterr()
    assert said.out == "", said.err
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert words in said.err, said.err
