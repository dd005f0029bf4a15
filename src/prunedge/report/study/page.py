"""One page of a whole study: the answer first, then every figure with what it is of, then the
data.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from prunedge.data.paths import is_url
from prunedge.report.html import render, save
from prunedge.report.metric_text import best_word
from prunedge.report.study.answers import answers, cards
from prunedge.report.study.numbers import Row, groups
from prunedge.report.study.sections import sections
from prunedge.report.study.small_networks import better_networks
from prunedge.report.text import study_state
from prunedge.runs.run import open_run
from prunedge.study import StudyProgress, StudyStore, collect
from prunedge.study.results import to_csv
from prunedge.study.summary import axes_of, metric_of
from prunedge.utils import advice
from prunedge.utils.files import read_text, write_text
from prunedge.utils.sanitize import kinds

MOST_CSV = 5_000_000  # bytes inside the page
MOST_REASONS = 20
QUESTIONS = {
    "grid": "Which combination prunes best?",
    "crossval": "How stable is the pruned model?",
    "epochs": "How few epochs of fine-tuning are enough?",
    "criteria": "Which criterion prunes best?",
    "models": "Which model is worth pruning?",
}


@dataclass(frozen=True)
class StudyFindings:
    """All that the page is made of. `address` is what the study is found by; `axes` have several
    values in the study's file; `benches` are those of the timed trials, by name.
    """

    address: str
    kind: str
    axes: Sequence[str]
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
    findings = StudyFindings(
        study.address,
        study.grid.kind,
        study.grid.axes,
        rows,
        study.counts(),
        read_text(study.path / "study.toml"),
        _benches(study),
    )
    text = to_csv(rows)
    if not is_inside(text):
        write_text(study.path / "study.csv", text)
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return save(page(findings, text, written=written), study.path / "report.html")


def page(findings: StudyFindings, csv: str, *, written: str) -> str:
    """The page's HTML. `csv` is the table, which goes inside or, when it is large, is linked as
    study.csv.
    """
    finished = [row for row in findings.rows if row["is_done"]]
    axes = axes_of(finished, findings.axes)
    metric = metric_of(findings.rows)
    link = "study.csv"
    if is_inside(csv):
        encoded = base64.b64encode(csv.encode()).decode()
        link = f"data:text/csv;charset=utf-8;base64,{encoded}"
    return render(
        "study.html.j2",
        name=findings.address.rpartition("/")[2],
        title=QUESTIONS[findings.kind],
        answers=answers(finished, axes, metric),
        minds=better_networks(groups(finished, axes), metric),
        best_word=best_word(metric),
        cards=cards(groups(finished, axes), findings.counts, findings.benches, metric),
        state=study_state(findings.counts),
        failures=failures(findings.counts.failed),
        sections=sections(findings.kind, finished, axes, metric, findings.benches),
        csv=link,
        steps=len(findings.rows),
        toml=findings.toml,
        command=command(findings.address, f"{findings.address}-again"),
        resume=command(findings.address, findings.address),
        written=written,
        is_whole=findings.counts.trials_done == findings.counts.trials,
    )


def is_inside(csv: str) -> bool:
    """Whether a table is small enough to stand in the page."""
    return len(csv) <= MOST_CSV


def failures(failed: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """Each reason with how many failed of it and the first that did, the most frequent first."""
    return [(failed[names[0]], len(names), names[0]) for names in kinds(failed)[:MOST_REASONS]]


def command(address: str, out: str) -> str:
    """What runs the study, or what is left of it. Of one that lies elsewhere the file is the text
    on the page.
    """
    file = "study.toml" if is_url(address) else f"{address}/study.toml"
    return advice.command("study", file, "--out", out)


def _benches(study: StudyStore) -> dict[str, Mapping[str, Any]]:
    """What was timed of finished trials, by their names."""
    benches = {}
    for trial in study.trials:
        if study.is_done(trial):
            bench = open_run(study.folder(trial)).read("bench.json")
            if bench and bench.get("ratios"):
                benches[trial.name] = bench
    return benches
