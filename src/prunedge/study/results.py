"""All steps of all trials as one table: study.parquet and study.csv, which pandas, polars and
DuckDB read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunedge.errors import PrunedgeError
from prunedge.runs.run import Run, open_run
from prunedge.study.grid import OURS, Trial, data_name
from prunedge.study.store import StudyStore
from prunedge.utils.files import write_text, written
from prunedge.utils.machine import pass_on

Row = dict[str, Any]


def collect(study: StudyStore) -> list[Row]:
    """One row for each step of each trial that has any, in the grid's order; trials that are not
    done have `is_done` false.

    Each row has the trial's config, the step's figures (as in the run's history), and those of the
    trial's end: the step that was handed over (`best`), why it stopped, the test split's metrics of
    the unpruned and the best model and of the baselines (None before the end), and of a bench if
    there was one.
    """
    return [row for trial in study.trials for row in _rows(study, trial)]


def write_table(study: StudyStore, rows: list[Row]) -> tuple[Path, ...]:
    """Write study.csv, and study.parquet where pyarrow is installed; gives what was written."""
    write_text(study.path / "study.csv", to_csv(rows))
    return (study.path / "study.csv", _parquet(study.path / "study.parquet", _flat(rows)))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as CSV; what a cell can't hold (the channels of each layer) is JSON in it."""
    flat = _flat(rows)
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        {
            key: json.dumps(value) if isinstance(value, dict | list) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def _parquet(file: Path, rows: list[Row]) -> Path:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        pass_on(error)
        raise PrunedgeError(
            "study.parquet needs pyarrow", remedy="pip install 'prunedge[study]'"
        ) from None
    with written(file) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
    return file


def _rows(study: StudyStore, trial: Trial) -> list[Row]:
    folder = study.folder(trial)
    if not (folder / "history.jsonl").exists():
        return []
    run = open_run(folder)
    end = _end(run)
    settings = {key: value for key, value in trial.values.items() if key not in OURS}
    about = {
        "trial": trial.name,
        "start": trial.start.name,
        "data_name": data_name(trial.config.data.path),
        **settings,
    }
    # The config's step is a share, the history's are numbered by `index`.
    return [
        {**about, **step.to_json(), **end, "is_best": step.index == end["best"]}
        for step in run.steps()
    ]


def _end(run: Run) -> Row:
    test, stop, bench, metric = (
        run.test() or {},
        run.stopped(),
        run.read("bench.json") or {},
        run.config.task.metric,
    )
    baselines = test.get("baselines") or {}
    found: Row = {"is_done": bool(test), "best": run.best().index, "stop": stop}
    for name in ("baseline", "best"):
        found[f"test_{name}"] = test[name][metric] if test else None
        found[f"test_accuracy_{name}"] = test[name]["accuracy"] if test else None
    found["test_images"] = test["best"]["n"] if test else None
    for name in ("scratch", "random"):
        found[f"test_baseline_{name}"] = baselines.get(name, {}).get(metric)
    times = [one["latency_ms"]["median"] for one in bench.get("bundles", [])]
    found["latency_ms_baseline"], found["latency_ms_best"] = (
        (times[0], times[1]) if len(times) > 1 else (None, None)
    )
    return found
