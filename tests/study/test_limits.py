"""A grid is counted before it is made: millions of trials are refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.errors import PrunedgeError
from prunedge.study.grid import Grid, trials
from tests.refusals import refusal

MANY = {
    "criterion": ["taylor", "random"] * 15,
    "seed": list(range(100)),
    "epochs": list(range(1, 101)),
    "lr": [0.01] * 66,
}


@pytest.mark.parametrize(
    ("values", "count"), [(MANY, "19,800,000"), ({"seed": list(range(200_000))}, "200,000")]
)
def test_too_many_trials(values: dict[str, list[object]], count: str) -> None:
    with pytest.raises(PrunedgeError, match=f"{count} trials, more than 10,000.*seed"):
        trials(Grid({"data": "cracks", "model": "resnet18", **values}))


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f'data = "cracks"\nmodel = "resnet18"\nseed = {list(range(20_000))}\n')
    line = refusal("study", file, "--out", tmp_path / "out")
    assert "20,000 trials" in line
    assert str(file) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, -3])
def test_no_workers(tmp_path: Path, workers: int) -> None:
    assert "--workers" in refusal("study", "status", tmp_path, "--workers", workers)
