"""Values of the wrong kind in a run's files, under right checksums, are damage: one line that names the file, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunedge.errors import PrunedgeError
from prunedge.report.run import page, sections
from prunedge.report.text import pruned
from prunedge.runs.run import open_run
from prunedge.utils import checksums
from prunedge.utils.signs import sign_in
from tests.refusals import refusal
from tests.runs.test_run import small
from tests.slow_cases import some_slow
from tests.tampering import edited

# Every wrong value takes a report: `make test` looks at some of those of large files.
EVERY = some_slow([7, 1], [1])
SHORT = 60
WRONG: tuple[Any, ...] = (None, "text", [])


def spoiled(value: Any, depth: int = 0) -> Iterator[Any]:
    """The same JSON with one value in it of another kind, for each value; of lists the first item stands for all."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == checksums.KEY and depth == 0:
                continue
            yield {name: other for name, other in value.items() if name != key}
            for wrong in spoiled(inner, depth + 1):
                yield {**value, key: wrong}
    elif isinstance(value, list) and value:
        for wrong in spoiled(value[0], depth + 1):
            yield [wrong, *value[1:]]
    yield from (wrong for wrong in WRONG if depth and type(wrong) is not type(value))


def read_all(run: Path) -> None:
    """What `show` and `report` read, but for drawing."""
    opened = open_run(run)
    opened.summary()
    pruned(opened)
    page.write_report(opened)
    for step in opened.steps():
        if step.accepted:
            opened.plan(step.index)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and not turned into HTML."""
    monkeypatch.setattr(sections, "drawn", lambda figure, place: "")


def unnoticed(run: Path, file: Path, about: str, every: int) -> list[str]:
    """The wrong values of a file that end in anything but a clear error that names it, or in none;
    of long lists of them each `every`-th.
    """
    whole = file.read_bytes()
    found = []
    value = checksums.opened(json.loads(whole), about)
    if file.parent.name == "profile":
        value = {
            key: value[key]
            for key in (
                "rows",
                "wall_s",
                "spans",
                "spans_left_out",
                "machine",
                "threads",
                "precision",
            )
        }
    for wrong in sampled([one for one in spoiled(value) if isinstance(one, (dict, list))], every):
        file.write_text(json.dumps(checksums.sealed(wrong, about)), encoding="utf-8")
        try:
            read_all(run)
        except PrunedgeError as error:
            if str(file) not in str(error) or "\n" in str(error):
                found.append(f"{json.dumps(wrong)[:300]}: {error}")
        except Exception as error:
            found.append(f"{json.dumps(wrong)[:300]}: {error!r}")
    file.write_bytes(whole)
    return found


def sampled(wrongs: Sequence[Any], every: int) -> Sequence[Any]:
    """Each `every`-th, which has each kind of mistake; all of a short list."""
    return wrongs if len(wrongs) <= SHORT else wrongs[::every]


NAMES = (
    "environment.json",
    "engine.json",
    "test.json",
    "stop.json",
    "baselines.json",
    "times.json",
    "resumed.json",
    "chain.json",
    "lr.json",
    "profile/profile.json",
)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("undrawn")
def test_wrong_values_in_a_record(copied: Callable[[str], Path], name: str, every: int) -> None:
    run = copied("run")
    sign = sign_in((run / "config.toml").read_text(encoding="utf-8"))
    about = name if name.startswith("profile/") else f"{sign} {name}"
    assert not unnoticed(run, run / name, about, every)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.usefixtures("undrawn")
def test_wrong_values_in_the_history(copied: Callable[[str], Path], every: int) -> None:
    run = copied("start")
    sign = sign_in((run / "config.toml").read_text(encoding="utf-8"))
    file = run / "history.jsonl"
    whole = file.read_bytes()
    first, *others = whole.decode().splitlines()
    value = checksums.opened(json.loads(first), f"{sign} history.jsonl")

    wrongs = [
        *sampled([*spoiled({key: value[key] for key in value if key != "format"})], every),
        {**value, "accepted": False},
    ]
    wrongs += [
        {**value, "only_answer": 2},
        {**value, "largest": 7},
        {**value, "correct": "9:ff"},
        {**value, "macs": 0},
    ]
    found = []
    for wrong in wrongs:
        line = json.dumps(checksums.sealed({"format": 1, **wrong}, f"{sign} history.jsonl"))
        file.write_text("".join(f"{text}\n" for text in (line, *others)), encoding="utf-8")
        try:
            read_all(run)
        except PrunedgeError as error:
            if str(run) not in str(error) or "\n" in str(error):
                found.append(f"{line[:300]}: {error}")
        except Exception as error:
            found.append(f"{line[:300]}: {error!r}")
    assert not found


BENCH = {
    "bundles": [
        {
            "latency_ms": {"median": 4.0},
            "seconds_total": 1.0,
            "peak_rss_mb": 3.0,
            "runtime": "onnxruntime",
        }
    ]
    * 2,
    "ratios": [{"speedup": {"low": 1.0, "high": 2.0, "blocks": 9}}],
    "device": {"processor": "a board"},
    "threads": 1,
    "batch": 1,
    "patches": 9,
}
WEIGHTS = {
    "pairs": {"a": "b"},
    "how": "by name",
    "fresh": ["c"],
    "left_out": ["d"],
    "converted": "",
    "source": "x.pth",
    "note": "",
}


@pytest.mark.parametrize(("name", "value"), [("bench.json", BENCH), ("weights.json", WEIGHTS)])
@pytest.mark.usefixtures("undrawn")
def test_wrong_values_in_what_comes_later(
    copied: Callable[[str], Path], name: str, value: dict[str, Any]
) -> None:
    run = copied("run")
    opened = open_run(run)
    opened.write(name, value)
    read_all(run)
    assert not unnoticed(run, run / name, f"{opened.sign} {name}", 1)


PLANS = {
    "an index beyond the group": lambda keep: {**keep, "stem": [0, 99]},
    "text for indices": lambda keep: {**keep, "stem": "01"},
    "shares for indices": lambda keep: {**keep, "stem": [0.5, 1.0]},
    "a list": lambda keep: [keep],
    "a group that there is not": lambda keep: {**keep, "nowhere": [0]},
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_another_model(copied: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    run = copied("start")
    file = run / "checkpoints" / "step-001" / "plan.json"
    with edited(run):
        file.write_text(json.dumps(PLANS[name](json.loads(file.read_text()))))
    line = refusal("export", run, "--out", tmp_path / "bundle")
    assert str(file) in line
    assert not (tmp_path / "bundle").exists()
    if name == "a group that there is not":
        assert "nowhere" in refusal("prune", "--resume", run, "--max-steps", 3)


def test_weights_in_whole_numbers(copied: Callable[[str], Path]) -> None:
    run = copied("start")
    file = run / "checkpoints" / "step-001" / "model.safetensors"
    with edited(run):
        tensors = load_file(file)
        tensors["stem.weight"] = tensors["stem.weight"].to(torch.int32)
        save_file(tensors, file)
    with pytest.raises(PrunedgeError, match=r"stem\.weight"):
        open_run(run).load()


def test_more_classes_than_the_model_gives(copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("start")
    with edited(run):
        config = run / "config.toml"
        config.write_text(
            config.read_text().replace(
                "tests.runs.test_run:small", "tests.runs.test_wrong_values:any_number"
            )
        )
        engine = json.loads((run / "engine.json").read_text())
        (run / "engine.json").write_text(
            json.dumps({**engine, "classes": ["crack", "rust", "sound"]})
        )
    line = refusal("export", run, "--out", tmp_path / "bundle", "--trust-code")
    assert "engine.json" in line
    assert "3 classes" in line


def any_number(num_classes: int) -> torch.nn.Module:
    """The model of the runs, with a head for any number of classes."""
    model = small(2)
    model.head = torch.nn.Linear(10, num_classes)
    return model


@pytest.mark.parametrize("values", [{"links": []}, {"epochs": "three"}])
def test_a_chain_that_is_none_ends_no_command(
    copied: Callable[[str], Path], values: dict[str, Any]
) -> None:
    run = copied("run")
    with edited(run):
        file = run / "chain.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    for words in (
        ["show", run],
        ["prune", "--resume", run, "--max-steps", 3],
        ["prune", "--from", run, "--out", run.with_name("on")],
    ):
        assert "chain.json" in refusal(*words)


def test_an_unsealed_profile(copied: Callable[[str], Path]) -> None:
    run = copied("run")
    (run / "profile" / "profile.json").write_text('{"rows": []}')
    assert "profile.json" in refusal("show", run, "--json")
