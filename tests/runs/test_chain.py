"""Runs that go on from runs: the rule, the report and the baseline go back to the first model of the chain."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import RunError
from prunedge.models import build
from prunedge.pruning.policy import Finished, StopPolicy
from prunedge.pruning.trainer import Judgement
from prunedge.report import write_report
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.export import write_bundle
from prunedge.runs.load import load
from prunedge.runs.new import create
from prunedge.runs.run import Run, open_run
from prunedge.surgery import save_model
from prunedge.train import evaluate, make_engine
from prunedge.utils.wording import times
from tests.pruning.test_loop import START, history
from tests.small_runs import onward, small_recipe
from tests.tampering import edited
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small_recipe(write_tiny(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def chain(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: a is trained and pruned, b goes on from a, c from b with everything that refers to the first model."""
    root = tmp_path_factory.mktemp("runs")
    execute.prune(recipe, root / "a")
    execute.prune(onward(recipe, root / "a"), root / "b")
    execute.prune(
        onward(recipe, root / "b", distill=0.5, baseline=["random", "scratch"]), root / "c"
    )
    return root


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in mine.items()
    )


def data_of(run: Run, **changes: object) -> images.Dataset:
    values = {key: run.config.flat()[key] for key in ("size", "seed", "folds", "fold")}
    return images.load(run.config.data.path, **{**values, **changes})


def test_the_first_model_of_a_chain_of_three_is_kept_in_each(chain: Path) -> None:
    a, b, c = (open_run(chain / name) for name in "abc")
    assert same(b.load_first(), a.load(0))
    assert same(c.load_first(), a.load(0))
    assert not a.first_file().exists(), "a begins with it"
    found = c.chain()
    assert found is not None
    assert [(Path(link.run).name, link.step) for link in found.links] == [
        ("a", 0),
        ("a", 1),
        ("b", 1),
    ]
    assert len(found.cuts) == 2
    assert found.epochs == 2 + sum(step.epochs for run in (a, b) for step in run.steps()[1:])


def test_every_share_and_the_rule_refer_to_the_first_model(chain: Path) -> None:
    a, c = open_run(chain / "a"), open_run(chain / "c")
    first, start, last = c.first(), c.steps()[0], c.steps()[-1]
    whole = a.steps()[0]
    assert (first.macs, first.params, first.channels) == (whole.macs, whole.params, whole.channels)
    assert first.metric_after == whole.metric_after, "the same images"
    assert 0 < start.fraction_removed == 1 - start.channels / whole.channels < last.fraction_removed
    assert last.original == whole.kept
    gone = 100 * (last.metric_after - first.metric_after)
    assert f"accuracy {gone + 0.0:+.2f} points against the unpruned model's" in last.reason.replace(
        "-0.00", "+0.00"
    )
    assert "against the start's" in last.reason
    assert start.reason.startswith("the start, which was pruned before: ")
    assert first.reason == "the unpruned model"
    assert str(chain) not in (chain / "c" / "history.jsonl").read_text(), (
        "a history is the same wherever its runs lie"
    )


def test_targets_count_from_the_first_model(chain: Path, recipe: RunConfig, tmp_path: Path) -> None:
    b = open_run(chain / "b")
    share = b.best().macs / b.first().macs
    run = execute.prune(
        onward(recipe, chain / "b", target_macs=share * 1.01, max_steps=None), tmp_path / "run"
    )
    assert len(run.steps()) == 1, "the start is there already"
    assert "target reached" in run.read("stop.json")["reason"]


def test_the_policy_of_a_chain_is_broken_by_what_was_lost_in_all() -> None:
    first = replace(START, metric_after=0.95)
    start = replace(START, metric_after=0.93)
    rule = StopPolicy(ACCURACY, max_drop=3.0)
    verdict = rule.accepts(first, Judgement.of_step(replace(START, metric_after=0.91)), [], start)
    assert not verdict.accepted
    assert "-4.00 points against the unpruned model's, -2.00 against the start's" in verdict.reason
    assert rule.accepts(start, Judgement.of_step(replace(START, metric_after=0.91)), []).accepted
    half = replace(rule, target_macs=0.5)
    assert (
        isinstance(half.next_action(history(macs=600), replace(first, macs=1200)), Finished)
        is False
    )
    assert isinstance(
        half.next_action([replace(START, macs=600)], replace(first, macs=1200)), Finished
    )


def test_other_images_measure_the_first_model_anew(
    chain: Path, recipe: RunConfig, tmp_path: Path
) -> None:
    """What another run noted of the first model on its own images is not compared with."""
    others = write_tiny(tmp_path / "others", count=52, seed=9)
    run = execute.prune(onward(recipe, chain / "b", data=str(others)), tmp_path / "run")
    data = data_of(run)
    wanted = evaluate(run.load_first(), data.val, make_engine("32"))
    assert run.first().metric_after == wanted.accuracy
    assert run.first().correct == wanted.correct
    assert len(data.val) != len(data_of(open_run(chain / "a"), folds=None, fold=0).val)


def test_the_test_split_is_answered_by_first_start_and_best(chain: Path) -> None:
    c = open_run(chain / "c")
    data, test = data_of(c), c.test()
    assert test is not None
    assert set(c.summary()["test"]) == {"baseline", "start", "best"}
    for name, model in (
        ("baseline", open_run(chain / "a").load(0)),
        ("start", c.load(0)),
        ("best", c.load()),
    ):
        assert test[name]["accuracy"] == evaluate(model, data.test, make_engine("32")).accuracy, (
            name
        )


