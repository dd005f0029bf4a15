"""A bundle from a folder or an HTTPS server into a folder of ours, never more bytes than its manifest says."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO, Any
from urllib.parse import SplitResult, quote, urlunsplit

from pydantic import ValidationError

from prunedge.edge.agent.lines import one_line
from prunedge.edge.bundle import LARGEST_MANIFEST, MANIFEST, Manifest, is_sound_name
from prunedge.errors import AgentError
from prunedge.systems import sync_open_file

FAILURES = (OSError, http.client.HTTPException)  # urllib's own errors are OSErrors
SPARE = 32 << 20  # bytes that stay free on the disk
TIMEOUT_S = 30.0
CHUNK = 1 << 18


class Unreachable(AgentError):
    """The bundle can't be had now; later it may."""


def fetch(
    place: Path | SplitResult, into: Path, check: Callable[[bytes], None], *, largest: int, context: ssl.SSLContext, stop: Event
) -> Manifest:
    """Fetch the bundle at `place` into the new folder `into`, but for what no device needs; returns its manifest.

    `check` judges the manifest's bytes before anything else is fetched. Raises AgentError when it is refused, names a file outside its
    folder, has more than `largest` bytes or differs from its checksums; Unreachable when the server, the network or the disk fails.
    """
    into.mkdir(parents=True)
    try:
        text = _read(place, MANIFEST, LARGEST_MANIFEST, context)
        check(text)
        manifest = _manifest(text)
        needed = {name: entry for name, entry in manifest.files.items() if entry.needed}
        total = sum(entry.bytes for entry in needed.values())
        if total > largest:
            raise AgentError(f"the bundle has {total / 1e6:,.0f} MB, {largest / 1e6:,.0f} are allowed", remedy="raise --model-max-mb")
        if shutil.disk_usage(into).free < total + SPARE:
            raise Unreachable(f"no room for a bundle of {total / 1e6:,.0f} MB", where=into.parent, remedy="make room on the disk")
        for name, entry in needed.items():
            _copy(place, name, into / name, entry.bytes, entry.sha256, context, stop)
        _write(into / MANIFEST, text)
    except OSError as error:
        raise Unreachable(
            f"the bundle can't be stored ({error.strerror or error})", where=into, remedy="is there room on the disk?"
        ) from None
    return manifest


def _manifest(text: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise AgentError(
            f"the bundle's manifest is damaged ({where}: {one_line(found['msg'])})", remedy="export the bundle again"
        ) from None
    for name in manifest.files:
        if not is_sound_name(name) or PurePosixPath(name).name == MANIFEST:
            what = f"the manifest names a file outside the bundle, or in a way that is not taken: '{one_line(name)}'"
            raise AgentError(what, remedy="don't trust this bundle")
    return manifest


def _read(place: Path | SplitResult, name: str, most: int, context: ssl.SSLContext) -> bytes:
    with _open(place, name, context) as opened:
        try:
            found = opened.read(most + 1)
        except FAILURES as error:
            raise _failed(error, place, name) from None
        # What the server promised and did not send: Python gives a short answer and no error.
        if len(found) <= most and getattr(opened, "length", None):
            raise Unreachable(f"{one_line(name)} ends early", where=_shown(place), remedy="it is tried again")
    if len(found) > most:
        raise AgentError(f"{name} has more than {most:,} bytes", where=_shown(place), remedy="is this a bundle?")
    return found


def _copy(
    place: Path | SplitResult, name: str, file: Path, size: int, sha256: str, context: ssl.SSLContext, stop: Event
) -> None:  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), size
    with _open(place, name, context) as opened, file.open("xb") as written:
        while True:
            if stop.is_set():
                raise Unreachable("stopped while a bundle was being fetched", where=_shown(place), remedy="it is tried again")
            try:
                chunk = opened.read(min(CHUNK, left + 1))
            except FAILURES as error:
                raise _failed(error, place, name) from None
            left -= len(chunk)
            if not chunk or left < 0:
                break
            digest.update(chunk)
            written.write(chunk)
        sync_open_file(written)
    if left > 0:
        raise Unreachable(f"{one_line(name)} ends {left:,} bytes early", where=_shown(place), remedy="it is tried again")
    if left < 0 or digest.hexdigest() != sha256:
        raise AgentError(f"{one_line(name)} differs from its checksum", where=_shown(place), remedy="export or copy the bundle again")


def _open(place: Path | SplitResult, name: str, context: ssl.SSLContext) -> IO[bytes]:
    if isinstance(place, Path):
        file = place / name
        try:
            if not file.resolve().is_relative_to(place) or not stat.S_ISREG(file.stat().st_mode):
                raise AgentError("this is no plain file of the bundle", where=one_line(file), remedy="don't trust this bundle")
            return file.open("rb")
        except OSError as error:
            raise _failed(error, place, name) from None
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)
    address = urlunsplit(place._replace(path=place.path.rstrip("/") + "/" + quote(name), fragment=""))
    try:
        return opener.open(address, timeout=TIMEOUT_S)
    except FAILURES as error:
        raise _failed(error, place, name) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The address was allowed; where a server sends us to was not."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _failed(error: Exception, place: Path | SplitResult, name: str) -> AgentError:
    if isinstance(error, urllib.error.HTTPError) and 300 <= error.code < 400:
        return AgentError("the server redirects, which is not followed", where=_shown(place), remedy="announce the address itself")
    inner = error.reason if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError) else error
    why = getattr(inner, "verify_message", None) or getattr(inner, "strerror", None) or inner
    return Unreachable(f"{one_line(name)} can't be fetched ({one_line(why)})", where=_shown(place), remedy="is it there?")


def _shown(place: Path | SplitResult) -> str:
    """Without the query, which may hold a token."""
    return one_line(place if isinstance(place, Path) else urlunsplit(place._replace(query="", fragment="")))


def _write(file: Path, text: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(text)
        sync_open_file(opened)
