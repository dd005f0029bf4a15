"""Announcements from strangers: what is taken, and what is refused with one line."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.edge.agent.announcement import Announcement, check_manifest, load_key, parse_announcement, parse_origins
from prunedge.errors import AgentError
from tests.needs import program

GOOD = {"bundle": "https://models.example/cracks", "sha256": "0" * 64}


def test_an_announcement_is_read() -> None:
    found = parse_announcement(json.dumps({**GOOD, "signature": "AA==", "classes": ["a", "b"]}).encode())
    assert found == Announcement(**GOOD, signature="AA==", classes=["a", "b"])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "not an announcement"),
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
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@settings(max_examples=40)
@given(st.binary(max_size=100) | (st.floats() | st.text(max_size=9) | st.lists(st.none())).map(lambda value: json.dumps(value).encode()))
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
    origins = parse_origins([str(tmp_path), "https://models.example/cracks/", "http://127.0.0.1:8000"])
    assert origins.place(str(tmp_path / "v2")) == (tmp_path / "v2").resolve()
    for text in ("https://models.example/cracks/v2?token=x", "https://MODELS.example:443/cracks", "http://127.0.0.1:8000/v2"):
        assert origins.place(text)


@pytest.mark.parametrize("text", ["relative", "/nowhere", "http://models.example/cracks", "https://"])
def test_origins_that_can_t_be_are_refused_at_once(text: str) -> None:
    with pytest.raises(AgentError):
        parse_origins([text])


def openssl(*arguments: object) -> bytes:
    return subprocess.run([program("openssl"), *map(str, arguments)], check=True, capture_output=True).stdout


def test_signatures_are_openssl_s(tmp_path: Path) -> None:
    """The commands of docs/agent.md."""
    private, public, manifest = tmp_path / "private.pem", tmp_path / "public.pem", tmp_path / "manifest.json"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    manifest.write_bytes(b"{}")
    signature = openssl("pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", manifest)
    sha256 = openssl("dgst", "-sha256", "-r", manifest).decode().split()[0]
    is_signed = load_key(public)
    good = Announcement(bundle="x", sha256=sha256, signature=base64.b64encode(signature).decode())
    check_manifest(good, b"{}", is_signed)
    check_manifest(good, b"{}", None)
    for changed, words in (
        ({"sha256": "1" * 64}, "SHA-256"),
        ({"signature": None}, "not signed"),
        ({"signature": "?"}, "Base64"),
        ({"signature": base64.b64encode(bytes(64)).decode()}, "wrong"),
        ({"signature": base64.b64encode(b"short").decode()}, "wrong"),
    ):
        with pytest.raises(AgentError, match=words):
            check_manifest(good.model_copy(update=changed), b"{}", is_signed)
    with pytest.raises(AgentError, match="not a public key"):
        load_key(private)
    with pytest.raises(AgentError, match="can't be read"):
        load_key(tmp_path / "none.pem")
    openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    with pytest.raises(AgentError, match="Ed25519"):
        load_key(public)
