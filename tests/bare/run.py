"""The device's tests as a bare machine runs them: no program beside Python's that tests need, and no training stack.

    python -m tests.bare.run [pytest's options]

So a test that calls such a program without asking for it (`tests.needs`), or imports torch, fails here and not at a user's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.needs import PACKAGES

HERE = Path(__file__).parent


def main() -> int:
    """Hide the programs, take the modules away, run the tests; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for directory in reversed(os.environ["PATH"].split(os.pathsep)):
            _link(Path(directory), Path(folder))
        environment = {name: value for name, value in os.environ.items() if name != "PRUNEDGE_CI"}
        environment |= {"PATH": folder, "PYTHONPATH": str(HERE)}
        command = [sys.executable, "-m", "pytest", "-q", str(HERE.parent / "edge"), *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode


def _link(directory: Path, folder: Path) -> None:
    """Links to a directory's programs but those that tests need; earlier directories of PATH are linked last, and win."""
    for program in directory.iterdir() if directory.is_dir() else ():
        if program.name not in PACKAGES:
            link = folder / program.name
            link.unlink(missing_ok=True)
            link.symlink_to(program)


if __name__ == "__main__":
    sys.exit(main())
