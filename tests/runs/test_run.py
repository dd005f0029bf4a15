"""Run folders: what is kept comes back the same, and whatever is cut off goes on to the same end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from prunedge.config import RunConfig
from prunedge.edge.tasks.classification import METRICS
from prunedge.errors import PrunedgeError, RunError
from prunedge.pruning.steps import Step
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.new import create
from prunedge.runs.run import open_run
from tests.small_runs import essence, small_recipe
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small_recipe(write_tiny(tmp_path_factory.mktemp("images")), max_drop=60.0, max_steps=3)


def small(num_classes: int) -> torch.nn.Module:
    from tests.small_models import Residual

    assert num_classes == 2
    return Residual()


def normless(num_classes: int) -> torch.nn.Module:
    from tests.small_models import Plain

    assert num_classes == 2
    return Plain()


@pytest.fixture(scope="module")
def finished(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    execute.prune(recipe, out)
    return out


def test_the_history_tells_what_happened(finished: Path) -> None:
    run = open_run(finished)
    steps = run.steps()
    assert [step.index for step in steps] == [0, 1, 2, 3]
    summary = run.summary()
    assert set(summary["baseline"]) == {*METRICS, "macs", "params", "size_mb"}
    assert summary["best"]["macs"] < summary["baseline"]["macs"]
    assert set(summary["test"]) == {"baseline", "best"}
    assert summary["test"]["best"]["n"] == 12
    assert summary["stop"] == "3 steps done (max_steps=)"
    wanted = {
        "removed",
        "channels",
        "metrics_before",
        "metrics",
        "macs",
        "params",
        "seconds_rank",
        "seconds_finetune",
        "kept",
        "accepted",
    }
    assert wanted <= set(summary["steps"][1])
    json.dumps(summary)


def test_what_was_left_to_be_chosen_stands_in_the_run(recipe: RunConfig, tmp_path: Path) -> None:
    config = recipe.with_values(batch_size=None, cost=None, max_steps=1, polish=0)
    run = execute.prune(config, tmp_path / "run")
    assert run.config.train.batch_size == 8
    assert run.config.prune.cost == "latency"
    assert open_run(tmp_path / "run").config == run.config


def test_models_come_back_with_their_sizes(finished: Path) -> None:
    run = open_run(finished)
    for step in run.steps():
        model = run.load(step.index)
        assert sum(p.numel() for p in model.parameters()) == step.params
        assert not model.training
    with pytest.raises(RunError, match="steps with a model: 0, 1, 2, 3"):
        run.load(9)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_run_cut_off_after_a_step_ends_the_same(
    finished: Path, recipe: RunConfig, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(Exception):
        pass

    def cut(step: Step) -> None:
        if step.index == after:
            raise CutOff

    out = tmp_path / "cut"
    with pytest.raises(CutOff):
        execute.prune(recipe, out, Callbacks(on_step=cut))
    assert len(open_run(out).steps()) == after + 1
    execute.resume(out)
    assert essence(out) == essence(finished)
    for name, value in open_run(finished).load().state_dict().items():
        assert torch.equal(open_run(out).load().state_dict()[name], value), name
    assert open_run(out).test() == open_run(finished).test()


def test_a_checkpoint_without_its_line_is_made_again(
    finished: Path, recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.runs import history

    class CutOff(Exception):
        pass

    write = history.write_text

    def torn(file: Path, text: str) -> None:
        if file.name == "history.jsonl" and len(text.splitlines()) == 3:
            raise CutOff
        write(file, text)

    out = tmp_path / "torn"
    with monkeypatch.context() as patched, pytest.raises(CutOff):
        patched.setattr(history, "write_text", torn)
        execute.prune(recipe, out)
    assert (out / "checkpoints/step-002").exists()
    assert len(open_run(out).steps()) == 2
    execute.resume(out)
    assert essence(out) == essence(finished)


def test_a_finished_run_is_not_run_again(finished: Path) -> None:
    before = (finished / "history.jsonl").stat().st_mtime_ns
    execute.resume(finished)
    assert (finished / "history.jsonl").stat().st_mtime_ns == before


def test_a_run_can_start_from_another(finished: Path, recipe: RunConfig, tmp_path: Path) -> None:
    more = recipe.with_values(**{"start": str(finished), "max_steps": 1})
    run = execute.prune(more, tmp_path / "more")
    assert run.steps()[0].params == open_run(finished).best().params
    assert run.best().params < run.steps()[0].params
    composed = run.state(1).plan
    assert max(composed.keep["a"]) <= 5  # indices of the very first model


def test_a_limit_that_decides_instead_of_the_scores_is_shown(
    recipe: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prunedge.cli.show import show
    from prunedge.report import write_report

    execute.prune(
        recipe.with_values(
            **{
                "cost": "channels",
                "step_ratio": 0.5,
                "max_ratio": 0.5,
                "max_steps": 1,
                "criterion": "random",
            }
        ),
        tmp_path / "out",
    )
    line = "the limit max_ratio=0.5 decides in 3 of 3 groups"
    show(tmp_path / "out")
    assert f"step 1: {line}" in capsys.readouterr().out
    assert f"Step 1: {line}" in write_report(open_run(tmp_path / "out")).read_text(encoding="utf-8")


def test_changed_images_are_noticed(recipe: RunConfig, tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "images", seed=1)
    out = tmp_path / "run"
    execute.train(recipe.with_values(**{"data": str(root), "train_epochs": 1}), out)
    shutil.copy(root / "crack" / "000.png", root / "crack" / "new.png")
    with pytest.raises(RunError, match="have changed"):
        execute.resume(out)


def test_folders_that_are_no_runs(tmp_path: Path, finished: Path, recipe: RunConfig) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        open_run(tmp_path)
    with pytest.raises(RunError, match="--resume"):
        create(finished, recipe)


def test_a_recipe_lists_every_mistake_at_once() -> None:
    with pytest.raises(
        PrunedgeError,
        match=r"unknown key 'epoch' \(did you mean 'epochs'\?\); step_ratio.*max_drop",
    ):
        RunConfig.make("here", data="d", model="m", step_ratio=2, max_drop=-1, epoch=3)


def test_a_recipe_survives_its_file(recipe: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(recipe.to_toml())
    assert RunConfig.from_toml(tmp_path / "config.toml") == recipe


ODD = [
    "photos 📷/🧱",
    'quo"te',
    "back\\slash",
    "tab\tand\nnewline",
    "del\x7f",
    "bell\x07",
    "\u2028",
    "é\u0301",
    "\U0010ffff",
    "C1 \x85\x9f",
    "#",
    "'''",
]


@pytest.mark.parametrize("name", ODD)
def test_any_text_survives_a_recipe_and_its_checksum(
    recipe: RunConfig, tmp_path: Path, name: str
) -> None:
    asked = recipe.with_values(data=f"/{name}", ignore=[name], group_by=name)
    run = create(tmp_path / "run", asked)
    found = open_run(run.path)
    assert (found.config.data.path, found.config.prune.ignore, found.config.data.group_by) == (
        f"/{name}",
        [name],
        name,
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_drop": float("inf")}, r"max_drop=inf: no drop"),
        ({"lr": float("inf")}, r"lr=.*finite"),
        ({"lr": float("nan")}, r"lr=.*finite"),
        ({"macs_penalty": float("inf")}, r"macs_penalty=.*finite"),
        ({"step_ratio": float("nan")}, r"step_ratio=.*finite"),
        ({"target_macs": float("-inf")}, r"target_macs=.*finite"),
        ({"seed": 2**32}, r"seed=4294967296: .*less than or equal to 4294967295"),
        ({"seed": -1}, r"seed=-1: .*greater than or equal to 0"),
        ({"data": "bytes-\udcff"}, r"data is not UTF-8"),
        ({"ignore": ["\ud83d"]}, r"ignore is not UTF-8"),
    ],
)
def test_what_a_recipe_can_not_hold_is_refused_before_anything_is_written(
    recipe: RunConfig, values: dict[str, object], words: str
) -> None:
    with pytest.raises(PrunedgeError, match=words):
        RunConfig.make("here", **{**recipe.flat(), **values})


def test_the_largest_seed_is_one(recipe: RunConfig, tmp_path: Path) -> None:
    asked = recipe.with_values(
        **{"seed": 2**32 - 1, "baseline": ["random"], "train_epochs": 8, "max_steps": 1}
    )
    run = execute.prune(asked, tmp_path / "run")
    assert open_run(run.path).config.data.seed == 2**32 - 1
    assert run.test() is not None
