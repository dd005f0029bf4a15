"""One page that a manager understands from its first screen, and that an engineer can check."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from prunedge.config import RunConfig
from prunedge.data.decode import source_of
from prunedge.edge.bench.ratios import speed_of
from prunedge.edge.image.read import Greys, parse_range, read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError
from prunedge.importance.audit import kept_audit
from prunedge.models import Loaded
from prunedge.pruning.steps import Step
from prunedge.report.html import drawn, render, save
from prunedge.report.run import figures
from prunedge.runs.chain import Reference
from prunedge.runs.profile import OTHER, bench_profile_of, profile_of
from prunedge.runs.run import Run
from prunedge.runs.training import taught
from prunedge.train import Rate
from prunedge.train.collapse import one_class_warning
from prunedge.utils import advice
from prunedge.utils.sanitize import by_kind

MOST_MISTAKES = 24
THUMBNAIL = 160
LEAST_S = 0.005  # of a part of a part: less would be printed as nothing


def write_report(run: Run) -> Path:
    """Write RUN/report.html from what the run folder holds; returns its path.

    The page needs no server and no model: figures, scripts and thumbnails are inside. What has
    not been measured yet is said to be missing, with the command that measures it. Raises RunError
    when the run has no model yet or the page can't be written.
    """
    steps, best, references = run.steps(), run.best(), run.references()
    first, start = references[0].step, references[-1].step
    # The first model of the chain leads the steps of a run that started from a pruned one.
    told = [first, *steps] if first is not start else steps
    config, test, bench = run.config, run.test(), run.read("bench.json")
    page = render(
        "page.html.j2",
        run=run,
        config=config,
        first=first,
        best=best,
        steps=steps,
        test=test,
        references=references,
        against=against(references, best, config.task.metric, test),
        named=_named(run),
        computed=run.computed_with(),
        resumptions=run.resumptions(),
        looks_before=run.looks_before(),
        trained_only=run.verb() == "train",
        bench=bench,
        metric=config.task.metric,
        stop=run.stopped(),
        cards=cards_of_training(first, config.task.metric)
        if run.verb() == "train"
        else cards(first, best, config.task.metric, test, bench),
        figures=_figures(
            told, best, config, kept_audit(run.path / "audit"), run.read("latency.json")
        ),
        time=_time(run, steps),
        layers=_layers(run),
        taken_back=taken_back(steps),
        left_whole=left_whole(steps),
        mistakes=thumbnails((test or {}).get("mistakes", []), config.data.range),
        baselines=_baselines(run, test),
        begun=_begun(run, steps[0], best),
        command=command(config, run.path, run.verb()),
        facts=_facts(config),
        machine=run.environment(),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    return save(page, run.path / "report.html")


def write_loop_report(
    out: Path, steps: Sequence[Step], best: Step, config: RunConfig, test: Mapping[str, Any] | None
) -> Path:
    """The same page of a loop that left no run folder: `config` says its model, classes, metric,
    max_drop and size.
    """
    first, metric = steps[0], config.task.metric
    time: dict[str, Any] = {
        "profile": None,
        "rows": [],
        "figure": drawn(figures.seconds(steps), "time") if len(steps) > 1 else None,
    }
    page = render(
        "page.html.j2",
        run=None,
        config=config,
        first=first,
        best=best,
        steps=steps,
        test=test,
        references=[],
        against=[],
        named=[("unpruned", first), *((str(step.index), step) for step in steps[1:])],
        computed="",
        resumptions=[],
        looks_before=0,
        trained_only=False,
        bench=None,
        metric=metric,
        stop=None,
        cards=cards(first, best, metric, test, None),
        figures=_figures(steps, best, config, None, None),
        time=time,
        layers=[],
        taken_back=taken_back(steps),
        left_whole=left_whole(steps),
        mistakes=thumbnails((test or {}).get("mistakes", [])),
        baselines=[],
        begun={"weights": None, "rate": None, "majority": None, "one_class": []},
        command="",
        facts=_facts(config),
        machine={},
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    return save(page, out)


def cards(
    first: Step,
    best: Step,
    metric: str,
    test: Mapping[str, Any] | None,
    bench: Mapping[str, Any] | None,
) -> list[dict[str, str]]:
    """The before/after figures of the first screen: name, before, after, change, and what was
    measured where.
    """
    found = []
    if test:
        before, after = test["baseline"][metric], test["best"][metric]
        found.append(
            card(
                metric,
                f"{before:.1%}",
                f"{after:.1%}",
                f"{100 * (after - before):+.1f} points",
                f"test split, {test['best']['n']} images, {_looked(test)}",
            )
        )
    else:
        change = f"{100 * (best.metric_after - first.metric_after):+.1f} points"
        found.append(
            card(
                metric,
                f"{first.metric_after:.1%}",
                f"{best.metric_after:.1%}",
                change,
                "validation split; the test split is measured at the run's end",
            )
        )
    found.append(
        card(
            "size",
            f"{first.size_mb:.1f} MB",
            f"{best.size_mb:.1f} MB",
            f"{first.size_mb / best.size_mb:.1f} × smaller",
            "float32 weights, 1 MB = 10⁶ bytes",
        )
    )
    found.append(
        card(
            "work",
            f"{first.macs / 1e6:,.0f}",
            f"{best.macs / 1e6:,.0f}",
            f"{first.macs / best.macs:.1f} × less",
            "million multiply-accumulates for one image",
        )
    )
    if bench and bench.get("ratios"):
        speed, place = speed_of(bench), bench["device"]
        threads = f"{bench['threads']} thread{'s' if bench['threads'] > 1 else ''}"
        note = (
            f"{place['processor']}, {bench['bundles'][1]['runtime']}, {threads}, batch "
            f"{bench['batch']}, {bench['patches']} patches; "
            f"medians; ratio over interleaved blocks {speed.bounds()}"
        )
        title = "time for an image" if bench["batch"] == 1 else f"time for {bench['batch']} images"
        found.append(
            card(
                title,
                f"{speed.before_ms:.2f} ms",
                f"{speed.after_ms:.2f} ms",
                speed.said("×"),
                note,
            )
        )
    return found


def cards_of_training(step: Step, metric: str) -> list[dict[str, str]]:
    """The same of a model that was trained, and not pruned yet."""
    return [
        card(
            metric,
            "",
            "",
            f"{step.metric_after:.1%}",
            "validation split; the test split is kept for the result of a pruning",
        ),
        card("size", "", "", f"{step.size_mb:.1f} MB", "float32 weights, 1 MB = 10⁶ bytes"),
        card(
            "work",
            "",
            "",
            f"{step.macs / 1e6:,.0f}",
            "million multiply-accumulates for one image",
        ),
    ]


def against(
    references: Sequence[Reference], best: Step, metric: str, test: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """What the result has over each model that it is compared with, in a line; nothing where
    there is only the unpruned one.
    """
    found = []
    for one in references if len(references) > 1 else []:
        said = (
            f"{one.step.macs / best.macs:.1f} × less work, "
            f"{one.step.size_mb / best.size_mb:.1f} × smaller, "
        )
        said += (
            f"{metric} {100 * (best.metric_after - one.step.metric_after):+.1f} points on "
            "validation data"
        )
        if test:
            said += f", {100 * (test['best'][metric] - test[one.tested][metric]):+.1f} on test data"
        found.append({"name": one.name, "said": said})
    return found


def taken_back(steps: Sequence[Step]) -> list[str]:
    """Why each step that was taken back was."""
    return [
        f"Step {step.index} was taken back: {step.reason}" for step in steps if not step.accepted
    ]


def left_whole(steps: Sequence[Step]) -> list[str]:
    """The groups that keep all their channels, and why: a line for each kind of reason."""
    return by_kind({one["name"]: one["reason"] for one in steps[-1].frozen})


def _named(run: Run) -> list[tuple[str, Step]]:
    """Every row of the table of steps with its name."""
    references = run.references()
    was_pruned = len(references) > 1
    before = [("first, unpruned", one.step) for one in references[:-1]]
    start, *later = run.steps()
    return [
        *before,
        ("start" if was_pruned else "unpruned", start),
        *((str(step.index), step) for step in later),
    ]


def _looked(test: Mapping[str, Any]) -> str:
    before = test.get("looks_before", 0)
    return f"looked at {before} time(s) before the run went on" if before else "measured once"


def card(name: str, before: str, after: str, change: str, note: str) -> dict[str, str]:
    """A card of the first screen."""
    return {"name": name, "before": before, "after": after, "change": change, "note": note}


def _figures(
    steps: Sequence[Step],
    best: Step,
    config: RunConfig,
    audit: Mapping[str, Any] | None,
    latency: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    metric, drop = config.task.metric, config.stop.max_drop
    made = [
        (
            "Where the channels went",
            (
                "Channels that each layer makes, in the model's order. Layers tied by a "
                "residual sum lose the same channels."
            ),
            figures.layers(steps[0], best),
        )
    ]
    if len(steps) > 1:
        made = [
            (
                f"{metric} against channels removed",
                (
                    "Validation split, one marker a step. Channels tied by a sum count once; "
                    "the share is of the unpruned model's."
                ),
                figures.metric_by_channels(steps, metric, drop),
            ),
            (
                f"{metric} against work",
                "The same steps against the multiply-accumulates that one image costs.",
                figures.metric_by_macs(steps, metric, drop),
            ),
            *made,
        ]
    else:
        made = []  # nothing went anywhere
    if latency is not None and all(step.latency_ms for step in steps):
        made.append(_against_latency(steps, metric, drop, latency))
        if latency["table"]["staircases"]:
            said = (
                "Layers timed with one channel more or less each time; where the time rises "
                "only at multiples, only multiples are kept."
            )
            made.append(
                (
                    "Which numbers of channels the device likes",
                    said,
                    figures.staircases(latency["table"]),
                )
            )
    if audit is not None:
        cost = (
            f"{audit['channels']} channels zeroed one at a time on {audit['images']} "
            "validation images"
        )
        made += [
            (
                "Which criterion is right",
                f"{audit['recommendation']} The oracle: {cost}; 95 % intervals.",
                figures.agreement(audit),
            ),
            (
                "Where each criterion is right",
                "The same rank correlation in each layer.",
                figures.agreement_by_layer(audit),
            ),
        ]
    return [
        {
            "title": title,
            "note": note,
            "html": drawn(figure, i),
        }
        for i, (title, note, figure) in enumerate(made)
    ]


def _against_latency(
    steps: Sequence[Step], metric: str, drop: float, latency: Mapping[str, Any]
) -> tuple[str, str, Any]:
    table = latency["table"]
    errors = [
        abs(step.predicted_ms / step.latency_ms - 1)
        for step in steps
        if step.predicted_ms and step.latency_ms
    ]
    note = (
        f"Measured on {table['device'].get('processor', latency['address'])}, {table['runtime']}, "
        f"{table['threads']} thread(s), batch 1. "
        f"The prediction that chose the channels was off by {100 * sum(errors) / len(errors):.0f} "
        "% on average, "
        f"{100 * max(errors):.0f} % at most."
    )
    return (
        f"{metric} against time on the device",
        note,
        figures.metric_by_latency(steps, metric, drop),
    )


def _time(run: Run, steps: Sequence[Step]) -> dict[str, Any]:
    """Where the time went: what each part took when the run was profiled, else what its history
    tells of each step.
    """
    profile = profile_of(run.path)
    if profile is None:
        figure = drawn(figures.seconds(steps), "time") if len(steps) > 1 else None
        return {"profile": None, "rows": [], "figure": figure}
    rest = {
        "part": OTHER,
        "seconds": profile["unaccounted_s"],
        "share": profile["unaccounted_share"],
        "within": [],
    }
    rows = [
        {
            **one,
            "within": [place for place in one["within"] if place["seconds"] >= LEAST_S],
            "places": one["within"],
        }
        for one in [*profile["parts"], rest]
    ]
    return {
        "profile": profile,
        "rows": rows,
        "figure": drawn(figures.time_by_part(profile), "time"),
    }


def _layers(run: Run) -> list[dict[str, Any]]:
    """The slowest layers of each bundle that was looked at, with a figure of all."""
    return [
        {
            **one,
            "bundle": Path(one["bundle"]).name,
            "figure": drawn(figures.layer_times(one), f"layers-{number}"),
        }
        for number, one in enumerate(bench_profile_of(run.path) or [])
        if one["layers"]
    ]


def _baselines(run: Run, test: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The baselines beside the result: what it is, epochs, and the metric on validation and test
    data.
    """
    metric, records = run.config.task.metric, run.read("baselines.json") or {}
    said = {
        "scratch": "the same shape, trained from random weights",
        "random": "as many channels of each group, drawn at random",
    }
    return [
        {
            "name": said[name],
            "epochs": record["epochs"],
            "val": record["val"][metric],
            "test": ((test or {}).get("baselines") or {}).get(name, {}).get(metric),
        }
        for name, record in records.items()
    ]


