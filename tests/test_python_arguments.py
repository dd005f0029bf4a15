"""What the library's functions are given wrongly is one clear error, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import prunedge as pe
from prunedge.errors import ConfigError, GraphError, ModelError, PrunedgeError
from tests.small_models import Plain, Residual, tiny


@pytest.fixture(scope="module")
def data(tiny_data: Path) -> Any:
    return pe.load_folder(tiny_data, size=16)


VALUES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a text of patterns": (lambda: pe.PlanConstraints(ignore="layer1.*"), TypeError, "layer1"),  # type: ignore[arg-type]
    "a text for a number of channels": (
        lambda: pe.PlanConstraints(min_channels="a"),  # type: ignore[arg-type]
        TypeError,
        "min_channels is a whole number, 1 or more, not 'a'",
    ),
    "a text for a share": (
        lambda: pe.PlanConstraints(max_ratio="a"),  # type: ignore[arg-type]
        TypeError,
        "max_ratio is a number above 0",
    ),
    "a text for a penalty": (
        lambda: pe.ScoreScaling(macs_penalty="a"),  # type: ignore[arg-type]
        TypeError,
        "macs_penalty is a number",
    ),
    "an infinite penalty": (
        lambda: pe.ScoreScaling(macs_penalty=float("inf")),
        ValueError,
        "macs_penalty",
    ),
    "classes in one text": (
        lambda: pe.build("tests.small_models:tiny", "ab", "none"),
        ModelError,
        "'ab'",
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value(name: str) -> None:
    make, kind, words = VALUES[name]
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_drop": float("nan")},
        {"max_drop": -1},
        {"max_steps": 0},
        {"step_ratio": 1.5},
        {"target_macs": 0.0},
        {"extra_rounds": -1},
        {"target_latency": 5.0},
        {"compensate": "zz"},
        {"sparsity": "l7"},
        {"sparsity_strength": 0.1},
        {"confidence": 0.9, "metric": "f1"},
        {"distill": 0.5, "finetune": pe.TrainConfig()},
    ],
)
def test_a_pruning(data: Any, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "prunedge.train.measure_engine", lambda *args, **kwargs: pytest.fail("it began")
    )
    with pytest.raises(ValueError, match=next(iter(wrong))):
        next(pe.prune(tiny(2), data, **wrong))


def test_every_mistake_of_a_pruning_is_named_at_once(data: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        next(pe.prune(tiny(2), data, max_drop=-1, step_ratio=2.0))
    assert "max_drop=-1" in str(refused.value)
    assert "step_ratio=2.0" in str(refused.value)


def test_a_keyword_that_there_is_not_is_refused_by_the_call_itself(data: Any) -> None:
    with pytest.raises(TypeError, match="stepratio"):
        pe.prune(tiny(2), data, stepratio=0.1)  # type: ignore[call-arg]


def test_other_outputs_than_classes(data: Any) -> None:
    with pytest.raises(ModelError, match="5 outputs for 2 classes"):
        pe.fit(tiny(5), data, epochs=1)


@pytest.mark.parametrize(
    "use",
    [lambda net, path: pe.fit(net, path), lambda net, path: next(pe.prune(net, path)), pe.evaluate],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_for_data(use: Any, kind: Any) -> None:
    with pytest.raises(TypeError, match="data"):
        use(tiny(2), kind("cracks"))


def test_a_plan_that_was_carried_out_already() -> None:
    model = Residual().eval()
    graph = pe.trace(model, torch.randn(2, 3, 16, 16))
    plan = pe.Plan({"a": (0, 1, 2)})
    small = pe.remove(model, graph, plan)
    with pytest.raises(GraphError, match="not of this model"):
        pe.remove(small, graph, plan)
    with pytest.raises(GraphError, match="not of this model"):
        pe.remove(Plain(), graph, plan)


def test_a_meta_tensor() -> None:
    with pytest.raises(GraphError, match="meta"):
        pe.trace(tiny(2), torch.zeros(2, 3, 16, 16, device="meta"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"round_to": 10_000}, "round_to=10000"),
        ({"min_channels": 100_000}, "min_channels=100000"),
        ({"ignore": ["*"]}, "ignore="),
        ({"ignore": ["nolayer"]}, "nolayer"),
    ],
)
def test_what_lets_no_channel_go_is_refused_before_any_work(
    data: Any, settings: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "prunedge.train.measure_engine", lambda *args, **kwargs: pytest.fail("it began")
    )
    with pytest.raises(PrunedgeError, match=named):
        next(pe.prune(Residual(), data, **settings))


@pytest.mark.parametrize("wrong", ["x", None, 5, {"a": (0, 1)}])
def test_something_else_is_refused_at_the_door(data: Any, wrong: Any) -> None:
    model = Residual().eval()
    graph = pe.trace(model, data.example())
    scores = pe.rank(model, graph, data.train, "weight-l2")
    plan = pe.choose(graph, scores, remove=0.2)
    other = 5 if wrong is None else wrong  # None is the default of these
    uses: dict[str, Callable[[], object]] = {
        "model is": lambda: pe.remove(wrong, graph, plan),
        "graph is": lambda: pe.remove(model, wrong, plan),
        "plan is": lambda: pe.remove(model, graph, wrong),
        "scores is": lambda: pe.choose(graph, wrong),
        "constraints is": lambda: pe.choose(graph, scores, constraints=other),
        "engine is": lambda: pe.evaluate(model, data.val, engine=other),
        "finetune is": lambda: next(pe.prune(model, data, finetune=other)),
        "timer is": lambda: pe.steer(model, data.example(), wrong),
        "bundle is": lambda: pe.Candidate(wrong),
        "candidates is": lambda: pe.bench(wrong),
        "example is": lambda: pe.cost(model, wrong),
        "steps is": lambda: pe.write_report("page.html", [wrong], data),
    }
    for words, use in uses.items():
        with pytest.raises(TypeError, match=f"^{words} "):
            use()


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_no_path(wrong: Any) -> None:
    for read in (pe.load, pe.open_run, pe.open_bundle, pe.load_folder, pe.load_manifest):
        with pytest.raises(TypeError, match="is the path of a file or folder"):
            read(wrong)


@pytest.mark.parametrize("wrong", ["resnet18", None, 5])
def test_what_is_no_model(data: Any, wrong: Any, tmp_path: Path) -> None:
    for use in (
        lambda: pe.fit(wrong, data, epochs=1),
        lambda: next(pe.prune(wrong, data)),
        lambda: pe.evaluate(wrong, data.val),
        lambda: pe.rank(wrong, None, data.val),
        lambda: pe.export_bundle(wrong, data, tmp_path / "b", model_name="resnet18"),
    ):
        with pytest.raises(TypeError, match=r"model is an nn\.Module"):
            use()


def test_a_whole_data_set_is_no_split(data: Any) -> None:
    model = Residual()
    graph = pe.trace(model, data.example())
    for use in (lambda: pe.evaluate(model, data), lambda: pe.rank(model, graph, data)):
        with pytest.raises(TypeError, match=r"batches is a split, such as data\.val"):
            use()


@pytest.mark.parametrize(
    "wrong", [{"resize": "squash"}, {"seed": "a"}, {"folds": 1}, {"group_by": 3}]
)
def test_settings_of_images_that_can_t_be(tiny_data: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        pe.load_folder(tiny_data, size=16, **wrong)


def test_a_bundle_of_a_model_with_other_outputs_is_not_written(data: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="5 outputs for 2 classes"):
        pe.export_bundle(tiny(5), data, tmp_path / "bundle", model_name="tests.small_models:tiny")
    assert not (tmp_path / "bundle").exists()
