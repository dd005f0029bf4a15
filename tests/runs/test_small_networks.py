"""Is a small network, taught for as long, better than the pruned one? Taught, kept, timed, and said plainly where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.errors import PrunedgeError, RunError
from prunedge.report import write_report
from prunedge.report.text import pruned
from prunedge.runs import baselines, execute
from prunedge.runs import small as small_module
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.compared import compared
from prunedge.runs.run import Run, open_run
from tests.refusals import refusal
from tests.small_models import Plain
from tests.small_runs import leave_untimed, small_recipe
from tests.tiny_images import write_tiny

NARROW = "tests.runs.test_small_networks:narrow=none"
OTHER = "tests.runs.test_run:normless=none"
SQUEEZENET = (
    Path(__file__).resolve().parents[3] / "shared" / "weights" / "squeezenet1_0-imagenet.pth"
)


def narrow(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    )


def soft(num_classes: int) -> nn.Module:
    return nn.Sequential(narrow(num_classes), nn.Softmax(1))


class ByCount(nn.Module):
    """Goes by its values, which no ONNX graph can."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = narrow(num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        return logits if float(images.sum()) > 0 else 2 * logits


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small_recipe(write_tiny(tmp_path_factory.mktemp("images")))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_untimed(monkeypatch)


@pytest.fixture(scope="module")
def finished(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    asked = recipe.with_values(small=[NARROW, OTHER, NARROW], baseline=["scratch"])
    return execute.prune(asked, tmp_path_factory.mktemp("runs") / "run")


def test_what_is_asked_for_twice_counts_once_and_a_text_that_is_no_network_is_refused(
    recipe: RunConfig,
) -> None:
    assert recipe.with_values(small=["a", "b=none", "a"]).prune.small == ["a", "b=none"]
    for wrong in ("", "=none", "resnet18="):
        with pytest.raises(ValueError, match="MODEL or MODEL=WEIGHTS"):
            recipe.with_values(small=[wrong])


def test_a_small_network_is_taught_for_as_many_epochs_kept_tested_and_timed(finished: Run) -> None:
    records = finished.read("baselines.json")
    assert list(records) == ["scratch", NARROW, OTHER]
    assert {record["epochs"] for record in records.values()} == {
        2 + finished.best().epochs
    }  # of the training and of the step
    parameters = sum(parameter.numel() for parameter in narrow(2).parameters())
    assert records[NARROW]["params"] == parameters
    assert records[NARROW]["macs"] == 7 * 7 * 4 * 27 + 8
    assert records[OTHER]["params"] == sum(one.numel() for one in Plain().parameters())

    test = finished.test()
    assert test is not None
    assert set(test["baselines"]) == {"scratch", NARROW, OTHER}
    times = finished.read("times.json")
    assert set(times["ms"]) == {"baseline", "best", NARROW, OTHER}
    assert (times["address"], times["target"], times["threads"]) == ("local", "onnx", 1)
    for ms in times["ms"].values():
        assert 0 < ms["low"] <= ms["median"] <= ms["high"]


def test_it_is_what_a_training_of_its_own_gives(
    finished: Run, recipe: RunConfig, tmp_path: Path
) -> None:
    epochs = finished.read("baselines.json")[NARROW]["epochs"]
    alone = execute.train(
        recipe.with_values(model=NARROW.removesuffix("=none"), train_epochs=epochs),
        tmp_path / "alone",
    )
    kept = finished.read("baselines.json")[NARROW]["val"]
    assert kept["loss"] == pytest.approx(alone.steps()[0].metrics["loss"], rel=1e-6)


def test_words_page_and_json_show_it_beside_both_models(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.path.parent)
    said = pruned(finished)
    page = write_report(finished).read_text(encoding="utf-8")
    title = "tests.runs.test_small_networks:narrow from random weights"
    for text in (said, page):
        assert f"{title}, taught as long" in text
        assert "timed side by side (" in text
    summary = json.loads(json.dumps(finished.summary()))
    by_name = {each["name"]: each for each in summary["baselines"]}
    assert by_name[NARROW]["network"] == "tests.runs.test_small_networks:narrow"
    assert by_name[NARROW]["ms"] == summary["times"]["ms"][NARROW]
    assert by_name["scratch"]["network"] is None
    assert by_name["scratch"]["ms"] is None
    assert by_name["scratch"]["macs"] == finished.best().macs


def measured(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[[Run], str] = pruned,
    *,
    test: dict[str, float],
    ms: dict[str, float],
) -> str:
    """What is said of a run whose models had these accuracies and medians."""
    records = {"test.json": run.read("test.json"), "times.json": run.read("times.json")}
    for name, accuracy in test.items():
        held = records["test.json"]
        (held if name == "best" else held["baselines"])[name]["accuracy"] = accuracy
    for name, median in ms.items():
        records["times.json"]["ms"][name] = {"median": median, "low": median, "high": median}

    real = Run.read

    def read(self: Run, name: str) -> Any:
        return records.get(name) or real(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "read", read)
        return say(run)


@pytest.mark.parametrize("median", [1.5, 1.6])
def test_the_page_says_it_as_well(
    finished: Run, monkeypatch: pytest.MonkeyPatch, median: float
) -> None:
    """At least as accurate and at least as fast is enough."""
    page = measured(
        finished,
        monkeypatch,
        lambda run: write_report(run).read_text(encoding="utf-8"),
        test={"best": 0.93, NARROW: 0.93, OTHER: 0.5},
        ms={"best": 1.5, NARROW: median, OTHER: 9.0},
    )
    line = (
        "Mind: tests.runs.test_small_networks:narrow from random weights, taught as long, is "
        "better: 93.0% at 1.5 ms beside 93.0% at 1.5 ms."
    )
    assert (line in page) == (median == 1.5)
    assert ("is better" in page) == (median == 1.5)


@pytest.mark.parametrize(
    ("accuracies", "median", "words"),
    [
        ((0.951, 0.5), 1.2, "is better: 95.1% at 1.2 ms beside 93.0% at 1.5 ms"),
        ((0.930, 0.5), 1.5, "is better: 93.0% at 1.5 ms beside 93.0% at 1.5 ms"),
        ((0.929, 0.5), 0.1, None),
        ((0.951, 0.5), 1.6, None),
        ((0.951, 0.99), 1.2, "normless from random weights, taught as long, is better: 99.0% at 1"),
    ],
)
def test_that_a_small_network_is_better_is_said_where_it_is(
    finished: Run,
    monkeypatch: pytest.MonkeyPatch,
    accuracies: tuple[float, float],
    median: float,
    words: str | None,
) -> None:
    first, second = accuracies
    said = measured(
        finished,
        monkeypatch,
        test={"best": 0.93, NARROW: first, OTHER: second, "scratch": 1.0},
        ms={"best": 1.5, NARROW: median, OTHER: 1.0},
    )
    assert ("taught as long, is better" in said) == (words is not None)
    if words is not None:
        assert said.count("is better") == 1
        assert words in said


@pytest.mark.usefixtures("untimed")
def test_killed_between_two_networks_the_first_is_not_taught_anew(
    finished: Run, recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    taught = small_module.taught
    begun: list[str] = []

    def killed(session: Any, network: Any, epochs: int) -> Any:
        begun.append(network.text)
        if len(begun) == 2:
            raise Killed
        return taught(session, network, epochs)

    monkeypatch.setattr(baselines, "taught", killed)
    asked = recipe.with_values(small=[NARROW, OTHER])
    with pytest.raises(Killed):
        execute.prune(asked, tmp_path / "run")
    before = open_run(tmp_path / "run").read("baselines.json")
    assert list(before) == [NARROW]

    run = execute.resume(tmp_path / "run")
    assert begun == [NARROW, OTHER, OTHER]
    after = run.read("baselines.json")
    assert after[NARROW] == before[NARROW]
    whole = finished.read("baselines.json")
    for name in (NARROW, OTHER):
        assert after[name]["sha256"] == whole[name]["sha256"], name
    test, once = run.test(), finished.test()
    assert test is not None
    assert once is not None
    assert test["baselines"][OTHER] == once["baselines"][OTHER]


@pytest.mark.usefixtures("untimed")
def test_killed_before_the_test_nothing_is_timed_anew(
    recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(*arguments: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(execute, "on_test", killed)
        execute.prune(recipe.with_values(small=[NARROW]), tmp_path / "run")
    times = open_run(tmp_path / "run").read("times.json")
    monkeypatch.setattr(small_module, "time_side_by_side", killed)
    assert execute.resume(tmp_path / "run").read("times.json") == times


@pytest.mark.usefixtures("untimed")
def test_weights_of_another_network_than_was_kept_are_noticed(
    recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(*arguments: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(execute, "on_test", killed)
        execute.prune(recipe.with_values(small=[NARROW, OTHER]), tmp_path / "run")
    folder = tmp_path / "run" / "baselines"
    (folder / "small-1.safetensors").write_bytes((folder / "small-0.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"small-1\.safetensors"):
        execute.resume(tmp_path / "run")


@pytest.mark.usefixtures("untimed")
def test_for_a_new_result_they_are_taught_anew(recipe: RunConfig, tmp_path: Path) -> None:
    run = execute.prune(recipe.with_values(small=[NARROW]), tmp_path / "run")
    (before,) = compared(run)
    again = execute.resume(run.path, None, {"max_steps": 2})
    (after,) = compared(again)
    assert after.epochs > before.epochs
    assert (run.path / "earlier" / "1" / "times.json").is_file()


@pytest.mark.parametrize(
    ("small", "words"),
    [
        ("nosuchnet", "no model is called 'nosuchnet' (--small nosuchnet)"),
        ("resnet18=nowhere.pth", "there is no such weights file (--small resnet18=nowhere.pth)"),
        (
            "tests.runs.test_small_networks:soft=none",
            "softmax",
        ),
        ("tests.runs.test_small_networks:ByCount=none", "can't export the model to ONNX"),
        (
            "tests.runs.test_small_networks:narrow",
            "use --small tests.runs.test_small_networks:narrow=FILE or --small",
        ),
        ("inception_v3=none", "doesn't take an image"),
        ("=none", "is not MODEL or MODEL=WEIGHTS"),
    ],
)
def test_what_can_t_be_taught_is_one_line_before_anything_is_trained(
    recipe: RunConfig, tmp_path: Path, small: str, words: str
) -> None:
    line = refusal(
        "prune", recipe.data.path, "--model", "tests.runs.test_run:small", "--weights", "none",
        "--size", 16, "--small", small, "--out", tmp_path / "run",
    )  # fmt: skip
    assert words in line
    assert "--small" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untimed")
@pytest.mark.skipif(not SQUEEZENET.exists(), reason="the shared SqueezeNet weights are not here")
def test_a_network_with_weights_of_its_own_finds_its_own_rate_and_says_what_it_took(
    recipe: RunConfig, tmp_path: Path
) -> None:
    heard: list[str] = []
    small = f"squeezenet1_0={SQUEEZENET}"
    run = execute.prune(
        recipe.with_values(size=32, train_epochs=2, small=[small]),
        tmp_path / "run",
        Callbacks(on_line=heard.append),
    )
    assert [line for line in heard if line.startswith("squeezenet1_0: weights: ")]
    assert [line for line in heard if line.startswith("squeezenet1_0: learning rate ")]
    (network,) = compared(run)
    assert network.network is not None
    assert network.network.title == f"squeezenet1_0 ({SQUEEZENET.name})"
    assert network.params == 736_450


@pytest.mark.usefixtures("untimed")
def test_weights_that_images_of_the_test_split_taught_are_refused(
    recipe: RunConfig, tmp_path: Path
) -> None:
    narrow_run = execute.train(
        recipe.with_values(model=NARROW.removesuffix("=none"), seed=4), tmp_path / "other"
    )
    small = f"{NARROW.removesuffix('=none')}={narrow_run.path}"
    with pytest.raises(PrunedgeError, match=r"test images and .* taught .*small="):
        execute.prune(recipe.with_values(small=[small]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