def _begun(run: Run, first: Step, best: Step) -> dict[str, Any]:
    """What the model started from and how it was taught, and what to mind of its answers."""
    classes, weights, rate = (
        run.config.data.classes,
        run.read_as("weights.json", Loaded.from_json),
        run.read_as("lr.json", Rate.from_json),
    )
    only = first.only if best.only is None else best.only
    return {
        "weights": weights.sentence() if weights else None,
        "rate": rate.sentence() if rate else None,
        "majority": None
        if first.majority is None or first.largest is None
        else (classes[first.largest], first.majority),
        "one_class": [] if only is None else [one_class_warning(classes[only], taught(run))],
    }


def thumbnails(mistakes: Sequence[Mapping[str, Any]], span: str | None = None) -> dict[str, Any]:
    """The first mistakes as JPEG data URIs, most confident first; images that are gone are left
    out and counted.

    `span` is the run's range of greys of more than eight bits (`LOW:HIGH`).
    """
    shown, gone = [], 0
    greys = None if span is None else Greys(*parse_range(span), mixed=True)
    for mistake in sorted(mistakes, key=lambda one: -one["p_best"])[:MOST_MISTAKES]:
        try:
            image = Image.fromarray(
                read_image(source_of(mistake["path"]), square(THUMBNAIL), greys)
            )
        except (DataError, FileNotFoundError):
            gone += 1
            continue
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        shown.append({**mistake, "uri": uri, "name": Path(mistake["path"]).name})
    return {"shown": shown, "gone": gone, "count": len(mistakes)}


