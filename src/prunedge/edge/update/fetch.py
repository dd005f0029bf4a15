"""A bundle from a folder or an HTTPS server into a folder of ours, never more bytes than its
manifest says.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any
from urllib.parse import SplitResult, quote, urlunsplit

from pydantic import ValidationError

from prunedge.edge.logs import one_line
from prunedge.edge.manifest import (
    LARGEST_MANIFEST,
    MANIFEST,
    Manifest,
    is_sound_name,
    other_format,
    parse_manifest,
)
from prunedge.edge.update.pace import DEADLINE_S, Pace, Unreachable, watched
from prunedge.errors import AgentError
from prunedge.utils.files import make_folder, real_path
from prunedge.utils.records import first_mistake
from prunedge.utils.systems import sync_open_file

FAILURES = (OSError, http.client.HTTPException)  # urllib's own errors are OSErrors
SPARE = 32 << 20  # bytes that stay free on the disk
TIMEOUT_S = 30.0
CHUNK = 1 << 18


def fetch(
    place: Path | SplitResult,
    into: Path,
    check: Callable[[bytes], None],
    *,
    largest: int,
    context: ssl.SSLContext,
    stop: Event,
    seconds: float = DEADLINE_S,
) -> Manifest:
    """Fetch the bundle at `place` into the new folder `into`, but for what no device needs; returns
    its manifest.

    `check` judges the manifest's bytes before anything else is fetched. Raises AgentError when it
    is refused, names a file outside its folder, has more than `largest` bytes or differs from its
    checksums; Unreachable when the server, the network or the disk fails, when it takes more than
    `seconds` or comes too slowly (`prunedge.edge.update.pace`), or `stop` is set.
    """
    with Pace(seconds, stop) as pace:
        return _fetch(_Source(place, context, pace), into, check, largest)


@dataclass(frozen=True)
class _Source:
    """Where a bundle comes from, and on what terms."""

    place: Path | SplitResult
    context: ssl.SSLContext
    pace: Pace


def _fetch(source: _Source, into: Path, check: Callable[[bytes], None], largest: int) -> Manifest:
    try:
        into.mkdir(parents=True)
        large = AgentError(
            f"{MANIFEST} has more than {LARGEST_MANIFEST:,} bytes",
            where=_shown(source.place),
            remedy="is this a bundle?",
        )
        text = b"".join(_chunks(source, MANIFEST, LARGEST_MANIFEST, too_many=large))
        check(text)
        manifest = _manifest(text)
        needed = {name: entry for name, entry in manifest.files.items() if entry.needed}
        total = sum(entry.bytes for entry in needed.values())
        if total > largest:
            raise AgentError(
                f"the bundle has {total / 1e6:,.0f} MB, {largest / 1e6:,.0f} are allowed",
                remedy="raise --model-max-mb",
            )
        if shutil.disk_usage(into).free < total + SPARE:
            raise Unreachable(
                f"no room for a bundle of {total / 1e6:,.0f} MB",
                where=into.parent,
                remedy="make room on the disk",
            )
        for name, entry in needed.items():
            _copy(source, name, into / name, entry.bytes, entry.sha256)
        _write(into / MANIFEST, text)
    except OSError as error:
        raise Unreachable(
            f"the bundle can't be stored ({error.strerror or error})",
            where=into,
            remedy="is there room on the disk?",
        ) from None
    return manifest


def _manifest(text: bytes) -> Manifest:
    if (other := other_format(text)) is not None:
        raise AgentError(other[0], remedy=other[1])
    try:
        manifest = parse_manifest(text)
    except ValidationError as error:
        raise AgentError(
            f"the bundle's manifest is damaged ({one_line(first_mistake(error))})",
            remedy="export the bundle again",
        ) from None
    except ValueError as error:
        what = f"the bundle's manifest is damaged ({one_line(error)})"
        raise AgentError(what, remedy="don't trust this bundle") from None
    for name in manifest.files:
        if not is_sound_name(name) or PurePosixPath(name).name == MANIFEST:
            what = (
                "the manifest names a file outside the bundle, or in a way that is not taken: "
                f"'{one_line(name)}'"
            )
            raise AgentError(what, remedy="don't trust this bundle")
    return manifest


def _chunks(source: _Source, name: str, most: int, too_many: AgentError) -> Iterator[bytes]:
    """The bytes of a file, as they come. Raises `too_many` at more than `most`, Unreachable when
    they end too early or come too slowly.
    """
    left = most
    with _open(source, name) as opened:
        while True:
            try:
                chunk = opened.read1(min(CHUNK, left + 1))
            except FAILURES as error:
                source.pace.check()
                raise _failed(error, source.place, name) from None
            source.pace.came(len(chunk))
            if not chunk:
                break
            left -= len(chunk)
            if left < 0:
                raise too_many
            yield chunk
        # What the server promised and did not send: Python gives a short answer and no error.
        if getattr(opened, "length", None):
            raise Unreachable(
                f"{one_line(name)} ends early",
                where=_shown(source.place),
                remedy="it is tried again",
            )
    source.pace.watch(None)


def _copy(source: _Source, name: str, file: Path, size: int, sha256: str) -> None:
    make_folder(file.parent)
    digest, came = hashlib.sha256(), 0
    wrong = AgentError(
        f"{one_line(name)} differs from its checksum",
        where=_shown(source.place),
        remedy="export or copy the bundle again",
    )
    with file.open("xb") as written:
        for chunk in _chunks(source, name, size, too_many=wrong):
            came += len(chunk)
            digest.update(chunk)
            written.write(chunk)
        sync_open_file(written)
    if came < size:
        raise Unreachable(
            f"{one_line(name)} ends {size - came:,} bytes early",
            where=_shown(source.place),
            remedy="it is tried again",
        )
    if digest.hexdigest() != sha256:
        raise wrong


def _open(source: _Source, name: str) -> Any:
    """The file, opened for `read1`."""
    place = source.place
    if isinstance(place, Path):
        file = place / name
        try:
            if not real_path(file).is_relative_to(place) or not stat.S_ISREG(file.stat().st_mode):
                raise AgentError(
                    "this is no plain file of the bundle",
                    where=one_line(file),
                    remedy="don't trust this bundle",
                )
            return file.open("rb")
        except OSError as error:
            raise _failed(error, place, name) from None
    opener = urllib.request.build_opener(
        _Https(source.pace, source.context), _Http(source.pace), _NoRedirect
    )
    address = urlunsplit(
        place._replace(path=place.path.rstrip("/") + "/" + quote(name), fragment="")
    )
    try:
        return opener.open(address, timeout=TIMEOUT_S)
    except FAILURES as error:
        source.pace.check()
        raise _failed(error, place, name) from None


class _Http(urllib.request.HTTPHandler):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._kind = watched(http.client.HTTPConnection, pace)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, pace: Pace, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._kind, self._trusted = watched(http.client.HTTPSConnection, pace), context

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req, context=self._trusted)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The address was allowed; where a server sends us to was not."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _failed(error: Exception, place: Path | SplitResult, name: str) -> AgentError:
    if isinstance(error, urllib.error.HTTPError) and 300 <= error.code < 400:
        return AgentError(
            "the server redirects, which is not followed",
            where=_shown(place),
            remedy="announce the address itself",
        )
    inner = (
        error.reason
        if isinstance(error, urllib.error.URLError)
        and not isinstance(error, urllib.error.HTTPError)
        else error
    )
    why = getattr(inner, "verify_message", None) or getattr(inner, "strerror", None) or inner
    return Unreachable(
        f"{one_line(name)} can't be fetched ({one_line(why)})",
        where=_shown(place),
        remedy="is it there?",
    )


def _shown(place: Path | SplitResult) -> str:
    """Without the query, which may hold a token."""
    return one_line(
        place if isinstance(place, Path) else urlunsplit(place._replace(query="", fragment=""))
    )


def _write(file: Path, text: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(text)
        sync_open_file(opened)
