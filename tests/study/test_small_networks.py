"""A study with small networks beside the pruned models: a real one, its tables and its page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from prunedge.report.study.page import write_study_report
from prunedge.runs.run import open_run
from prunedge.study import Grid, collect, open_study, trials
from prunedge.study.small_networks import beside_small
from tests.commands import prunedge
from tests.runs.test_small_networks import NARROW, OTHER
from tests.study.conftest import VALUES

pytestmark = pytest.mark.slow

TITLE = "tests.runs.test_small_networks:narrow from random weights"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[Path, str]:
    """A study of two seeds through the real command, and what it printed."""
    folder = tmp_path_factory.mktemp("small")
    values = {"data": str(tiny_data), **VALUES, "max_steps": 1, "seed": [0, 3], "small": [NARROW]}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
    (folder / "study.toml").write_text("".join(lines))
    words = ("study", folder / "study.toml", "--out", folder / "out")
    done = prunedge(*words, "--workers", 1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_each_trial_s_row_has_the_networks_that_were_taught_beside(
    finished: tuple[Path, str],
) -> None:
    study = open_study(finished[0])
    rows = collect(study)
    ends = [row for row in rows if row["is_best"]]
    assert [row["seed"] for row in ends] == [0, 3]
    for row in ends:
        run = open_run(study.folder(next(t for t in study.trials if t.name == row["trial"])))
        record = run.read("baselines.json")[NARROW]
        (network,) = row["small_networks"]
        assert (network["name"], network["title"]) == (NARROW, TITLE)
        assert network["params"] == record["params"]
        test = run.test()
        assert test is not None
        assert network["test"] == test["baselines"][NARROW]["accuracy"]
        ms = run.read("times.json")["ms"]
        assert network["ms"] == ms[NARROW]["median"]
        assert row["side_ms_best"] == ms["best"]["median"]
        assert row["side_ms_baseline"] == ms["baseline"]["median"]

    with (finished[0] / "study.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            assert json.loads(line["small_networks"])[0]["name"] == NARROW


def test_console_json_and_page_have_them(finished: tuple[Path, str]) -> None:
    out, said = finished
    assert "small networks, taught as long, beside the pruned models" in said
    assert TITLE in said
    page = write_study_report(open_study(out)).read_text(encoding="utf-8")
    assert '<section id="small"><h2>Small networks</h2>' in page
    assert TITLE in page
    better = f"{TITLE}, taught as long, is at least as good and as fast as the pruned model: "
    assert (f"mind: {better}" in said) == (f"Mind: {better}" in page)

    again = prunedge("study", out / "study.toml", "--out", out, "--json")
    (line,) = json.loads(again.stdout)["small"]
    assert (line["network"], line["n"]) == (TITLE, 2)
    assert line["small"]["ms"]["mean"] > 0


def test_a_grid_of_lists_of_networks_is_an_axis(values: dict[str, Any]) -> None:
    assert Grid({**values, "small": [NARROW, OTHER]}).axes == ()
    several = Grid({**values, "small": [[], [NARROW, OTHER]]})
    assert several.axes == ("small",)
    assert [trial.config.prune.small for trial in trials(several)] == [[], [NARROW, OTHER]]


@pytest.mark.parametrize(
    ("tests", "ms", "wins", "is_better"),
    [
        ((0.90, 0.90), (1.0, 1.0), 2, True),
        ((0.95, 0.86), (1.0, 1.0), 1, True),
        ((0.95, 0.80), (1.0, 1.0), 1, False),
        ((0.95, 0.95), (1.0, 3.5), 1, False),
        ((0.95, 0.95), (3.0, 3.0), 0, False),
    ],
)
def test_a_network_is_better_where_it_is_so_in_the_mean(
    tests: tuple[float, float], ms: tuple[float, float], wins: int, is_better: bool
) -> None:
    made = []
    for test, took in zip(tests, ms, strict=True):
        network = {"title": "n", "test": test, "ms": took, "macs": 5, "size_mb": 0.1}
        figures = {
            "metric": "accuracy",
            "task": "classification",
            "macs": 100,
            "size_mb": 8.0,
            "test_baseline": 0.95,
            "test_best": 0.90,
            "side_ms_baseline": 4.0,
            "side_ms_best": 2.0,
            "small_networks": [network],
        }
        made.append([{**figures, "is_best": False}, {**figures, "macs": 40, "is_best": True}])
    (line,) = beside_small({"all": made})
    assert (line.n, line.wins, line.is_better) == (2, wins, is_better)
    assert line.unpruned.macs.mean == 100
    assert line.pruned.macs.mean == 40
    assert line.pruned.ms.mean == 2.0
    assert line.speedups == tuple(2.0 / took for took in ms)
