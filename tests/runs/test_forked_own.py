"""kill -9 in the middle of a run of the user's own training: the same call ends in the same bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import prunedge as pe
from prunedge.runs.run import open_run
from tests.own_trainings import Training
from tests.system.test_forked_kills import contents, killed, left_over, pytestmark  # noqa: F401


def prune(out: Path) -> None:
    training = Training()
    for _ in pe.prune(training.model, training.example, out=out, **training.arguments()):
        pass


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_pruning_by_functions(kills: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    prune(whole)
    chance = random.Random(4)
    count = 0
    number = 0
    while count < kills:
        out = tmp_path / str(number)
        number += 1
        while killed(chance.randint(1, 6), chance, lambda out=out: prune(out)):
            count += 1
        prune(out)
        assert contents(out) == contents(whole)
        for step, same in zip(open_run(out).steps(), open_run(whole).steps(), strict=True):
            assert (step.metrics, step.kept) == (same.metrics, same.kept)
        assert open_run(out).has_ended()
        assert left_over(tmp_path) == []
