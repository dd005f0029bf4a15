"""The page of a study: its figures against ones computed here, what it leaves out, and the whole of it in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from prunedge.cli.report import report
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import RunError
from prunedge.report.study import page as study_page
from prunedge.report.study.cells import verdict
from prunedge.report.study.figures import curves, ends
from prunedge.report.study.numbers import curve, groups, shares, time_ratios, views
from prunedge.report.study.page import StudyFindings, command, page
from prunedge.report.study.pareto import Place, front, mean_places, step_places
from prunedge.report.study.sections import sections
from prunedge.report.study.small_networks import better_networks, small_table
from prunedge.report.study.tables import fraction_tables, paired_tables, summary_table
from prunedge.runs.callbacks import Callbacks
from prunedge.study import Grid, create
from prunedge.study.results import to_csv
from prunedge.study.small_networks import beside_small
from prunedge.study.statistics import Comparison
from prunedge.study.summary import axes_of
from tests.needs import program
from tests.report.made_up import study
from tests.report.test_report import QUIET
from tests.slow_cases import some_slow

KEYS = {
    "two": ["summary", "curves", "layers", "pareto", "fractions", "stops", "paired"],
    "crossval": ["summary", "fractions", "curves", "layers", "pareto", "stops", "baselines"],
    "criteria": [
        "summary",
        "paired",
        "curves",
        "layers",
        "pareto",
        "fractions",
        "stops",
        "baselines",
    ],
    "epochs": ["summary", "epochs", "curves", "layers", "pareto", "fractions", "stops", "paired"],
    "models": [
        "summary",
        "times",
        "curves",
        "layers",
        "epochs",
        "pareto",
        "fractions",
        "stops",
        "paired",
    ],
    "small": ["summary", "curves", "layers", "pareto", "fractions", "stops", "paired", "small"],
    "none": [],
}


def html(found: StudyFindings) -> str:
    return page(found, to_csv(found.rows), written="now")


def words(text: str) -> str:
    """What a reader sees: no scripts, styles, links or tags."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S))


def done(found: StudyFindings) -> list[Any]:
    return [row for row in found.rows if row["is_done"]]


def handed(found: StudyFindings, **values: Any) -> list[Any]:
    return [
        row
        for row in done(found)
        if row["is_best"] and all(row[key] == value for key, value in values.items())
    ]


@pytest.mark.parametrize("name", KEYS)
def test_each_section_is_there_when_its_data_is(name: str) -> None:
    found = study(name)
    rows = done(found)
    metric = sections(found.kind, rows, axes_of(rows, found.axes), ACCURACY, found.benches)
    assert [one.key for one in metric] == KEYS[name]
    assert all(one.note and (one.html or one.tables) for one in metric)
    assert re.findall(r'<section id="(\w+)">', html(found)) == [
        *(["failures"] if found.counts.failed else []),
        *KEYS[name],
        "data",
    ]


def test_small_networks_stand_beside_the_pruned_models_with_their_spread() -> None:
    found = study("small")
    rows = done(found)
    table = small_table(beside_small(groups(rows, ["criterion"])), ACCURACY)
    assert [line[:3] for line in table.lines] == [
        (criterion, model, "3")
        for criterion in ("taylor", "random")
        for model in ("unpruned", "pruned", "good", "poor")
    ]
    assert {len(line) for line in table.lines} == {len(table.head)}
    ours = handed(found, criterion="taylor")
    for line, tests, ms in (
        (
            table.lines[1],
            [100 * row["test_best"] for row in ours],
            [row["side_ms_best"] for row in ours],
        ),
        (
            table.lines[2],
            [100 * row["small_networks"][0]["test"] for row in ours],
            [row["small_networks"][0]["ms"] for row in ours],
        ),
    ):
        assert line[3].startswith(f"{fmean(tests):.1f} ± {stdev(tests):.1f} %\n")
        assert line[4] == f"{fmean(ms):.3g} ± {stdev(ms):.2g} ms"
    assert table.lines[2][5].endswith("×")
    assert table.lines[2][6] == "60"


