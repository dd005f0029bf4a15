"""`--profile` as a user types it, and what docs/profiling.md tells users to type."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from prunedge.cli.parser import make_app
from prunedge.runs.profile import profile_of
from prunedge.utils.tracing import is_recording
from tests.commands import Started, prunedge
from tests.runs.test_profile import check_trace

GUIDE = (Path(__file__).parents[2] / "docs" / "profiling.md").read_text(encoding="utf-8")
COMMON = (
    "--model",
    "tests.runs.test_run:small",
    "--weights",
    "none",
    "--size",
    16,
    "--train-epochs",
    3,
    "--step-ratio",
    0.3,
    "--max-drop",
    99,
    "--max-steps",
    1,
    "--batch-size",
    8,
    "--precision",
    "32",
)


@pytest.fixture(scope="module")
def watched(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("watched") / "run"
    done = prunedge("prune", tiny_data, *COMMON, "--out", out, "--profile")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_prune_prints_where_the_time_went(watched: tuple[Path, str]) -> None:
    out, said = watched
    assert re.search(r"where [\d.]+ seconds went", said)
    assert "ui.perfetto.dev" in said
    for part in (
        "forward",
        "backward",
        "optimiser",
        "data",
        "rank",
        "surgery",
        "evaluate",
        "other",
    ):
        assert re.search(rf"│ {part} ", said), part
    check_trace(out / "profile" / "trace.json")
    assert "profile" not in (out / "config.toml").read_text()


def test_show_and_json_have_the_profile(watched: tuple[Path, str], run: Path) -> None:
    told: dict[str, Any] = json.loads(prunedge("show", watched[0], "--json").stdout)
    assert told["profile"]["wall_s"] > 0
    assert told["profile"]["parts"]
    assert json.loads(prunedge("show", run, "--json").stdout)["profile"] is None


def test_a_finished_run_is_not_profiled_again(watched: tuple[Path, str]) -> None:
    done = prunedge("prune", "--resume", watched[0], "--profile", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["profile"]["recordings"] == 1


def test_an_interrupted_run_has_written_what_it_saw(tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = Started("prune", tiny_data, *COMMON, "--epochs", 500, "--out", out, "--profile")
    while not (out / "history.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "prune --resume" in said
    assert {"train"} <= {one["name"] for one in check_trace(out / "profile" / "trace.json")}
    found = profile_of(out)
    assert found is not None
    assert {"start", "train"} <= {one["phase"] for one in found["phases"]}


def test_bench_looks_at_layers_and_the_report_shows_both(
    watched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bundle = watched[0], tmp_path / "bundle"
    assert prunedge("export", out, "--out", bundle).returncode == 0
    done = prunedge("bench", bundle, "--patches", 6, "--profile", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "GMAC/s" in done.stdout, done.stderr
    assert "seconds: load" in done.stdout, done.stderr
    assert done.stderr == ""
    assert json.loads((out / "bench.json").read_text())["profile"] is None
    assert json.loads((out / "profile" / "bench-trace.json").read_text())["traceEvents"]
    page = Path(prunedge("report", out).stdout.strip()).read_text(encoding="utf-8")
    assert "Where the time went" in page
    assert "Where bundle (onnx) spends its time" in page
    assert "profile/trace.json" in page
    monkeypatch.chdir(tmp_path)
    bare = prunedge("bench", bundle, "--patches", 6, "--profile", "--json")
    assert bare.returncode == 0, bare.stderr
    assert json.loads(bare.stdout)["profile"][0]["layers"], bare.stderr
    assert {file.name for file in (tmp_path / "prunedge-profile").iterdir()} == {
        "bench.json",
        "bench-trace.json",
    }


def test_a_folder_that_can_t_be_written_is_said(
    watched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prunedge("export", watched[0], "--out", tmp_path / "bundle").returncode == 0
    (tmp_path / "prunedge-profile").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    done = prunedge("bench", "bundle", "--patches", 6, "--profile")
    assert done.returncode == 2
    assert done.stderr.startswith("error: can't write the profile")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("line", re.findall(r"^    (prunedge .*)$", GUIDE, re.MULTILINE))
def test_the_guide_s_commands_are_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    make_app(words[0]).parse_args(words, exit_on_error=False, print_error=False)


def test_the_guide_s_program_runs(tiny_data: Path) -> None:
    import prunedge as pe
    from tests.runs.test_run import small

    program = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert program is not None
    names: dict[str, Any] = {"data": pe.load_folder(tiny_data, size=16), "model": small(2)}
    exec(
        program[1].replace(
            "pe.prune(model, data)", "pe.prune(model, data, max_steps=1, max_drop=99)"
        ),
        names,
    )
    assert names["seen"].totals
    assert not is_recording()


def test_the_guide_names_every_part(watched: tuple[Path, str]) -> None:
    found = profile_of(watched[0])
    table = GUIDE.partition("| part |")[2].partition("\n\n")[0]
    rows = {name.strip() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    assert found is not None
    assert {one["part"] for one in found["parts"]} <= rows
