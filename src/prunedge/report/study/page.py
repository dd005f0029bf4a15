"""One page of a whole study: the answer first, then every figure with what it is of, then the
data.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from prunedge.edge.bench.ratios import speed_of
from prunedge.report.html import render, save
from prunedge.report.run.page import card
from prunedge.report.study.numbers import Groups, Row, Trial, groups, over, total_seconds
from prunedge.report.study.sections import sections
from prunedge.report.study.tables import device_of, duration, with_spread
from prunedge.runs.run import open_run
from prunedge.study import StudyProgress, StudyStore, collect
from prunedge.study.results import to_csv
from prunedge.study.statistics import Spread, spread
from prunedge.study.summary import axes_of
from prunedge.utils import advice
from prunedge.utils.files import read_text, real_path, write_text
from prunedge.utils.sanitize import kinds

MOST_CSV = 5_000_000  # bytes inside the page
MOST_REASONS = 20
QUESTIONS = {
    "grid": "Which combination prunes best?",
    "crossval": "How stable is the pruned model?",
    "epochs": "How few epochs of fine-tuning are enough?",
    "criteria": "Which criterion prunes best?",
    "models": "Which model is worth pruning?",
    "talk": "The results of Wu et al. (2019) on these images",
}


@dataclass(frozen=True)
class Findings:
    """All that the page is made of. `axes` have several values in the study's file; `benches` are
    those of the timed trials, by name.
    """

    name: str
    kind: str
    axes: Sequence[str]
    trials: Sequence[str]
    rows: Sequence[Row]
    counts: StudyProgress
    toml: str
    benches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def write_study_report(study: StudyStore) -> Path:
    """Write STUDY/report.html from what the study's folder holds, finished or not; returns its
    path.

    The table is inside as CSV; a large one is written to STUDY/study.csv, and linked. RunError when
    the page can't be written.
    """
    rows = collect(study)
    benches = {}
    for trial in study.trials:
        if (
            study.is_done(trial)
            and (bench := open_run(study.folder(trial)).read("bench.json"))
            and bench.get("ratios")
        ):
            benches[trial.name] = bench
    found = Findings(
        real_path(study.path).name,
        study.grid.kind,
        study.grid.axes,
        [trial.name for trial in study.trials],
        rows,
        study.counts(),
        read_text(study.path / "study.toml"),
        benches,
    )
    text = to_csv(rows)
    if not is_inside(text):
        write_text(study.path / "study.csv", text)
    return save(
        page(found, text, written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
        study.path / "report.html",
    )


def page(found: Findings, csv: str, *, written: str) -> str:
    """The page's HTML. `csv` is the table, which goes inside or, when it is large, is linked as
    study.csv.
    """
    done = [row for row in found.rows if row["is_done"]]
    axes = axes_of(done, found.axes)
    metrics = {row["metric"] for row in found.rows}
    metric = metrics.pop() if len(metrics) == 1 else "metric"
    every = groups(done, axes)
    link = (
        "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv.encode()).decode()
        if is_inside(csv)
        else "study.csv"
    )
    return render(
        "study.html.j2",
        name=found.name,
        title=QUESTIONS[found.kind],
        answers=answers(done, axes, metric),
        cards=cards(found, every, metric),
        state=state(found),
        failures=failures(found.counts.failed),
        sections=sections(found.kind, done, axes, metric, found.benches),
        csv=link,
        steps=len(found.rows),
        toml=found.toml,
        command=command(found.name, f"{found.name}-again"),
        resume=command(found.name, found.name),
        written=written,
        is_whole=set(found.trials) <= set(found.counts.done),
    )


def is_inside(csv: str) -> bool:
    """Whether a table is small enough to stand in the page."""
    return len(csv) <= MOST_CSV


def state(found: Findings) -> str:
    """How far the study is, in words."""
    done, counts = set(found.counts.done), found.counts
    more = (
        (len(counts.running), "running"),
        (len(counts.failed), "failed"),
        (len(counts.left), "left"),
    )
    rest = ", ".join(f"{count} {said}" for count, said in more if count)
    of_all = f"{sum(name in done for name in found.trials)} of {len(found.trials)} trials are done"
    return f"{of_all}; of these and their starting models: {rest}" if rest else of_all


def failures(failed: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """Each reason with how many failed of it and the first that did, the most frequent first."""
    return [(failed[names[0]], len(names), names[0]) for names in kinds(failed)[:MOST_REASONS]]


def answers(done: Sequence[Row], axes: Sequence[str], metric: str) -> list[str]:
    """For each set of images: the combination that leaves the least work, and the one with the
    highest metric if that is another.
    """
    said = []
    is_alone = len({row["data"] for row in done}) < 2
    for name, trials in groups(done, ["data"]).items():
        found = groups(
            [row for trial in trials for row in trial], [axis for axis in axes if axis != "data"]
        )
        leanest, best = _best(found, _ratio), _best(found, _after)
        before = with_spread(over(found[leanest], lambda _, handed: handed["test_baseline"]), "%")
        after, n = with_spread(over(found[leanest], _after), "%"), len(found[leanest])
        which = "" if len(found) == 1 else f"{leanest} leaves the least work: "
        where = "" if is_alone else f"On {name}: "
        ratio = with_spread(over(found[leanest], _ratio), "×")
        text = f"{where}{which}{ratio} fewer MACs, test {metric} {before} → {after} ({_times(n)})."
        if best != leanest:
            ratio_of_best, value = (
                over(found[best], _ratio),
                with_spread(over(found[best], _after), "%"),
            )
            text += (
                f" {best} has the highest test {metric} after pruning: {value}, with "
                f"{with_spread(ratio_of_best, '×')} fewer MACs."
            )
        said.append(text)
    return said[:6]


def cards(found: Findings, every: Groups, metric: str) -> list[dict[str, str]]:
    """The first screen: how much is done, and before and after of the combination that leaves the
    least work.
    """
    done = sum(name in set(found.counts.done) for name in found.trials)
    note = (
        f"{len(every)} combination{'s' if len(every) != 1 else ''} over folds and seeds"
        if every
        else "none has ended yet"
    )
    made = [card("trials done", note, "", f"{done} of {len(found.trials)}", "")]
    if not every:
        return made
    name = _best(every, _ratio)
    trials = every[name]
    before, after = over(trials, lambda _, best: best["test_baseline"]), over(trials, _after)
    change = over(trials, lambda _, best: best["test_best"] - best["test_baseline"])
    text = f"{_noted(change, 100, 'test split')}; {name}"
    made.append(
        card(
            metric,
            f"{before.mean:.1%}",
            f"{after.mean:.1%}",
            f"{100 * change.mean:+.1f} points",
            text,
        )
    )
    made.append(_saving("work", name, trials, "macs", 1e6, "million MACs", "less"))
    made.append(_saving("size", name, trials, "size_mb", 1, "MB", "smaller"))
    timed = next(
        (
            found.benches[trial[0]["trial"]]
            for trial in trials
            if trial[0]["trial"] in found.benches
        ),
        None,
    )
    if timed is not None:
        speed = speed_of(timed)
        text = f"{device_of(timed)}; medians; one trial of {name}"
        made.append(
            card(
                "time for a batch",
                f"{speed.before_ms:.3g} ms",
                f"{speed.after_ms:.3g} ms",
                speed.said("×"),
                text,
            )
        )
    else:
        took, steps = (
            spread([total_seconds(trial) for trial in trials]),
            spread([len(trial) - 1 for trial in trials]),
        )
        text = f"all steps of a trial, on the machine that pruned; {name}; n = {took.n}"
        made.append(card("pruning time", f"{steps.mean:.0f} steps", "", duration(took), text))
    return made


def command(name: str, out: str) -> str:
    """What runs the study, or what is left of it, from the folder above it."""
    return advice.command("study", f"{name}/study.toml", "--out", out)


def _best(found: Groups, what: Callable[[Row, Row], float]) -> str:
    return max(found, key=lambda name: over(found[name], what).mean)


def _ratio(first: Row, best: Row) -> float:
    return float(first["macs"] / best["macs"])


def _after(_: Row, best: Row) -> float:
    return float(best["test_best"])


def _saving(
    title: str, name: str, trials: Sequence[Trial], key: str, per: float, unit: str, word: str
) -> dict[str, str]:
    before, after = (
        over(trials, lambda first, _: first[key] / per),
        over(trials, lambda _, best: best[key] / per),
    )
    ratio = over(trials, lambda first, best: first[key] / best[key])
    return card(
        title,
        f"{before.mean:,.4g}",
        f"{after.mean:,.3g} {unit}",
        f"{ratio.mean:.1f} × {word}",
        f"{_noted(ratio, 1, 'ratio')}; {name}",
    )


def _noted(one: Spread, per: float, what: str) -> str:
    return (
        f"{what} ± {per * one.variance**0.5:.1f} (standard deviation), n = {one.n}"
        if one.n > 1
        else f"{what}; one trial, no spread"
    )


def _times(n: int) -> str:
    return f"n = {n}, mean ± standard deviation" if n > 1 else "one trial, no spread"