def test_a_sentence_says_where_a_small_network_is_better() -> None:
    found = study("small")
    lines = better_networks(groups(done(found), ["criterion"]), ACCURACY)
    assert len(lines) == 2
    text = words(html(found))
    for line, criterion in zip(lines, ("taylor", "random"), strict=True):
        assert line.startswith(
            f"good, taught as long, is at least as good and as fast as the pruned model of "
            f"{criterion}: test accuracy "
        )
        assert line.endswith("(3 trials, in 3 of them both)")
        assert f"Mind: {line}." in text
    assert "poor, taught as long" not in text
    assert "taught as long" not in words(html(study("two")))


def test_the_summary_has_the_means_and_deviations_of_the_trials() -> None:
    found = study("criteria")
    lines = {line[0]: line for line in summary_table(groups(done(found), ["criterion"])).lines}
    assert list(lines) == ["taylor", "weight", "apoz", "random"]
    ours = handed(found, criterion="random")
    tests, first = (
        [100 * row["test_best"] for row in ours],
        [row for row in done(found) if row["index"] == 0 and row["criterion"] == "random"],
    )
    half = 4.302653 * stdev(tests) / 3**0.5  # Student's t with 2 degrees of freedom
    ratios = [one["macs"] / row["macs"] for one, row in zip(first, ours, strict=True)]
    name, n, _, after, removed, macs, *_ = lines["random"]
    assert (name, n) == ("random", "3")
    assert len(ours) == 3
    assert (
        after
        == f"{fmean(tests):.1f} ± {stdev(tests):.1f} %\n{fmean(tests) - half:.1f} to {fmean(tests) + half:.1f} %"
    )
    assert (
        removed
        == f"{100 * fmean(row['fraction_removed'] for row in ours):.1f} ± {100 * stdev(row['fraction_removed'] for row in ours):.1f} %"
    )
    assert macs.startswith(f"{fmean(ratios):.{2 if fmean(ratios) < 10 else 1}f} ± ")
    assert "1,800 → " in macs


def test_a_fraction_has_the_mean_and_variance_of_the_folds_that_reached_it() -> None:
    rows = done(study("crossval"))
    trials = [[row for row in rows if row["fold"] == fold and row["accepted"]] for fold in range(5)]
    (table,) = fraction_tables(groups(rows, []))
    (line,) = [line for line in table.lines if line[0] == "40%"]
    values = [
        np.interp(
            0.4, [row["fraction_removed"] for row in steps], [row["metric_after"] for row in steps]
        )
        for steps in trials
    ]
    assert line[1] == "5"
    assert line[5] == f"{np.mean(values):.1%}"
    assert line[6] == f"{1e4 * np.var(values, ddof=1):.3g}"
    furthest = [
        line[1]
        for line in table.lines
        if float(line[0][:-1]) / 100 > min(steps[-1]["fraction_removed"] for steps in trials)
    ]
    assert all(int(n) < 5 for n in furthest)


def test_a_curve_ends_where_fewer_than_half_of_the_trials_came() -> None:
    rows = done(study("crossval"))
    reached = sorted((row["fraction_removed"] for row in rows if row["is_best"]), reverse=True)
    figure = curves(views(rows, [])[0], ACCURACY)
    (solid,) = [trace for trace in figure.data if trace.line.dash == "solid"]
    assert reached[2] - 0.03 < max(solid.x) / 100 <= reached[2] + 1e-9
    assert any(trace.fill == "toself" for trace in figure.data)


def test_one_trial_has_no_band_and_no_spread() -> None:
    found = study("two")
    figure = curves(views(done(found), ["criterion"])[0], ACCURACY)
    assert len(figure.data) == 4
    assert not any(trace.fill for trace in figure.data)
    assert "one trial, no spread" in words(html(found))
    assert "nan" not in words(html(found)).lower()


