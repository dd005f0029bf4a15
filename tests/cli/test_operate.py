"""`--operate`: a threshold of each model and of each form of its bundle, and what then goes by it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import prunedge as pe
from prunedge.cli.app import main
from prunedge.edge.bundle import open_bundle
from prunedge.runs import execute
from prunedge.runs.run import Run, open_run
from tests.graded import DEGREES, write_degrees
from tests.refusals import refusal
from tests.several_labels import write_several
from tests.small_runs import small_recipe
from tests.tiny_images import write_tiny


def run_command(*words: object) -> None:
    """Run a verb here, which ends well."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 0


RULES = {"classification": "recall >= 0.9", "ordinal": "alarms <= 0.3", "multilabel": "cost"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("operated")
    data = {
        "classification": write_tiny(root / "classes"),
        "ordinal": write_degrees(root / "degrees"),
        "multilabel": write_several(root / "several"),
    }
    made = {}
    for task, place in data.items():
        changes = {"task": task, "operate": RULES[task]}
        if task == "multilabel":
            changes["costs"] = "miss=5,alarm=1"
        if task == "ordinal":
            changes["order"] = ",".join(DEGREES)
        if task != "classification":
            changes |= {"model": "test_resnet", "size": 32}
        made[task] = execute.prune(small_recipe(place, **changes), root / task)
    return made


@pytest.mark.parametrize("task", RULES)
def test_each_model_of_a_run_has_a_decision_of_its_own(runs: dict[str, Run], task: str) -> None:
    decisions = (open_run(runs[task].path).test() or {})["decisions"]
    assert set(decisions) == {"baseline", "best"}
    for record in decisions.values():
        assert record["rule"].startswith(RULES[task].split()[0])
        found = record["validation"]
        if task == "classification":
            assert found["found"] >= 0.9 * (found["found"] + found["missed"])
        if task == "ordinal":
            assert found["alarms"] <= 0.3 * (found["alarms"] + found["quiet"])
        tested = record["test"]
        curve = record["curve"]
        assert curve["found"][-1] == tested["found"] + tested["missed"]
        assert curve["alarms"][-1] == tested["alarms"] + tested["quiet"]
        assert record["unit"] == ("label" if task == "multilabel" else "image")
        if task != "multilabel":
            assert sum(map(sum, record["confusion"])) == sum(tested.values())
            assert record["cost"] is None
            continue
        total = 5 * tested["missed"] + tested["alarms"]
        assert record["cost"]["value"] == pytest.approx(total / sum(tested.values()))
        assert record["cost"]["low"] <= record["cost"]["value"] <= record["cost"]["high"]


@pytest.mark.parametrize("task", RULES)
def test_a_bundle_decides_as_the_run_s_model(
    runs: dict[str, Run], task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[task]
    bundle = tmp_path / "bundle"
    # Calibrating integers takes as long as all the rest: once is enough.
    targets = ["onnx", "onnx-int8"] if task == "classification" else ["onnx"]
    run_command(
        "export",
        str(run.path),
        "--out",
        str(bundle),
        "--format",
        ",".join(targets),
        "--max-int8-drop",
        "90%",
    )
    capsys.readouterr()
    opened = open_bundle(bundle)
    of_run = (run.test() or {})["decisions"]["best"]
    decision = opened.manifest.task.decision
    assert decision is not None
    assert decision.threshold == pytest.approx(of_run["threshold"], abs=1e-4)
    assert decision.temperature == pytest.approx(of_run["temperature"], rel=1e-3)
    for target in targets:
        own = opened.seen_as(target).manifest.task.decision
        assert own is not None
        assert own.rule == decision.rule

    data = run.config.data.path
    for place, runtime in ((run.path, "torch"), *((bundle, target) for target in targets)):
        words = ["evaluate", str(place), str(data), "--json", "--resamples", "50"]
        run_command(*words, "--runtime", runtime)
        result = json.loads(capsys.readouterr().out)
        told = result["decision"]
        assert told["rule"] == decision.rule
        damaged = told["found"] + told["missed"]
        assert told["recall"]["value"] == pytest.approx(told["found"] / damaged)
        assert told["recall"]["low"] <= told["recall"]["value"] <= told["recall"]["high"]


def test_answers_and_inspections_go_by_the_threshold(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["classification"]
    bundle = tmp_path / "bundle"
    words = ["--operate", "alarms <= 0", "--out", str(bundle)]
    run_command("export", str(run.path), *words)
    said = " ".join(capsys.readouterr().out.split())
    manifest = open_bundle(bundle).manifest
    figures = manifest.metrics["decision"]
    assert figures["alarms"] == 0
    assert "damage from a probability of" in said
    recall = f"on validation data recall {figures['recall']:.1%}, false alarms 0.0%"
    assert recall in said
    decision = manifest.task.decision
    assert decision is not None
    assert decision.rule == "alarms<=0"
    damage = list(decision.damage)

    images = Path(run.config.data.path)
    run_command("predict", str(bundle), str(images), "--out", str(tmp_path / "found.csv"))
    with open(tmp_path / "found.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        probability = sum(float(row[name]) for name in damage)
        assert (row["answer"] in damage) == (probability >= decision.threshold)

    photo = next(images.rglob("*.png"))
    capsys.readouterr()
    run_command("inspect", str(bundle), str(photo))
    assert f"probability of {decision.threshold:.3g} on (alarms<=0" in capsys.readouterr().out
    run_command("inspect", str(bundle), str(photo), "--threshold", "0.7")
    assert "damage from a probability of 0.7 on\n" in capsys.readouterr().out.replace(";", "\n")


def test_the_library_chooses_a_threshold_too(tiny_data: Path, tmp_path: Path) -> None:
    data = pe.load_folder(tiny_data, size=32, costs="miss=9,alarm=1")
    model = pe.build("test_resnet", data.outputs, "none", seed=0)
    bundle = pe.export_bundle(
        model, data, tmp_path / "bundle", model_name="test_resnet", operate="cost"
    )
    decision = bundle.manifest.task.decision
    assert decision is not None
    assert decision.rule == "cost(miss=9,alarm=1)"
    assert bundle.manifest.task.damage.costs == (9.0, 1.0)


def test_names_that_tell_nothing_are_told_by_the_user(tmp_path: Path) -> None:
    place = write_tiny(tmp_path / "images", labels=("brick", "stone"))
    words = ["train", str(place), "--model", "test_resnet", "--weights", "none", "--size", "32"]
    words += ["--train-epochs", "1", "--precision", "32", "--out", str(tmp_path / "run")]
    words[words.index("--train-epochs")] = "--epochs"
    line = refusal(*words, "--operate", "recall >= 0.9")
    assert "nothing tells which of the classes (brick, stone) are damage" in line
    assert "--damage CLASS,..." in line
    assert "no class 'rust'" in refusal(*words, "--damage", "rust")
    run_command(*words, "--operate", "recall >= 0.9", "--damage", "stone", "--metric", "damage_f1")
    run = open_run(tmp_path / "run")
    assert run.config.task.damage == "stone"
    assert 0 <= run.best().metrics["damage_f1"] <= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--operate", "recall"], "recall >= 0.95"),
        (["--operate", "cost"], "--cost miss=50,alarm=1"),
        (["--metric", "cost"], "--cost miss=50,alarm=1"),
        (["--cost", "miss=50"], "miss=50,alarm=1"),
        (
            ["--operate", "recall >= 0.9", "--task", "regression"],
            ": inspect takes the num",
        ),
        (["--operate", "cost", "--cost", "miss=0,alarm=1"], "costs must be finite, and above 0"),
    ],
)
def test_rules_that_can_not_be_kept_are_refused_before_anything_is_trained(
    tiny_data: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    run = tmp_path / "run"
    assert told in refusal("prune", tiny_data, "--model", "resnet18", "--out", run, *words)
    assert not run.exists()


def test_thresholds_of_a_decision_survive_a_second_pruning(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    """`--from` inherits what the images are judged by."""
    start = runs["classification"].path
    out = tmp_path / "on"
    run_command(
        "prune", "--from", str(start), "--out", str(out), "--max-steps", "1", "--polish", "0"
    )
    assert open_run(out).config.task.operate == RULES["classification"]
    assert np.isfinite((open_run(out).test() or {})["decisions"]["start"]["threshold"])


def test_a_run_answers_as_its_bundle_does(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["classification"]
    run_command("export", run.path, "--out", tmp_path / "bundle")
    images = Path(run.config.data.path)
    tables = []
    for number, model in enumerate((run.path, tmp_path / "bundle")):
        out = tmp_path / f"{number}.csv"
        run_command("predict", model, images, "--out", out)
        with open(out, encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for one, other in zip(*tables, strict=True):
        assert one["answer"] == other["answer"]
        assert float(one["crack"]) == pytest.approx(float(other["crack"]), abs=1e-5)


def test_a_wrong_rule_is_named_with_its_option(tiny_data: Path, tmp_path: Path) -> None:
    words = ("prune", tiny_data, "--model", "resnet18", "--out", tmp_path / "run")
    line = refusal(*words, "--operate", "recal >= 0.9")
    assert "--operate recal >= 0.9" in line
    assert 'write "recall >= 0.95"' in line
    assert "from 0 to below 1" in refusal(*words, "--operate", "alarms <= -0.1")
    assert "--cost acts only with" in refusal(
        "export", tmp_path, "--out", tmp_path / "b", "--cost", "miss=5,alarm=1"
    )
