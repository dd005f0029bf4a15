"""The local engine: what the process of a trial is given."""

from __future__ import annotations

import io
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from prunedge.study.engines import local


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_the_threads_of_a_trial_wait_asleep_unless_the_user_says_otherwise(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spinning, they would keep the cores from each other on a busy machine."""
    given: dict[str, Any] = {}

    def popen(command: list[str], **options: Any) -> SimpleNamespace:
        given.update(options["env"])
        return SimpleNamespace(stderr=io.StringIO(""))

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    study = SimpleNamespace(address="studies/a")
    local._begin(study, SimpleNamespace(name="trial"), threads=2, tries=0)  # type: ignore[arg-type]
    assert given["OMP_WAIT_POLICY"] == (chosen or "PASSIVE")
    assert given["OMP_NUM_THREADS"] == "2"