def test_time_ratios_are_between_trials_that_are_equal_in_all_else() -> None:
    found = study("epochs")
    rows = done(found)
    took = {(row["epochs"], row["fold"]): 0.0 for row in rows}
    for row in rows:
        took[row["epochs"], row["fold"]] += sum(
            row[f"seconds_{part}"] for part in ("rank", "surgery", "finetune", "evaluate")
        )
    both = [fold for fold in range(5) if {(1, fold), (10, fold)} <= set(took)]
    seconds, ratios = time_ratios(rows, ["epochs"])["all trials"][1]
    assert len(seconds) == 5
    assert len(both) == 2
    assert ratios == pytest.approx([took[10, fold] / took[1, fold] for fold in both])


def test_the_layers_share_is_the_mean_over_trials_in_the_models_order() -> None:
    rows = done(study("crossval"))
    ends_ = [row for row in rows if row["is_best"]]
    found = shares(groups(rows, [])["all trials"])
    assert list(found) == list(rows[0]["original"])
    assert found["layer4.1.conv1"] == pytest.approx(
        fmean(row["kept"]["layer4.1.conv1"] / row["original"]["layer4.1.conv1"] for row in ends_)
    )


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    places = [Place(3, 0.9), Place(1, 0.7), Place(2, 0.6), Place(2, 0.8), Place(4, 0.9)]
    assert [(one.x, one.y) for one in front(places, ACCURACY)] == [(1, 0.7), (2, 0.8), (3, 0.9)]


def test_means_for_the_front_are_over_all_trials_or_not_at_all() -> None:
    found = groups(done(study("crossval")), [])
    shortest = min(
        trial[best]["fraction_removed"]
        for trial in found["all trials"]
        if (best := trial[0]["best"]) is not None
    )
    places = mean_places(found, "macs")
    assert len(places) == sum(f <= shortest for f in curve(found["all trials"], "macs"))


def test_pairs_are_counted_and_few_are_said_to_be_too_few() -> None:
    (table,) = paired_tables(done(study("criteria")), ["criterion"])
    assert len(table.lines) == 6
    assert {line[4] for line in table.lines} == {"3"}
    assert all("too few" in line[5] for line in table.lines)
    assert verdict(Comparison(0.1, 0.05, 0.15, 0.01, 20)) == "larger"
    assert verdict(Comparison(-0.1, -0.15, 0.02, 0.2, 20)) == "no clear difference"
    assert verdict(Comparison(0.0, 0.0, 0.0, float("nan"), 20)) == "no difference"
    assert "one pair" in verdict(Comparison(0.1, float("nan"), float("nan"), float("nan"), 1))


def test_unfinished_trials_are_counted_with_the_reason_and_shown_nowhere_else() -> None:
    text = html(study("epochs"))
    assert "12 of 15 trials are done" in words(text)
    assert "2 failed, 1 left" in words(text)
    assert "2 × no space &lt;left&gt; &amp; right" in text
    assert "<left>" not in text
    assert (
        "prunedge study &#39;/studies/a study/study.toml&#39; --out &#39;/studies/a study&#39;"
        in text
    )


def test_a_study_is_repeated_from_where_it_lies() -> None:
    assert (
        command("/studies/cracks", "/out") == "prunedge study /studies/cracks/study.toml --out /out"
    )
    away = "s3://bucket/cracks"
    assert command(away, away) == f"prunedge study study.toml --out {away}"


def test_a_study_without_a_finished_trial_still_has_a_page() -> None:
    text = words(html(study("none")))
    assert "0 of 2 trials are done" in text
    assert "study.csv" in text
    assert "none has ended yet" in text


def test_the_table_inside_is_the_whole_table() -> None:
    found = study("two")
    (link,) = re.findall(
        r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="study.csv"', html(found)
    )
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link).decode())))
    assert len(rows) == len(found.rows)
    assert float(rows[3]["metric_after"]) == found.rows[3]["metric_after"]


def test_nothing_comes_from_elsewhere() -> None:
    text = re.sub(r"<script>.*?</script>", "", html(study("models")), flags=re.S)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


