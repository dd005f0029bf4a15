"""Going on with a run under other orders: applied where that means something, refused by name elsewhere, and never forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from prunedge.config import RunConfig
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import PrunedgeError, RunError
from prunedge.pruning.policy import Continue, Finished, StopPolicy, Verdict
from prunedge.report import write_report
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.new import create
from prunedge.runs.resumption import changes_of, note_computing
from prunedge.runs.run import Run, open_run
from prunedge.train import make_engine
from tests.pruning.test_loop import history
from tests.small_runs import essence, small_recipe
from tests.tampering import edited, rewrite_history
from tests.tiny_images import write_tiny

MISTAKE = {"label": "crack", "baseline": "crack", "best": "sound", "p_baseline": 0.9, "p_best": 1.0}
SHOWN = {
    "label": "crack",
    "part": "",
    "is_damaged": True,
    "is_called": False,
    "was_called": None,
    "probability": 0.1,
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small_recipe(write_tiny(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def short(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute.prune(recipe, tmp_path_factory.mktemp("runs") / "short").path


@pytest.fixture
def ended(short: Path, tmp_path: Path) -> Path:
    """A run that has ended after one step, to be gone on with."""
    return Path(shutil.copytree(short, tmp_path / "run"))


class Heard(list[str]):
    def watch(self) -> Callbacks:
        return Callbacks(on_line=self.append)


def test_an_ended_run_with_more_steps_ends_as_one_that_had_them_from_the_beginning(
    ended: Path, recipe: RunConfig, tmp_path: Path
) -> None:
    heard = Heard()
    first_look = open_run(ended).test()
    run = execute.resume(ended, heard.watch(), {"max_steps": 3})
    whole = execute.prune(recipe.with_values(**{"max_steps": 3}), tmp_path / "whole")
    assert essence(run) == essence(whole)
    assert len(run.steps()) == 4
    for name, value in whole.load().state_dict().items():
        assert torch.equal(run.load().state_dict()[name], value), name
    test, once = run.test(), whole.test()
    assert test is not None
    assert once is not None
    assert test["best"] == once["best"]
    assert test["looks_before"] == 1
    assert once["looks_before"] == 0
    assert RunConfig.from_toml(ended / "config.toml").stop.max_steps == 3
    assert run.resumptions() == [{"after_step": 1, "changes": {"max_steps": [1, 3]}}]
    assert run.looks_before() == 1
    assert run.summary()["test_looks_before"] == 1
    assert open_run(ended).read("earlier/1/test.json") == first_look
    assert heard[0] == "max steps: 3 instead of 1"
    assert "has been looked at before" in heard[1]
    assert "looked at 1 time before" in pruned(run)
    assert "max steps was 1 and is 3" in pruned(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "looked at 1 time before the run went on" in page
    assert "measured once" not in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_drop": 100.5}, r"max_drop= would change nothing .*\(1 step done \(max_steps=\)\)"),
        ({"extra_rounds": 4, "confidence": 0.6}, "confidence=, extra_rounds= would change nothing"),
        ({"target_macs": 0.01}, "target_macs= would change nothing"),
    ],
)
def test_what_would_change_nothing_any_more_is_refused(
    ended: Path, changes: dict[str, object], words: str
) -> None:
    """The run's settings stay those that made it."""
    heard = Heard()
    config = (ended / "config.toml").read_text()
    before = open_run(ended).test()
    with pytest.raises(RunError, match=f"{words}.*: change what ended it as well, or start a new"):
        execute.resume(ended, heard.watch(), changes)
    run = open_run(ended)
    assert run.test() == before
    assert run.resumptions() == []
    assert (ended / "config.toml").read_text() == config
    assert heard == []


def test_a_polished_run_is_polished_anew_where_another_number_of_epochs_is_asked_for(
    recipe: RunConfig, tmp_path: Path
) -> None:
    """It ends in the model of a run that was polished so from the beginning."""
    run = execute.prune(recipe.with_values(polish=1), tmp_path / "run")
    config = (run.path / "config.toml").read_text()
    with pytest.raises(RunError, match=r"polish= would change nothing any more"):
        execute.resume(run.path, None, {"polish": 0})
    with pytest.raises(RunError, match=r"max_drop=, polish= would change nothing any more"):
        execute.resume(run.path, None, {"polish": 0, "max_drop": 100.5})
    assert (run.path / "config.toml").read_text() == config

    with pytest.raises(RunError, match=r"extra_rounds= would change nothing any more"):
        execute.resume(run.path, None, {"polish": 3, "extra_rounds": 4})
    again = execute.resume(run.path, None, {"polish": 3})
    assert [step.epochs for step in again.steps() if step.is_polish] == [1, 3]
    whole = execute.prune(recipe.with_values(polish=3), tmp_path / "whole")
    last = again.steps()[-1]
    assert last.metrics == whole.steps()[-1].metrics
    # No worse than the step, and than the shorter polish, or else taken back.
    assert last.accepted == (last.metric_after >= again.steps()[-2].metric_after)
    assert again.read("stop.json")["keep"] == again.best().index
    assert again.looks_before() == 1


