"""Where the broker is, and how to reach it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prunedge.edge.logs import one_line
from prunedge.errors import AgentError

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """An MQTT 5 broker and what it wants to know of us. `ca`, `cert`, `key`: PEM files; without
    `ca` the system's authorities count.
    """

    host: str
    port: int
    is_tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{self.host}:{self.port}"

    def tells_password(self) -> bool:
        """Whether a password would leave this machine without encryption."""
        return self.password is not None and not self.is_tls and not is_here(self.host)

    def context(self) -> ssl.SSLContext | None:
        """How to encrypt; None when it is not wanted. AgentError when a file of keys or
        certificates can't be used.
        """
        if not self.is_tls:
            return None
        context = trusted(self.ca)
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as error:
                raise AgentError(
                    f"the certificate or its key can't be used ({error})",
                    where=self.cert,
                    remedy="name PEM files",
                ) from None
        return context


def parse_broker(
    url: str,
    *,
    password: str | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> Broker:
    """A broker from `mqtt://[USER@]HOST[:PORT]` or `mqtts://...`; AgentError when something of it
    is wrong.

    A password in the URL is refused: every user of the machine can read a command line.
    """
    mended = "write mqtts://USER@HOST:8883"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AgentError(
            f"the broker's address is wrong ({error})",
            where=one_line(_without_password(url)),
            remedy=mended,
        ) from None
    if parts.password is not None:
        raise AgentError(
            "a password in the broker's address can be read by others", remedy="use --password-file"
        )
    if (
        parts.scheme not in PORTS
        or not host
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise AgentError("the broker's address is wrong", where=one_line(url), remedy=mended)
    if port == 0:
        raise AgentError("no broker listens on port 0", where=one_line(url), remedy=mended)
    is_tls = parts.scheme == "mqtts"
    if not is_tls and (ca or cert or key):
        raise AgentError(
            "certificates without encryption",
            where=one_line(url),
            remedy="write mqtts://, or leave --ca, --cert and --key out",
        )
    if key and not cert:
        raise AgentError("a key without its certificate", where=key, remedy="name --cert as well")
    if password is not None and parts.username is None:
        raise AgentError(
            "a password without a user", where=one_line(url), remedy="write mqtts://USER@HOST"
        )
    user = unquote(parts.username) if parts.username is not None else None
    return Broker(host, port or PORTS[parts.scheme], is_tls, user, password, ca, cert, key)


def is_here(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no wire leads to."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def trusted(ca: Path | None, also: Path | None = None) -> ssl.SSLContext:
    """A client's TLS settings that trust the authorities in a file, or the system's and those
    `also` in a file.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if also is not None:
            context.load_verify_locations(also)
        return context
    except (OSError, ssl.SSLError) as error:
        raise AgentError(
            f"no certificates can be read ({error})",
            where=ca or also,
            remedy="name a PEM file of authorities by --ca",
        ) from None


def _without_password(url: str) -> str:
    return url.rpartition("@")[2]