@pytest.mark.slow
def test_thousands_of_trials_make_a_small_page_of_few_traces() -> None:
    found = study("many")
    rows = done(found)
    seen, left = views(rows, axes_of(rows, found.axes))
    assert found.counts.trials == 2016
    assert left == 0
    assert len(seen) == 4 * 2 * 3
    assert max(map(len, seen.values())) == 4
    assert len(ends(seen).data) == len(seen)
    places = step_places(list(groups(rows, ["seed"])["seed 0"]), "macs")
    assert len(places) < 2400
    assert sum(one.n for one in places) == sum(row["accepted"] for row in rows if row["seed"] == 0)
    text = page(found, to_csv(rows), written="now")
    assert len(text) < 8_000_000
    assert 'href="study.csv"' in text


@pytest.fixture(scope="module")
def folder(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three tiny trials, of which one is done."""
    values = {
        "data": str(tiny_data),
        "model": "tests.runs.test_run:small",
        "weights": "none",
        "size": 16,
        "train_epochs": 3,
        "precision": "32",
        "step_ratio": 0.3,
        "max_drop": 60.0,
        "max_steps": 1,
        "batch_size": 8,
        "criterion": ["random", "weight", "taylor"],
    }
    study = create(tmp_path_factory.mktemp("studies") / "study", Grid(values))
    study.perform(study.starts[0], Callbacks())
    study.perform(study.trials[0], Callbacks())
    study.fail(study.trials[1], "the disk is full")
    return study.path


def test_report_tells_a_study_from_a_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(folder)
    target = Path(capsys.readouterr().out.strip())
    assert target == folder / "report.html"
    text = words(target.read_text(encoding="utf-8"))
    assert "1 of 3 trials are done" in text
    assert "1 × the disk is full" in text
    report(next((folder / "trials").iterdir()))
    assert "How to repeat this run" in Path(capsys.readouterr().out.strip()).read_text(
        encoding="utf-8"
    )
    with pytest.raises(RunError, match="not a run folder"):
        report(tmp_path)


def test_a_large_table_is_linked_and_written_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_page, "MOST_CSV", 10)
    report(folder)
    assert 'href="study.csv"' in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "study.csv").stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "width"),
    some_slow(
        [("two", 390), ("models", 390), ("models", 1280), ("epochs", 1280)],
        [("models", 390), ("epochs", 1280)],
    ),
)
def test_every_figure_is_drawn_without_an_error(name: str, width: int, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    found = study(name)
    file = tmp_path / "report.html"
    file.write_text(html(found), encoding="utf-8")
    rows = done(found)
    figures = sum(
        len(one.html)
        for one in sections(found.kind, rows, axes_of(rows, found.axes), ACCURACY, found.benches)
    )
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=QUIET)
        view = browser.new_page(viewport={"width": width, "height": 844})
        view.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        view.on("pageerror", lambda error: problems.append(str(error)))
        view.on(
            "request",
            lambda request: (
                problems.append(request.url) if request.url.startswith("http") else None
            ),
        )
        view.goto(file.as_uri())
        view.wait_for_function(
            f"document.querySelectorAll('.plotly-graph-div .main-svg').length >= {figures}"
        )
        drawn = view.evaluate(
            "[...document.querySelectorAll('.plotly-graph-div')].map(d => d.querySelectorAll('.trace, .point, .hm').length)"
        )
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        # Choosing the last view of a figure with several shows that one alone.
        shown = view.evaluate(
            """[...document.querySelectorAll('.plotly-graph-div')].filter(d => d.layout.updatemenus).map(d => {
                const seen = d.layout.updatemenus[0].buttons.at(-1).args[0].visible;
                Plotly.restyle(d, 'visible', seen.map(v => [v]).flat());
                return d.data.every((trace, i) => trace.visible === seen[i]) && d.querySelectorAll('.trace, .point, .hm').length > 0;
            })"""
        )
        browser.close()
    assert problems == []
    assert len(drawn) == figures
    assert all(count > 0 for count in drawn)
    assert all(shown)
    assert bool(shown) == (name == "models")