def test_a_run_of_which_nothing_can_be_pruned_keeps_its_settings(
    ended: Path, recipe: RunConfig
) -> None:
    with edited(ended):
        rewrite_history(ended, lambda record: record | {"only_answer": 0})
    (ended / "test.json").unlink()
    config = (ended / "config.toml").read_text()
    with pytest.raises(PrunedgeError, match="for every validation image"):
        execute.resume(ended, None, {"max_steps": 3})
    assert (ended / "config.toml").read_text() == config


def test_a_run_that_was_cut_off_after_its_search_goes_on_with_it(
    recipe: RunConfig, tmp_path: Path
) -> None:
    """More steps take effect also where the polish had been made and the test had not."""
    run = execute.prune(recipe.with_values(polish=1), tmp_path / "run")
    (run.path / "test.json").unlink()
    with pytest.raises(RunError, match="max_drop= would change nothing any more"):
        execute.resume(run.path, None, {"max_drop": 100.5})
    again = execute.resume(run.path, None, {"max_steps": 2})
    assert [step.is_polish for step in again.steps()] == [False, False, True, False, True]
    assert again.looks_before() == 0


def test_where_nothing_was_polished_the_reason_that_it_ended_is_written_once(
    recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    finish = Run.finish

    def noted(run: Run, stop: Finished) -> None:
        written.append(stop)
        finish(run, stop)

    monkeypatch.setattr(Run, "finish", noted)
    execute.prune(recipe, tmp_path / "run")
    assert len(written) == 1


def test_what_was_taken_back_counts_no_more_where_the_rule_is_looser(
    recipe: RunConfig, tmp_path: Path
) -> None:
    """A run that gave up after three halvings goes on with its whole step when more may be lost."""
    strict = recipe.with_values(
        **{
            "max_drop": 0.0,
            "extra_rounds": 0,
            "max_steps": None,
            "finetune_lr": 1e-9,
            "step_ratio": 0.8,
            "max_ratio": 0.9,
        }
    )
    run = execute.prune(strict, tmp_path / "run")
    assert "even a step of" in run.read("stop.json")["reason"]
    done = len(run.steps())
    again = execute.resume(run.path, None, {"max_drop": 100.0, "max_steps": done})
    assert RunConfig.from_toml(run.path / "config.toml").stop.judged_from == done
    assert len(again.steps()) == done + 1
    assert again.steps()[-1].fraction_asked == 0.8
    same = execute.resume(run.path, None, {"max_steps": done + 1})
    assert RunConfig.from_toml(run.path / "config.toml").stop.judged_from == done
    assert len(same.steps()) >= done + 1


def test_a_run_whose_smaller_steps_would_be_the_same_has_ended_for_good(
    recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that may leave goes at the first step: none of its halves is another."""
    worse = Verdict(accepted=False, keeps_rule=False, reason="much worse")
    strict = recipe.with_values(
        max_drop=0.0,
        extra_rounds=0,
        max_steps=None,
        step_ratio=0.8,
        round_to=5,
        ignore=["stem", "a"],
    )
    with monkeypatch.context() as patched:
        patched.setattr(StopPolicy, "accepts", lambda *args: worse)
        run = execute.prune(strict, tmp_path / "run")
    assert len(run.steps()) == 2
    assert "even a step of" in run.read("stop.json")["reason"]
    with pytest.raises(RunError, match=r"max_steps= would change nothing any more"):
        execute.resume(run.path, None, {"max_steps": 5})
    again = execute.resume(run.path, None, {"max_drop": 100.0, "max_steps": 2})
    assert [step.accepted for step in again.steps()] == [True, False, True]


def test_an_ended_run_is_polished_when_that_is_asked_for_later(
    ended: Path, recipe: RunConfig, tmp_path: Path
) -> None:
    run = execute.resume(ended, None, {"polish": 2})
    whole = execute.prune(recipe.with_values(**{"polish": 2, "max_steps": 1}), tmp_path / "whole")
    assert [step.is_polish for step in run.steps()] == [False, False, True]
    assert essence(run) == essence(whole)
    assert run.looks_before() == 1
    stop = run.read("stop.json")
    assert stop["keep"] == run.best().index
    # The search goes on from what was not polished, as if it had never been.
    further = execute.resume(ended, None, {"max_steps": 2})
    steps = further.steps()
    assert "gone on with after the polish of step 1: max steps was 1 and is 2" in pruned(further)
    page = write_report(further).read_text(encoding="utf-8")
    assert "Gone on with after the polish of step 1: max steps 1 → 2" in page
    assert "<td>polish of 1</td>" in page
    assert "<td>the result</td>" in page
    assert [step.start for step in steps][:4] == [None, 0, 1, 1]
    # A polish between them is none of the steps that are counted.
    assert [step.number for step in steps][:4] == [0, 1, 1, 2]
    assert further.step_numbered(2).index == 3
    assert "step 2 of 2" in pruned(further)
    assert "step 2 of 2" in page.lower()
    with pytest.raises(RunError, match=r"no model is kept of step 3 .*model: 0, 1, 2"):
        further.step_numbered(3)
    two = execute.prune(recipe.with_values(**{"max_steps": 2, "polish": 2}), tmp_path / "two")
    assert steps[3].kept == two.steps()[2].kept
    assert steps[3].metrics == two.steps()[2].metrics
    for name, value in two.load().state_dict().items():
        assert torch.equal(further.load().state_dict()[name], value), name


def test_a_history_without_numbers_is_counted(ended: Path) -> None:
    execute.resume(ended, None, {"polish": 1})
    execute.resume(ended, None, {"max_steps": 2})
    with edited(ended):
        rewrite_history(
            ended, lambda record: {key: x for key, x in record.items() if key != "number"}
        )
    found = [(step.number, step.is_polish) for step in open_run(ended).steps()]
    assert found[:4] == [(0, False), (1, False), (1, True), (2, False)]


def test_decide_counts_the_steps_that_this_rule_has_taken_back() -> None:
    steps = history(True, False, False, False, False)
    assert isinstance(StopPolicy(ACCURACY, step_ratio=0.4).next_action(steps), Finished)
    assert StopPolicy(ACCURACY, step_ratio=0.4, judged_from=6).next_action(steps) == Continue(0.4)
    assert StopPolicy(ACCURACY, step_ratio=0.4, judged_from=4).next_action(steps) == Continue(
        1 - 0.6**0.25
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"confidence": 2.0}, "confidence"),
        ({"target_latency": 5.0}, "target_latency= needs device="),
    ],
)
def test_orders_that_no_recipe_allows_are_refused(
    ended: Path, changes: dict[str, object], words: str
) -> None:
    before = (ended / "config.toml").read_text()
    with pytest.raises(PrunedgeError, match=words):
        execute.resume(ended, None, changes)
    assert (ended / "config.toml").read_text() == before
    assert open_run(ended).test() is not None


def test_orders_against_what_the_run_has_done_are_refused(ended: Path) -> None:
    run = execute.resume(ended, None, {"max_steps": 2})
    with pytest.raises(RunError, match=r"max_steps=1: 2 steps are done already"):
        execute.resume(ended, None, {"max_steps": 1})
    worse = run.steps()[0].metric_after - 0.2
    with edited(ended):
        rewrite_history(
            ended, lambda record: record | ({"metric_after": worse} if record["index"] == 1 else {})
        )
    with pytest.raises(
        RunError, match=r"step 1, which this run has kept, breaks the changed rule .*-20.00 points"
    ):
        execute.resume(ended, None, {"max_drop": 5.0})


def test_several_fixed_values_are_named_at_once(ended: Path) -> None:
    run = open_run(ended)
    with pytest.raises(
        RunError, match=r"--criterion, --from can't change in a run that has begun .*prune --from"
    ):
        changes_of(run, {"criterion": "random", "start": "/elsewhere", "max_drop": 1.0}, "prune")
    assert changes_of(run, {"criterion": "taylor", "max_steps": 5, "max_drop": 100.0}, "prune") == {
        "max_steps": 5
    }


def test_images_that_moved_are_found_in_their_new_place(recipe: RunConfig, tmp_path: Path) -> None:
    class CutOff(Exception):
        pass

    def cut(step: object) -> None:
        raise CutOff

    old, new, other = tmp_path / "old", tmp_path / "new", tmp_path / "other"
    shutil.copytree(recipe.data.path, old)
    with pytest.raises(CutOff):
        execute.prune(
            recipe.with_values(**{"data": str(old)}),
            tmp_path / "run",
            Callbacks(on_step=cut),
        )
    old.rename(new)
    write_tiny(other, seed=5)
    with pytest.raises(RunError, match="are not those that this run began with"):
        execute.resume(tmp_path / "run", None, {"data": str(other)})
    heard = Heard()
    run = execute.resume(tmp_path / "run", heard.watch(), {"data": str(new)})
    assert run.config.data.path == str(new)
    assert len(run.steps()) == 2
    assert heard[0] == f"data: {new} instead of {old}"
    again = new.rename(tmp_path / "again")
    shown = {"path": f"{new}/crack/000.png", **SHOWN}
    mistake = {"path": f"{new}/crack/000.png", **MISTAKE}
    told = {"mistakes": [mistake], "wrong": [shown], "borderline": [shown, shown]}
    run.write("test.json", {**(run.test() or {}), **told})
    moved = execute.resume(tmp_path / "run", None, {"data": str(again)})
    test = moved.test() or {}
    for name, count in (("mistakes", 1), ("wrong", 1), ("borderline", 2)):
        assert [one["path"] for one in test[name]] == [f"{again}/crack/000.png"] * count


def test_a_cut_off_run_takes_other_orders_before_its_end(recipe: RunConfig, tmp_path: Path) -> None:
    create(tmp_path / "run", recipe)
    run = execute.resume(tmp_path / "run", None, {"max_steps": 2, "extra_rounds": 0})
    assert len(run.steps()) == 3
    assert run.looks_before() == 0
    assert (run.test() or {})["looks_before"] == 0


def test_controls_are_trained_anew_for_the_new_result(recipe: RunConfig, tmp_path: Path) -> None:
    run = execute.prune(recipe.with_values(**{"baseline": ["scratch"]}), tmp_path / "run")
    before = run.read("baselines.json")["scratch"]["epochs"]
    again = execute.resume(run.path, None, {"max_steps": 2})
    assert again.read("baselines.json")["scratch"]["epochs"] > before


def test_killed_between_the_orders_and_the_recipe_the_run_is_tested_again_as_it_was(
    ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.runs import resumption

    class Killed(Exception):
        pass

    def killed(run: object, recipe: object) -> None:
        raise Killed

    before = open_run(ended).test()
    assert before is not None
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(resumption, "write_config", killed)
        execute.resume(ended, None, {"max_steps": 3})
    run = execute.resume(ended)
    test = run.test()
    assert test is not None
    assert len(run.steps()) == 2
    assert test["best"] == before["best"]
    assert test["looks_before"] == 1


def test_another_number_of_threads_is_said_and_noted(
    recipe: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class CutOff(Exception):
        pass

    def cut(step: object) -> None:
        raise CutOff

    heard = Heard()
    with pytest.raises(CutOff):
        execute.prune(recipe, tmp_path / "run", Callbacks(on_step=cut, on_line=heard.append))
    run = open_run(tmp_path / "run")
    saves, rate = heard  # the rest is said once, with the result
    assert saves.startswith("a step saves 30% of the estimated milliseconds of an image")
    assert rate == "learning rate 0.02: the usual one from random weights"
    assert run.computed_with().startswith("computed with 1 thread, 1 process, precision 32, on ")
    assert run.computed_with().endswith(
        "another number of threads or processes, precision or processor gives other weights"
    )
    torch.set_num_threads(2)
    try:
        again = execute.resume(tmp_path / "run")
    finally:
        torch.set_num_threads(1)
    assert (
        "began with 1 threads; with 2 the result may differ: another number gives other weights"
        in caplog.text
    )
    assert again.resumptions() == [{"after_step": 0, "changes": {"threads": [1, 2]}}]
    assert again.computed_with().startswith(
        "computed with 1 thread (2 threads after step 0), 1 process, "
    )
    assert again.computed_with() in pruned(again)
    assert again.computed_with() in write_report(again).read_text(encoding="utf-8")
    computing = again.summary()["computing"]
    assert (computing["threads"], computing["processes"], computing["precision"]) == (
        1,
        1,
        "32",
    )
    assert computing["processor"]
    assert computing["accelerator"] == make_engine("32").accelerator


def test_a_run_that_began_on_a_gpu_names_it_and_says_when_it_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    run = create(tmp_path / "run", RunConfig.make("test", data="images", model="resnet18"), "train")
    began = {
        "threads": 1,
        "processes": 1,
        "precision": "32",
        "processor": "Xeon",
        "accelerator": "NVIDIA H200",
    }
    began |= {"fingerprint": "0", "classes": ["crack", "sound"]}
    run.write("engine.json", began)
    assert ", on NVIDIA H200: " in run.computed_with()
    assert note_computing(run, 1, 1, "NVIDIA H200") == []
    (said,) = note_computing(run, 1, 1, None)
    assert (
        said
        == "this run began on NVIDIA H200; on the processor the result may differ: another device gives other weights"
    )
    run.write("engine.json", began | {"accelerator": None})
    (said,) = note_computing(run, 1, 1, "NVIDIA H200")
    assert said.startswith("this run began on the processor; on NVIDIA H200 ")
    assert ", on Xeon: " in run.computed_with()
