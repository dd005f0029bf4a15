"""Files that are none, for tests that must not wait for them, and a command line that must end with one clear line."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prunedge.cli.app import main

PATIENCE_S = 60  # for a machine under load: all of it takes a few seconds

Refused = Callable[..., str]


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that waits for a pipe fails instead of waiting for ever."""

    def late(number: int, frame: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(file: Path) -> Path:
    """A named pipe that nobody writes into, in the place of whatever lies there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    return file


def is_pipe(file: Path) -> bool:
    return stat.S_ISFIFO(os.lstat(file).st_mode)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line in this process, which must end with one line and exit code 2; gives the line."""

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        _, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err, err
        return lines[0]

    return run