def test_controls_go_the_whole_way_from_the_first_model(chain: Path) -> None:
    a, b, c = (open_run(chain / name) for name in "abc")
    baselines = c.read("baselines.json")
    epochs = sum(step.epochs for run in (a, b, c) for step in run.steps()[1:])
    assert baselines["random"]["epochs"] == epochs
    assert baselines["scratch"]["epochs"] == 2 + epochs
    best = c.best()
    assert set(c.test()["baselines"]) == {"random", "scratch"}
    assert best.index == 1


def test_words_page_and_json_show_both_references(
    chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(chain)
    c = open_run(chain / "c")
    said = pruned(c)
    page = write_report(c).read_text(encoding="utf-8")
    for name in ("the first model (a, step 0)", "the start (b, step 1)"):
        assert f"against {name}" in said
        assert f"Against {name}" in page
    whole, best = c.first(), c.best()
    assert f"{times(whole.macs / best.macs)} × less work" in page
    assert ">first, unpruned<" in page
    assert ">start<" in page
    of_steps = page[page.index("Every step") :]
    assert ">unpruned<" not in of_steps[: of_steps.index("</table>")]
    told = c.summary()
    assert [one["tested_as"] for one in told["references"]] == ["baseline", "start"]
    assert told["baseline"]["macs"] == whole.macs
    assert told["references"][1]["step"]["macs"] == c.steps()[0].macs
    json.dumps(told)
    assert "against" not in pruned(open_run(chain / "a")).split("stopped")[0]


def test_the_exported_baseline_is_the_first_model(chain: Path, tmp_path: Path) -> None:
    a, c = open_run(chain / "a"), open_run(chain / "c")
    whole = write_bundle(c, tmp_path / "whole", baseline=True)
    start = write_bundle(c, tmp_path / "start", 0)
    assert same(load(tmp_path / "whole"), a.load(0))
    assert same(load(tmp_path / "start"), c.load(0))
    assert whole.manifest.macs == a.steps()[0].macs
    assert start.manifest.macs == c.steps()[0].macs
    test = c.test()
    assert test is not None
    assert whole.manifest.metrics["test"]["accuracy"] == test["baseline"]["accuracy"]
    assert start.manifest.metrics["test"]["accuracy"] == test["start"]["accuracy"]
    assert json.loads((tmp_path / "whole" / "plan.json").read_text()) == {}
    assert json.loads((tmp_path / "start" / "plan.json").read_text()) != {}


@pytest.mark.slow
def test_a_run_needs_the_one_it_began_from_no_more(
    chain: Path, recipe: RunConfig, tmp_path: Path
) -> None:
    for name in "abc":
        shutil.copytree(chain / name, tmp_path / name)
    b = execute.prune(onward(recipe, tmp_path / "a"), tmp_path / "b2")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b2" / "test.json").unlink()
    again = execute.resume(tmp_path / "b2")
    assert again.test() == open_run(chain / "b").test()
    d = execute.prune(
        onward(recipe, b.path, baseline=["random", "scratch"], distill=0.5), tmp_path / "d"
    )
    assert same(d.load_first(), open_run(chain / "a").load(0))
    write_report(d)


def test_a_start_that_is_gone_before_the_run_began_is_one_clear_line(
    chain: Path, recipe: RunConfig, tmp_path: Path
) -> None:
    shutil.copytree(chain / "a", tmp_path / "a")
    create(tmp_path / "b", onward(recipe, tmp_path / "a"))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(RunError, match="the run that this one was to go on from is gone"):
        execute.resume(tmp_path / "b")


def test_from_a_trained_run_step_0_is_the_unpruned_model(recipe: RunConfig, tmp_path: Path) -> None:
    trained = execute.train(recipe, tmp_path / "trained")
    run = execute.prune(onward(recipe, trained.path), tmp_path / "run")
    assert run.steps()[0].reason == "the unpruned model"
    assert run.references()[0].name.startswith("the unpruned model (")
    assert "trained, step 0" in run.references()[0].name
    assert len(run.references()) == 1
    assert "start" not in run.test()
    assert not run.first_file().exists()
    assert same(run.load_first(), trained.load())


def test_a_start_that_breaks_the_rule_already_is_said(
    chain: Path, recipe: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "b"
    shutil.copytree(chain / "b", copy)
    spoilt, file = open_run(copy).load(), open_run(copy).model_file(1)
    with torch.no_grad():
        spoilt.head.weight.neg_()  # type: ignore[operator,union-attr]
        spoilt.head.bias.neg_()  # type: ignore[operator,union-attr]
    with edited(copy):
        save_model(spoilt, file)
    run = execute.prune(
        onward(recipe, copy, max_drop=0.0, epochs=1, extra_rounds=0, finetune_lr=1e-9),
        tmp_path / "run",
    )
    assert "the start breaks the rule already" in caplog.text
    start = run.steps()[0]
    assert start.metric_after < 0.5
    assert "surely more than 0 below" in start.reason
    assert run.best().index == 0
    assert "no model kept the rule; the start itself lies" in pruned(run)


def test_weights_of_a_chained_run_are_its_first_model(chain: Path) -> None:
    model = build("tests.runs.test_run:small", 2, str(chain / "c"))
    assert same(model, open_run(chain / "a").load(0))
