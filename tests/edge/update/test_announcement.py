"""Announcements from strangers: what is taken, and what is refused with one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.edge.update.announcement import (
    Announcement,
    check_manifest,
    load_key,
    parse_announcement,
    parse_origins,
)
from prunedge.edge.update.statement import load_signer
from prunedge.errors import AgentError
from tests.needs import program

GOOD = {"bundle": "https://models.example/cracks", "sha256": "0" * 64}


def test_an_announcement_is_read() -> None:
    found = parse_announcement(json.dumps({**GOOD, "classes": ["a", "b"]}).encode())
    assert found == Announcement(**GOOD, classes=["a", "b"])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "not an announcement"),
        (json.dumps({**GOOD, "signature": "AA=="}).encode(), "not an announcement: signature: "),
        (b"hello", "not an announcement"),
        (b"\xff\xfe\x00", "not an announcement"),
        (b"NaN", "not an announcement"),
        (b"[]", "not an announcement"),
        (b"[" * 60000, "not an announcement"),
        (b" " * 70000, "65,536 at most"),
        (json.dumps({"bundle": "x"}).encode(), "sha256"),
        (json.dumps({**GOOD, "sha256": "0" * 63}).encode(), "sha256"),
        (json.dumps({**GOOD, "sha256": 0}).encode(), "sha256"),
        (json.dumps({**GOOD, "sha256": "0" * 64 + "\n"}).encode(), "sha256"),
        (json.dumps({**GOOD, "bundle": float("nan")}).encode(), "bundle"),
        (json.dumps({**GOOD, "bundle": ["x"]}).encode(), "bundle"),
        (json.dumps({**GOOD, "bundle": "x" * 3000}).encode(), "bundle"),
        (json.dumps({**GOOD, "classes": "crack"}).encode(), "classes"),
        (json.dumps({**GOOD, "run": "rm -rf /"}).encode(), "run"),
    ],
)
def test_what_is_not_ours_is_refused(payload: bytes, words: str) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        parse_announcement(payload)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@settings(max_examples=40)
@given(
    st.binary(max_size=100)
    | (st.floats() | st.text(max_size=9) | st.lists(st.none())).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_payload_does_more_than_being_refused(payload: bytes) -> None:
    with pytest.raises(AgentError):
        parse_announcement(payload)


@pytest.mark.parametrize(
    "text",
    [
        "https://models.example/cracks-secret/v2",
        "https://models.example/",
        "https://models.example/cracks/../secret",
        "https://models.example/cracks/%2e%2e/secret",
        "https://models.example/cracks/%252e%252e/secret",
        "https://models.example/cracks/..%5csecret",
        "https://models.example:8443/cracks/v2",
        "https://models.example.evil/cracks/v2",
        "https://models.example@evil/cracks/v2",
        "https://user:password@models.example/cracks/v2",
        "http://models.example/cracks/v2",
        "ftp://models.example/cracks/v2",
        "file:///etc",
        "https://[::1/cracks",
        "https://models.example:port/cracks",
        "https://models.example/cracks/\nHost: evil",
        "FOLDER/../outside",
        "FOLDER-secret/x",
        "FOLDER/link",
        "relative/bundle",
        "/etc",
        "",
    ],
)
def test_only_what_is_allowed_is_fetched(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    origins = parse_origins([str(folder), "https://models.example/cracks"])
    with pytest.raises(AgentError):
        origins.place(text.replace("FOLDER", str(folder)))


def test_what_lies_below_is_allowed(tmp_path: Path) -> None:
    origins = parse_origins(
        [str(tmp_path), "https://models.example/cracks/", "http://127.0.0.1:8000"]
    )
    assert origins.place(str(tmp_path / "v2")) == (tmp_path / "v2").resolve()
    for text in (
        "https://models.example/cracks/v2?token=x",
        "https://MODELS.example:443/cracks",
        "http://127.0.0.1:8000/v2",
    ):
        assert origins.place(text)


@pytest.mark.parametrize(
    "text", ["relative", "/nowhere", "http://models.example/cracks", "https://"]
)
def test_origins_that_can_t_be_are_refused_at_once(text: str) -> None:
    with pytest.raises(AgentError):
        parse_origins([text])


def openssl(*arguments: object) -> bytes:
    return subprocess.run(
        [program("openssl"), *map(str, arguments)], check=True, capture_output=True
    ).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key, by the commands of docs/agent.md."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "private.pem", folder / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def test_signatures_are_openssl_s(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    text = tmp_path / "text"
    text.write_bytes(b"DSSEv1")
    signature = openssl("pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", text)
    assert load_signer(private)(b"DSSEv1") == signature
    is_signed = load_key(public)
    assert is_signed(signature, b"DSSEv1")
    assert not is_signed(signature, b"DSSEv2")
    assert not is_signed(b"short", b"DSSEv1")


def test_what_is_no_key_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    other = tmp_path / "ec.pem", tmp_path / "ec.pub.pem"
    openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other[0])
    openssl("pkey", "-in", other[0], "-pubout", "-out", other[1])
    openssl(
        "pkey", "-in", private, "-aes256", "-passout", "pass:x", "-out", tmp_path / "locked.pem"
    )
    for load, file, words in (
        (load_key, private, "not a public key"),
        (load_key, tmp_path / "none.pem", "can't be read"),
        (load_key, other[1], "Ed25519"),
        (load_signer, public, "not a private key"),
        (load_signer, tmp_path / "none.pem", "can't be read"),
        (load_signer, other[0], "Ed25519"),
        (load_signer, tmp_path / "locked.pem", "locked by a password"),
    ):
        with pytest.raises(AgentError, match=words):
            load(file)


def test_the_manifest_must_be_the_announced_one() -> None:
    check_manifest(Announcement(bundle="x", sha256=hashlib.sha256(b"{}").hexdigest()), b"{}")
    with pytest.raises(AgentError, match="SHA-256"):
        check_manifest(Announcement(bundle="x", sha256="1" * 64), b"{}")
