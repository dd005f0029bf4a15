"""A page becomes a PDF, by the browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from prunedge.errors import ExtraMissing, MachineError
from prunedge.utils.files import written

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge",
)
LONGEST_S = 300.0


def require_browser(instead: str) -> str:
    """Where Chromium, or a browser made from it, is. ExtraMissing where there is none; `instead`
    says what the user can do without.
    """
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ExtraMissing(
        "a PDF needs Chromium (or Chrome), which is not installed",
        remedy=f"apt-get install chromium, or {instead}",
    )


def print_to_pdf(page: Path, pdf: Path, browser: str) -> None:
    """Print a page of ours as PDF, the file whole or not at all. Nothing is fetched.

    MachineError where the browser can't.
    """
    with written(pdf) as hidden, tempfile.TemporaryDirectory(prefix="prunedge-") as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--no-pdf-header-footer",
            "--disable-pdf-tagging",
            f"--print-to-pdf={hidden.absolute()}",
            page.absolute().as_uri(),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium has none for root, and refuses to start
        why = _failure(command)
        if why is None and not hidden.is_file():
            why = "it wrote nothing"
        if why is not None:
            raise MachineError(
                f"{Path(browser).name} could not print the page ({why})",
                where=page,
                remedy="open it in a browser and print it there",
            )


def _failure(command: list[str]) -> str | None:
    """Why a browser failed; None where it ended well."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return f"not done after {LONGEST_S:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        return f"exit code {ended.returncode}: {lines[-1][:200] if lines else 'no word'}"
    return None
