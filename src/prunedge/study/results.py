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
from prunedge.pruning.steps import Step
from prunedge.runs.compared import compared, times
from prunedge.runs.run import Run, open_run
from prunedge.study.grid import FOUND_OUT, Trial, data_name
from prunedge.study.store import StudyStore
from prunedge.tasks import task_named
from prunedge.utils.files import write_text, written
from prunedge.utils.machine import pass_on

Row = dict[str, Any]

# Columns of a trial whose names a step has for figures of its own.
_OF_TRIALS = ("epochs", "start")


def collect(study: StudyStore) -> list[Row]:
    """One row for each step of each trial that has any, in the grid's order; trials that are not
    done have `is_done` false.

    Each row has the trial's config, the step's figures (as in the run's history), and those of the
    trial's end: the step that was handed over (`best`), why it stopped, the test split's metrics of
    the unpruned and the best model and of the baselines (None before the end), and of a bench if
    there was one. `small_networks` lists the networks of `small` with their figures; `side_ms_...`
    are the milliseconds of the unpruned and the best model that were timed beside them.
    """
    return [row for trial in study.trials for row in _rows(study, trial)]


def write_table(study: StudyStore, rows: list[Row]) -> tuple[Path, ...]:
    """Write study.csv, and study.parquet where pyarrow is installed; gives what was written."""
    write_text(study.path / "study.csv", to_csv(rows))
    return (study.path / "study.csv", _parquet(study.path / "study.parquet", _flat(rows)))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as CSV; what a cell can't hold (the channels of each layer) is JSON in it."""
    flat = _flat(rows)
    names: dict[str, None] = {}
    for row in flat:
        names.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows with lists and objects as JSON."""
    flat = []
    for row in rows:
        cells = {}
        for key, value in row.items():
            cells[key] = json.dumps(value) if isinstance(value, dict | list) else value
        flat.append(cells)
    return flat


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
        parquet.write_table(pyarrow.Table.from_pylist(_typed(rows)), temporary)
    return file


def _typed(rows: Sequence[Row]) -> list[Row]:
    """The rows, with text in a column that holds both numbers and texts (a drop may be `5%`): it
    has one type.
    """
    texts = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    typed = []
    for row in rows:
        cells = {}
        for key, value in row.items():
            cells[key] = str(value) if key in texts and value is not None else value
        typed.append(cells)
    return typed


def _rows(study: StudyStore, trial: Trial) -> list[Row]:
    """A row for each step of a trial; none before it has begun."""
    folder = study.folder(trial)
    if not (folder / "history.jsonl").exists():
        return []
    run = open_run(folder)
    end = _end(run)
    settings = {key: value for key, value in trial.values.items() if key not in FOUND_OUT}
    about = {
        "trial": trial.name,
        "start": trial.start.name,
        "data_name": data_name(trial.config.data.path),
        "task": trial.config.task.name,
        **settings,
        "metric": run.config.task.metric,  # chosen by the images, unless asked for
    }
    rows = []
    for step in run.steps():
        rows.append({**about, **_figures(step), **end, "is_best": step.index == end["best"]})
    return rows


def _small_networks(run: Run) -> Row:
    """The small networks of a finished trial, and how long an image takes of the unpruned and the
    pruned model that were timed beside them.
    """
    found = []
    for each in compared(run):
        if each.network is None or each.test is None or each.ms is None:
            continue
        found.append(
            {
                "name": each.name,
                "title": each.network.title,
                "epochs": each.epochs,
                "macs": each.macs,
                "params": each.params,
                "size_mb": each.size_mb,
                "ms": each.ms.median,
                "test": each.test,
            }
        )
    row: Row = {"small_networks": found}
    ms = times(run) if found else {}
    for name in ("baseline", "best"):
        row[f"side_ms_{name}"] = ms[name].median if name in ms else None
    return row


def _figures(step: Step) -> Row:
    """A step as the history has it, each metric in a column of its own: `val_accuracy` after
    fine-tuning, `val_accuracy_before` before it. What is called as something of its trial is
    `step_epochs` and `step_start`.
    """
    row: Row = {}
    for key, value in step.to_json().items():
        if key == "metrics":
            row.update({f"val_{name}": figure for name, figure in value.items()})
        elif key == "metrics_before":
            row.update({f"val_{name}_before": figure for name, figure in value.items()})
        elif key in _OF_TRIALS:
            row[f"step_{key}"] = value
        else:
            row[key] = value
    return row


def _end(run: Run) -> Row:
    """What each row of a trial says of its end: None before it."""
    test = run.test() or {}
    bench = run.read("bench.json") or {}
    task = run.config.task
    baselines = test.get("baselines") or {}

    row: Row = {"is_done": bool(test), "best": run.best().index, "stop": run.stopped()}
    for name in ("baseline", "best"):
        metrics = test.get(name, {})
        row[f"test_{name}"] = metrics.get(task.metric)
        for metric in dict.fromkeys((*task_named(task.name).metrics, task.metric)):
            row[f"test_{metric}_{name}"] = metrics.get(metric)
    row["test_images"] = test["best"]["n"] if test else None
    for name in ("scratch", "random"):
        row[f"test_baseline_{name}"] = baselines.get(name, {}).get(task.metric)
    row |= _small_networks(run)

    medians = [bundle["latency_ms"]["median"] for bundle in bench.get("bundles", [])]
    is_timed = len(medians) > 1
    row["latency_ms_baseline"] = medians[0] if is_timed else None
    row["latency_ms_best"] = medians[1] if is_timed else None
    return row
