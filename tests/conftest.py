"""What every test shares: one thread, a cache of its own, tiny images, and a line about what could not be tried."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch or numpy start their threads: tests run side by side on few cores.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest
from hypothesis import settings

from tests.needs import closing_line

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("prunedge", deadline=None)
settings.load_profile("prunedge")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["PRUNEDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A session of ONNX Runtime lets the thread that opens it take denormal numbers for zeros, and
    hypothesis draws some.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of 40 images of 32 px each."""
    from tests.tiny_images import write_tiny

    return write_tiny(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_criteria() -> Iterator[None]:
    """Criteria that a test registers are gone after it."""
    from prunedge.importance import CRITERIA

    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What forks the process of the tests comes first: a fork of one in which threads have run may wait for them for ever."""
    items.sort(key=lambda item: not item.path.name.startswith("test_forked_"))


def _reasons(reporter: pytest.TerminalReporter) -> list[str]:
    """Why each skipped test was skipped."""
    # (file, line, "Skipped: reason")
    told = (report.longrepr for report in reporter.stats.get("skipped", []))
    return [one[2].removeprefix("Skipped: ") for one in told if isinstance(one, tuple)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: everything that the tests need is there, or should be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("PRUNEDGE_CI")
        and reporter is not None
        and _reasons(reporter)
        and session.exitstatus == 0
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What could not be tried, in one line, with the command that brings it."""
    if reasons := _reasons(terminalreporter):
        terminalreporter.write_line(closing_line(reasons), yellow=True)
