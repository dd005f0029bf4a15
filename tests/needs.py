"""Programs of the system that some tests need, and that Python's packages don't bring.

A test asks for it here. Where it is missing the test is skipped, and the last line of the whole run says what would bring it
(`tests/conftest.py`). In CI nothing may be missing: there a skipped test is a failure.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

# The Debian package that brings each program.
PACKAGES = {
    "chromium": "chromium",
    "mosquitto": "mosquitto",
    "mosquitto_passwd": "mosquitto",
    "openssl": "openssl",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "systemd-analyze": "systemd",
}

_PROGRAM = re.compile(r"needs the program (\S+)")


def program(name: str) -> str:
    """Where a program of `PACKAGES` is; the test, or the whole module, is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        assert name in PACKAGES, f"say in tests/needs.py which package brings {name}"
        pytest.skip(f"needs the program {name}", allow_module_level=True)
    return found


def closing_line(reasons: Iterable[str]) -> str:
    """One line about all tests that were skipped for these reasons: how many, and what would bring them back."""
    missing = Counter(reasons)
    programs = {match[1] for reason in missing if (match := _PROGRAM.search(reason))}
    others = sorted(reason for reason in missing if not _PROGRAM.search(reason))
    parts = []
    if programs:
        packages = sorted({PACKAGES[name] for name in programs})
        parts.append(f"`apt-get install {' '.join(packages)}` brings {', '.join(sorted(programs))}")
    parts += others
    return f"not tried: {missing.total()} tests ({'; '.join(parts)})"
