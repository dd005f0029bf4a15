"""Bundles from folders and from a real HTTPS server, among them those that cheat."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, Timer
from urllib.parse import urlsplit

import pytest

from prunedge.edge import open_bundle
from prunedge.edge.agent.broker import trusted
from prunedge.edge.update import pace
from prunedge.edge.update.announcement import Origins
from prunedge.edge.update.fetch import Unreachable, fetch
from prunedge.errors import AgentError
from tests.edge.agent.conftest import Authority, altered, write_images


class Files(BaseHTTPRequestHandler):
    """Serves a folder; paths below /short end early, below /moved lead elsewhere, below /secret they want a token."""

    folder: Path

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        kind, _, name = parts.path.lstrip("/").partition("/")
        file = self.folder / name
        if not file.is_file() or (kind == "secret" and parts.query != "token=x"):
            self.send_error(404)
        elif kind == "moved":
            self.send_response(302)
            self.send_header("Location", f"/files/{name}")
            self.end_headers()
        else:
            text = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if kind == "short" else text)

    def log_message(self, *_: object) -> None:
        pass


class Dripping(Files):
    """Sends a byte now and then: of the answer's beginning below /head, of a chunk's length below /chunk, of the file elsewhere."""

    def do_GET(self) -> None:
        kind = self.path.lstrip("/").partition("/")[0]
        name = self.path.rpartition("/")[2]
        text = (self.folder / name).read_bytes()
        if kind == "late" and name == "manifest.json":
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        head = {"head": b"", "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"}
        usual = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
        rest = {"head": b"HTTP/1.1 200 OK\r\nX: ", "chunk": b""}.get(kind, text) + b"0" * 10**6
        try:
            self.wfile.write(head.get(kind, usual))
            for place in range(10**6):
                self.wfile.write(rest[place : place + 1])
                time.sleep(0.02)
        except OSError:
            self.close_connection = True  # the client had enough


@pytest.fixture(scope="module", params=["https", "http"])
def dripping(
    request: pytest.FixtureRequest, bundles: tuple[Path, Path], authority: Authority
) -> Iterator[str]:
    handler = type("Handler", (Dripping,), {"folder": bundles[1], "protocol_version": "HTTP/1.1"})
    serving = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving.daemon_threads = True
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.certificate("server"))
        serving.socket = context.wrap_socket(serving.socket, server_side=True)
    Thread(target=serving.serve_forever, daemon=True).start()
    yield f"{request.param}://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def server(bundles: tuple[Path, Path], authority: Authority) -> Iterator[str]:
    handler = type("Handler", (Files,), {"folder": bundles[1]})
    serving = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("server"))
    serving.socket = context.wrap_socket(serving.socket, server_side=True)
    Thread(target=serving.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


def get(
    place: str | Path,
    into: Path,
    ca: Path | None = None,
    largest: int = 10**8,
    stop: Event | None = None,
    **more: float,
) -> None:
    where = (
        Origins((Path("/"),), ()).place(str(place)) if isinstance(place, Path) else urlsplit(place)
    )
    fetch(
        where,
        into,
        lambda text: None,
        largest=largest,
        context=trusted(None, also=ca),
        stop=stop or Event(),
        **more,
    )


@pytest.mark.parametrize("path", ["files", "files/", "secret?token=x"])
def test_a_bundle_comes_whole_over_https(
    server: str, authority: Authority, bundles: tuple[Path, Path], tmp_path: Path, path: str
) -> None:
    get(f"{server}/{path}", tmp_path / "b", authority.file)
    assert open_bundle(tmp_path / "b").manifest == open_bundle(bundles[1]).manifest
    assert {file.name for file in (tmp_path / "b").iterdir()} == {
        "manifest.json",
        "model.onnx",
        "selftest.npz",
    }  # and not torch's weights


def test_a_bundle_comes_whole_from_a_folder(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    get(bundles[1], tmp_path / "b")
    assert open_bundle(tmp_path / "b").manifest == open_bundle(bundles[1]).manifest


@pytest.mark.parametrize(
    ("path", "words"),
    [("short", "early"), ("missing/x", "404"), ("secret", "404"), ("secret?token=y", "404")],
)
def test_what_can_t_be_had_now_may_be_tried_again(
    server: str, authority: Authority, tmp_path: Path, path: str, words: str
) -> None:
    with pytest.raises(Unreachable, match=words) as caught:
        get(f"{server}/{path}", tmp_path / "b", authority.file)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("kind", ["head", "chunk", "body", "late"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    dripping: str, kind: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "WINDOW_S", 0.5)
    with pytest.raises(Unreachable, match="bytes a second, 1,024 are the least") as caught:
        get(f"{dripping}/{kind}", tmp_path / "b", authority.file)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["head", "body"])
def test_a_bundle_that_takes_too_long_is_given_up(
    dripping: str, kind: str, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(Unreachable, match=r"did not come in 0\.01 minutes.*--model-minutes"):
        get(f"{dripping}/{kind}", tmp_path / "b", authority.file, seconds=0.6)


def test_an_agent_that_ends_waits_for_no_server(
    dripping: str, authority: Authority, tmp_path: Path
) -> None:
    stop = Event()
    Timer(0.3, stop.set).start()
    with pytest.raises(Unreachable, match="stopped"):
        get(f"{dripping}/head", tmp_path / "b", authority.file, stop=stop)


def test_a_redirect_is_not_followed(server: str, authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="redirects") as caught:
        get(f"{server}/moved", tmp_path / "b", authority.file)
    assert not isinstance(caught.value, Unreachable)


def test_a_server_that_is_not_trusted_or_not_there(server: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="certificate"):
        get(f"{server}/files", tmp_path / "b")
    with pytest.raises(Unreachable, match="refused"):
        get("https://127.0.0.1:1/files", tmp_path / "c")


def lie(folder: Path, **files: dict[str, object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= files
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "a\\..\\secret",
        ".",
        "",
        "a\nb",
        "manifest.json",
    ],
)
def test_names_that_lead_out_are_refused_before_anything_is_written(
    bundles: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    bad = altered(bundles[1], tmp_path / "from" / "bad")
    (tmp_path / "from" / "secret").write_text("s")
    lie(bad, **{name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(AgentError, match="outside"):
        get(bad, tmp_path / "to" / "b")
    assert list((tmp_path / "to").rglob("*")) == [tmp_path / "to" / "b"]


def test_a_link_that_leads_out_is_refused(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    bad = altered(bundles[1], tmp_path / "bad")
    (bad / "link").symlink_to(secret)
    lie(bad, link={"sha256": "0" * 64, "bytes": 1})
    with pytest.raises(AgentError, match="no plain file"):
        get(bad, tmp_path / "b")
    os.mkfifo(bad / "pipe")  # reading it would wait for ever
    lie(bad, link={"sha256": "0" * 64, "bytes": 1}, pipe={"sha256": "0" * 64, "bytes": 1})
    (bad / "link").unlink()
    (bad / "link").write_text("s")
    with pytest.raises(AgentError):
        get(bad, tmp_path / "c")


def test_never_more_bytes_than_were_stated(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    bad = altered(bundles[1], tmp_path / "bad")
    size = (bad / "model.onnx").stat().st_size
    with (bad / "model.onnx").open("ab") as file:
        file.truncate(10**9)
    with pytest.raises(AgentError, match="checksum"):
        get(bad, tmp_path / "b")
    assert (tmp_path / "b" / "model.onnx").stat().st_size <= size


def test_too_large_or_too_many_bytes_are_refused_before_they_are_fetched(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match="--model-max-mb"):
        get(bundles[1], tmp_path / "b", largest=100)
    huge = altered(bundles[1], tmp_path / "huge")
    lie(huge, **{f"f{i}": {"sha256": "0" * 64, "bytes": 4 * 2**30} for i in range(5000)})
    with pytest.raises(Unreachable, match="no room"):
        get(huge, tmp_path / "c", largest=10**15)
    assert not any((tmp_path / "c").iterdir())
    with (huge / "manifest.json").open("ab") as file:
        file.truncate(10**9)
    with pytest.raises(AgentError, match=r"manifest\.json has more"):
        get(huge, tmp_path / "d")


def test_a_folder_that_holds_no_bundle(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    with pytest.raises(Unreachable, match=r"manifest\.json"):
        get(tmp_path / "images", tmp_path / "b")
    (tmp_path / "images" / "manifest.json").write_text("[]")
    with pytest.raises(AgentError, match="damaged"):
        get(tmp_path / "images", tmp_path / "c")