OF_TRAIN = (
    "size",
    "seed",
    "folds",
    "fold",
    "group_by",
    "skip_unreadable",
    "range",
    "metric",
    "precision",
    "batch_size",
    "augment",
    "train_epochs",
    "lr",
    "sparsity",
    "sparsity_strength",
)


def command(config: RunConfig, path: Path, verb: str | None = "prune") -> str:
    """The command that repeats the run, which `train` or `prune` (`verb`) made."""
    is_training = verb == "train"
    words = [
        "train" if is_training else "prune",
        config.data.path,
        *(
            ["--from", config.model.start]
            if config.model.start
            else ["--model", config.model.name, "--weights", config.model.weights]
        ),
    ]
    skipped = {
        "data",
        "model",
        "weights",
        "start",
        "classes",
        "data_fingerprint",
        "schedule_epochs",
        "judged_from",
    }
    for key, value in config.flat().items():
        elsewhere = (config.model.start and key in ("train_epochs", "lr")) or (
            is_training and key not in OF_TRAIN
        )
        if key in skipped or elsewhere or value is None or value is False:
            continue
        flag = "--epochs" if is_training and key == "train_epochs" else f"--{key.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            # A number that begins with a minus would be taken for a flag.
            words += (
                [flag]
                if one is True
                else [f"{flag}={one}"]
                if str(one).startswith("-")
                else [flag, str(one)]
            )
    return advice.command(*words, "--out", f"{path.name}-again")


def _facts(config: RunConfig) -> list[tuple[str, str]]:
    return [
        (key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
        for key, value in config.flat().items()
        if value is not None
    ]
