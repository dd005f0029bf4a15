"""What systemd is told of a service of Type=notify: one datagram each, nothing to install. Without
systemd nothing happens.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(line: str) -> None:
    """Tell systemd `READY=1`, `WATCHDOG=1`, `STOPPING=1` or `STATUS=...`, if it started this
    process.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A leading @ stands for an abstract socket, whose name begins with a null byte.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(line.encode())
