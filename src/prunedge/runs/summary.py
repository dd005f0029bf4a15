"""What `prunedge show --json` prints of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunedge.pruning.from_config import watched_metric
from prunedge.pruning.steps import Step
from prunedge.runs.compared import TIMES, compared
from prunedge.runs.decision_rates import decision_to_json, decisions_in
from prunedge.runs.profile import profile_of
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.runs.run import Run

_SETTINGS = ("model", "criterion", "metric", "classes", "size", "seed", "data", "weights")
_COMPUTING = ("threads", "processes", "precision", "processor", "accelerator")
_TESTED = ("baseline", "start", "best", "twins")


def summary_of(run: Run) -> dict[str, Any]:
    """Settings, figures, steps and measurements as plain JSON values."""
    config = run.config.flat()
    best = run.best()
    references = []
    for reference in run.references():
        record = {
            "name": reference.name,
            "step": reference.step.to_json(),
            "tested_as": reference.tested,
        }
        references.append(record)
    return {
        **{key: config[key] for key in _SETTINGS},
        **_own_trainer(run),
        "baseline": _figures(run.first()),
        "references": references,
        "best": {**_figures(best), "step": best.number, "channels": best.channels},
        "test": _test(run),
        "decisions": _decisions(run),
        "baselines": [each.to_json() for each in compared(run)],
        "times": run.read(TIMES),
        "test_looks_before": run.looks_before(),
        "resumptions": run.resumptions(),
        "computing": _computing(run),
        "steps": [step.to_json() for step in run.steps()],
        "stop": run.stopped(),
        "learning_rate": run.read("lr.json"),
        "patience": run.read("patience.json"),
        "learning": run.read("learning.json"),
        "images": run.read("data.json"),
        "weights_loaded": run.read("weights.json"),
        "bench": run.read("bench.json"),
        "profile": profile_of(run.path),
        **run.environment(),
    }


def _own_trainer(run: Run) -> dict[str, Any]:
    """Who trained it and by which figure, where that was a training of the user's own."""
    own = run.config.trainer
    if own.name is None:
        return {}
    metric = watched_metric(run.config)
    return {
        "trainer": own.name,
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
    }


def _figures(step: Step) -> dict[str, Any]:
    metrics = {name: value for name, value in step.metrics.items() if name != "loss"}
    return {**metrics, "macs": step.macs, "params": step.params, "size_mb": step.size_mb}


def _test(run: Run) -> dict[str, Any] | None:
    test = run.test()
    if not test:
        return None
    return {name: test[name] for name in _TESTED if test.get(name) is not None}


def _decisions(run: Run) -> dict[str, Any]:
    """What each model finds and misses, by its name; {} where nobody knows what is damage."""
    classes = run.config.data.classes
    decisions = decisions_in(run.test())
    return {name: decision_to_json(record, classes) for name, record in decisions.items()}


def _computing(run: Run) -> dict[str, Any]:
    engine = run.engine() or {}
    computing = {name: engine.get(name) for name in _COMPUTING}
    return {**computing, "said": computed_with(run)}


def computed_with(run: Run) -> str:
    """What the weights depend on beside the config, in a sentence; empty before the run has
    begun.
    """
    began = run.engine()
    if began is None:
        return ""
    counts = []
    for plural, singular in (("threads", "thread"), ("processes", "process")):
        count = counted(began[plural], singular, plural)
        for entry in run.resumptions():
            if plural in entry["changes"]:
                now = counted(entry["changes"][plural][1], singular, plural)
                count += f" ({now} after {run.name_of_step(entry['after_step'])})"
        counts.append(count)
    place = began["accelerator"] or began["processor"]
    if run.config.has_own_trainer:
        return (
            f"computed with {', '.join(counts)}, on {place}: another number of threads, or "
            "another processor, gives other weights"
        )
    return (
        f"computed with {', '.join(counts)}, precision {began['precision']}, on {place}: "
        "another number of threads or processes, precision or processor gives other weights"
    )
