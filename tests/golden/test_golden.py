"""Weights and figures of every verb are those that were recorded, whatever was moved or renamed since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.record import GOLDEN, record


@pytest.mark.slow
def test_every_verb_gives_the_recorded_weights_and_figures(tmp_path: Path) -> None:
    wanted = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = json.loads(json.dumps(record(tmp_path)))
    # Part by part, so that a difference names its verb.
    for verb, figures in wanted.items():
        assert json.dumps(found[verb], sort_keys=True) == json.dumps(figures, sort_keys=True), verb
