"""The report in a real browser: every figure drawn, no error, nothing wider than a phone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from prunedge.cli.show import show
from prunedge.config import RunConfig, asked
from prunedge.edge.bench.breakdown import LayerCall, profile_of
from prunedge.report import write_report
from prunedge.report.metric_text import metric_of
from prunedge.report.run.cards import cards, cards_of_training, saved
from prunedge.report.run.repeat import command, facts
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.profile import summed
from prunedge.runs.run import Run, open_run
from prunedge.utils.advice import flag
from prunedge.utils.checksums import sealed
from prunedge.utils.wording import times
from tests.needs import program
from tests.slow_cases import some_slow
from tests.tampering import edited, rewrite_history

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-modeling",
    "--disable-component-update",
    "--disable-sync",
]
MEASURED = {"seconds_total": 4.0, "peak_rss_mb": 60.0, "runtime": "onnxruntime"}
BENCH = {
    "bundles": [{"latency_ms": {"median": ms, "p95": ms + 1}, **MEASURED} for ms in (9.0, 1.5)],
    "ratios": [{"speedup": {"median": 6.0, "low": 5.5, "high": 6.4, "blocks": 12}}],
    "device": {"processor": "a board"},
    "threads": 1,
    "batch": 1,
    "patches": 3720,
}


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=2,
        precision="32",
        step_ratio=0.3,
        max_drop=60.0,
        max_steps=2,
        epochs=1,
        polish=0,
        batch_size=8,
    )
    return execute.prune(recipe, tmp_path_factory.mktemp("runs") / "run")


def put_profiles(run: Path) -> None:
    """As `--profile` on `prune` and `bench` leave them."""
    places = [
        ("train", "forward", 3.0),
        ("train", "backward", 5.0),
        ("step 1", "backward/rank", 0.5),
        ("step 1", "evaluate/forward", 2.0),
    ]
    rows = [
        {"thread": "main", "phase": one, "path": path, "count": 7, "self_s": s, "total_s": s}
        for one, path, s in places
    ]
    for one, seconds in (("train", 8.5), ("step 1", 3.0)):
        rows.append(
            {
                "thread": "main",
                "phase": one,
                "path": "",
                "count": 1,
                "self_s": 0.5,
                "total_s": seconds,
            }
        )
    rows.append(
        {
            "thread": "batches",
            "phase": "",
            "path": "read",
            "count": 9,
            "self_s": 1.5,
            "total_s": 1.5,
        }
    )
    about = {
        "spans": 9,
        "spans_left_out": 0,
        "machine": "a <board>",
        "threads": 1,
        "precision": "32",
    }
    spans = [
        [name, 0, place, 10**6]
        for place, name in enumerate(("load", "preprocess", "model", "decode"))
    ]
    calls = [
        LayerCall("conv", "Conv", "3x4x4 -> 8x4x4, 3x3", 10**6, 0, 10**6),
        LayerCall("relu", "Relu", "", 0, 0, 10**5),
    ]
    layers = profile_of(
        {"bundle": "/b/small", "target": "onnx", "runtime": "onnxruntime 1, CPU"}, spans, [calls]
    )
    (run / "profile").mkdir()
    for name, value in (
        ("profile.json", {**summed(rows, 12.0), **about}),
        ("bench.json", [layers]),
    ):
        (run / "profile" / name).write_text(json.dumps(sealed(value, f"profile/{name}")))


def test_where_the_time_went(run: Run, tmp_path: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    assert "Where the time went" in text
    assert "With <code>--profile</code>" in text
    shutil.copytree(run.path, copy := tmp_path / "run")
    put_profiles(copy)
    text = write_report(open_run(copy)).read_text(encoding="utf-8")
    assert "With <code>--profile</code>" not in text
    assert "12.0 s; a &lt;board&gt;, precision 32" in text
    assert "<td>backward</td><td>5.00</td><td>41.7 %</td><td>7</td>" in text
    assert "<td>other</td><td>1.50</td><td>12.5 %</td>" in text
    assert "read 1.5 s" in text
    assert "Where small (onnx) spends its time" in text
    assert "<td>Conv 3x4x4 -&gt; 8x4x4, 3x3</td><td>1.000</td><td>90.9 %</td><td>1.0</td>" in text


def test_what_is_missing_is_said_with_its_command(run: Run) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    assert "prunedge bench BUNDLE" in text
    assert "time for an image" not in text


def test_a_ratio_of_times_is_that_of_the_times_beside_it_or_is_not_told(
    run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.path, copy := tmp_path / "run")
    ratio = {"speedup": {"median": 1.3, "low": 0.9, "high": 1.6, "blocks": 12}}
    bundles = [{"latency_ms": {"median": ms}, **MEASURED} for ms in (2.32, 2.40)]
    open_run(copy).write("bench.json", {**BENCH, "bundles": bundles, "ratios": [ratio]})
    text = write_report(open_run(copy)).read_text(encoding="utf-8")
    assert "not told apart" in text
    assert "2.32 ms → 2.40 ms" in text
    assert "1.3 ×" not in text


def test_nothing_comes_from_elsewhere(run: Run) -> None:
    text = re.sub(
        r"<script>.*?</script>", "", write_report(run).read_text(encoding="utf-8"), flags=re.S
    )
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_the_page_minds_what_the_terminal_minds(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, copy := tmp_path / "run")
    with edited(copy):
        test = json.loads((copy / "test.json").read_text())
        test["best"]["accuracy"] = test["baseline"]["accuracy"] - 0.7
        (copy / "test.json").write_text(json.dumps(test))
    changed = open_run(copy)
    told = [line for line in pruned(changed).splitlines() if line.startswith("mind: ")]
    page = unescape(write_report(changed).read_text(encoding="utf-8"))
    assert "mind: on test data it lost 70.0 points, more than the 60 that" in told[0]
    assert all(line.removeprefix("mind: ") in page for line in told)
    assert "Mind: " not in write_report(run).read_text(encoding="utf-8")


def test_the_command_repeats_the_run(run: Run) -> None:
    words = command(run.config, run.path).split()
    assert words[:2] == ["prunedge", "prune"]
    assert words[words.index("--step-ratio") + 1] == "0.3"
    assert words[words.index("--max-steps") + 1] == "2"
    from prunedge.cli.parser import make_app

    make_app(words[1]).parse_args(words[1:], exit_on_error=False, print_error=False)


def test_the_command_repeats_the_precision_that_was_measured(run: Run) -> None:
    """Measured anew, another might be faster that day, and the run another run."""
    automatic = run.config.with_values(precision="auto")
    words = command(automatic, run.path, "prune", "bf16").split()
    assert words[words.index("--precision") + 1] == "bf16"
    assert "--precision 32" in write_report(replace(run, config=automatic)).read_text("utf-8")


def test_the_settings_are_those_that_a_user_can_give(run: Run) -> None:
    told = [name for name, _ in facts(run.config.with_values(judged_from=2, start="runs/a"))]
    assert {"from", "criterion", "max drop"} <= set(told)
    internals = {"judged from", "schedule epochs", "classes", "data fingerprint", "start"}
    assert not internals & set(told)


def test_the_title_says_nothing_of_what_is_not_smaller(run: Run) -> None:
    first = run.steps()[0]
    assert saved(first, first) == "nothing smaller kept the rule"
    smaller = replace(first, macs=first.macs // 2)
    assert saved(first, smaller) == f"{times(first.macs / smaller.macs)} × less work"


def test_the_tile_of_work_has_the_ratio_of_its_figures(run: Run) -> None:
    first = replace(run.steps()[0], macs=48_930_000)
    best = replace(first, macs=400_100)
    (work,) = [
        each
        for each in cards(first, best, metric_of(run.config), None, None)
        if each["name"] == "work"
    ]
    assert work["change"] == "122.3 × less"
    assert (work["before"], work["after"]) == ("48.93", "0.40 million")
    wide = cards_of_training(replace(first, macs=49_400_000), metric_of(run.config))
    assert wide[2]["change"] == "49.4 million"


def test_the_command_names_every_option_as_the_command_line_does(run: Run) -> None:
    words = command(run.config.with_values(cost="macs", finetune_lr=0.1), run.path).split()
    assert words[words.index("--for") + 1] == "macs"
    options = [word for word in words if word.startswith("--")]
    assert set(options) <= {flag(key) for key in asked()} | {"--out"}


def test_the_command_repeats_each_pattern_and_leaves_out_what_is_empty(run: Run) -> None:
    assert "--ignore" not in command(run.config, run.path)
    words = command(run.config.with_values(ignore=["stem.*", "head"]), run.path).split()
    assert [words[place + 1] for place, word in enumerate(words) if word == "--ignore"] == [
        "'stem.*'",
        "head",
    ]


@pytest.mark.parametrize(
    ("width", "height", "is_profiled"),
    some_slow(
        [(1280, 900, False), (390, 844, False), (1280, 900, True), (390, 844, True)],
        [(1280, 900, False), (390, 844, True)],
    ),
)
def test_every_figure_is_drawn_without_an_error(
    run: Run, tmp_path: Path, width: int, height: int, is_profiled: bool
) -> None:
    from playwright.sync_api import sync_playwright

    shutil.copytree(run.path, copy := tmp_path / "run")
    open_run(copy).write("bench.json", BENCH)
    if is_profiled:
        put_profiles(copy)
    page_file = write_report(open_run(copy))
    # Of the decision three, of the learning curves two.
    figures = 3 * bool(run.summary()["decisions"]) + 2 + (5 if is_profiled else 4)
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=QUIET)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                problems.append(request.url) if request.url.startswith("http") else None
            ),
        )
        page.goto(page_file.as_uri())
        page.wait_for_function(
            "document.querySelectorAll('.plotly-graph-div .main-svg').length >= " + str(figures)
        )
        drawn = page.evaluate(
            "[...document.querySelectorAll('.plotly-graph-div')].map(d => d.querySelectorAll('.trace, .point, .bars path').length)"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert "6.0 × faster" in page.inner_text(".cards")
        assert "%" in page.inner_text(".cards")
        toolbar = page.evaluate("getComputedStyle(document.querySelector('.modebar')).display")
        assert (toolbar == "none") == (width < 640), "on a phone it lies over the legend"
        page.emulate_media(media="print")
        browser.close()
    assert problems == []
    assert len(drawn) == figures
    assert all(count > 0 for count in drawn)


def test_a_device_that_steered_has_its_figures(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    layer = {"inputs": 16, "outputs": 16, "kernel": [3, 3], "size": [8, 8]}
    stair = {
        "layer": layer,
        "axis": "outputs",
        "channels": [15, 16, 17],
        "ms": [0.1, 0.1, 0.2],
        "step": 16,
    }
    table = {
        "grids": [],
        "staircases": [stair],
        "device": {"processor": "a board"},
        "runtime": "onnxruntime 1, CPU",
        "threads": 1,
    }
    with edited(copy):
        # What is found would lead.
        test = json.loads((copy / "test.json").read_text())
        (copy / "test.json").write_text(json.dumps({**test, "decisions": {}}))
        rewrite_history(
            copy,
            lambda line: (
                line
                | {
                    "latency_ms": 10.0 / (line["index"] + 1),
                    "predicted_ms": 12.0 / (line["index"] + 1),
                }
            ),
        )
        fit = {"layers": 1.0, "megabyte": 0.0, "rest": 0.0, "cache": 0.0, "points": []}
        steering = {"address": "local", "target": "onnx", "table": table, "fit": fit}
        (copy / "latency.json").write_text(json.dumps(steering))
        settings = (copy / "config.toml").read_text(encoding="utf-8")
        settings = settings.replace("[device]\n", '[device]\naddress = "local"\n')
        (copy / "config.toml").write_text(settings, encoding="utf-8")
    page = write_report(open_run(copy)).read_text(encoding="utf-8")
    assert "against time on the device" in page
    assert "off by 20 % on average, 20 % at most" in page
    assert "a board" in page
    assert "3x3 at 8x8, outputs: step 16" in page
    assert "has not been measured in this run" not in page
    first, best = open_run(copy).first(), open_run(copy).best()
    assert best.latency_ms is not None
    faster = f"{10.0 / best.latency_ms:.1f} × faster"
    title = re.findall("<h1>(.*?)</h1>", page)[0]
    assert faster in title
    assert f'<div class="change">{faster}</div><div class="pair">10 ms → ' in page
    assert "a board, onnxruntime 1, CPU, 1 thread, batch 1" in page
    assert first.latency_ms == 10.0
    capsys.readouterr()
    show(copy)
    table = capsys.readouterr().out
    assert re.search(r"┃ +ms ┃", table)
    assert f" {best.latency_ms:.3g} │" in table


def test_steps_that_no_device_timed_have_no_milliseconds(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "<th>ms</th>" not in write_report(run).read_text(encoding="utf-8")
    show(run.path)
    assert " ms " not in capsys.readouterr().out
