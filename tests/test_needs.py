"""What is missing on a machine is said in one line, with the command that brings it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.needs import closing_line

ROOT = Path(__file__).parents[1]


def test_the_closing_line_names_each_package_once() -> None:
    reasons = [
        "needs the program mosquitto",
        "needs the program mosquitto_passwd",
        "needs the program sshd",
        "no /proc here",
    ]
    assert closing_line(reasons) == (
        "not tried: 4 tests (`apt-get install mosquitto openssh-server` brings mosquitto, mosquitto_passwd, sshd; no /proc here)"
    )


def test_the_device_s_tests_import_no_training_stack() -> None:
    """Collecting imports every module of theirs, and what those import."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/edge",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": "tests/bare", "PATH": ""},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "test_a_raspberry_pi" in done.stdout
