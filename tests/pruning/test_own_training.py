"""The loop with a training of the user's own, and scores that any training gathers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunedge as pe
from prunedge import data as images
from prunedge.errors import ConfigError, GraphError, PrunedgeError, TrainError
from prunedge.graph import trace
from prunedge.importance import rank
from prunedge.train import TrainConfig, evaluate, fit, make_engine
from tests.small_models import Plain, Residual, randomise
from tests.tiny_images import write_tiny

EXAMPLE = torch.zeros(1, 3, 16, 16)
LABELS = torch.zeros(1, dtype=torch.int64)
# Hardly any momentum: prunedge hands it from step to step, and a training of the user has its own.
CONFIG = TrainConfig(lr=0.003, batch_size=8, momentum=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    root = write_tiny(tmp_path_factory.mktemp("images"))
    return images.load(root, size=16, cache_dir=tmp_path_factory.mktemp("cache"))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    pictures, labels = batch
    return functional.cross_entropy(model(pictures), labels)


def size(net: nn.Module) -> int:
    return sum(tensor.numel() for tensor in net.parameters())


def trained(net: nn.Module, epochs: int) -> None:
    """As it is."""


def judged(net: nn.Module) -> float:
    return 1.0


def kept(steps: list[Any]) -> list[dict[str, int]]:
    return [step.kept for step in steps]


def test_a_classifier_has_the_same_steps_either_way(data: images.Dataset) -> None:
    engine = make_engine("32")
    model = randomise(Residual())
    rules: dict[str, Any] = {"step_ratio": 0.4, "max_steps": 2, "max_drop": 100, "polish": 1}
    rules |= {"epochs": 1, "seed": 3, "extra_rounds": 0, "growing_epochs": False}
    wanted = list(pe.prune(model, data, engine=engine, finetune=CONFIG, **rules))

    def train(net: nn.Module, epochs: int, *, seed: int, collector: Any = None) -> None:
        if collector is None:
            fit(net, data.train, epochs=epochs, config=CONFIG, engine=engine, seed=seed)
            return
        with collector:
            fit(net, data.train, epochs=epochs, config=CONFIG, engine=engine, seed=seed)

    def judge(net: nn.Module) -> dict[str, float]:
        metrics = evaluate(net, data.val, engine)
        return {"loss": metrics.loss, "accuracy": metrics.accuracy}

    found = list(
        pe.prune(
            model, data.example(), fit=train, evaluate=judge, loss=loss, batches=data.train,
            metric="accuracy", **rules,
        )
    )  # fmt: skip

    assert kept([step for step, _ in found]) == kept([step for step, _ in wanted])
    for (step, net), (other, same) in zip(found, wanted, strict=True):
        assert step.metrics["accuracy"] == other.metrics["accuracy"]
        assert step.metrics["loss"] == pytest.approx(other.metrics["loss"])
        assert (step.macs, step.removed, step.epochs) == (other.macs, other.removed, other.epochs)
        assert step.scored == other.scored or step.index == 1
        for name, tensor in net.state_dict().items():
            assert torch.allclose(tensor, same.state_dict()[name], atol=1e-6), name
    assert [step.scored for step, _ in found[2:3]] == ["while training"]


def test_the_rule_watches_an_error_that_is_the_lower_the_better() -> None:
    whole = size(Plain())

    def judge(net: nn.Module) -> dict[str, float]:
        return {"mae": 1.0 if size(net) == whole else error, "other": 7}

    for error, keeps_rule in ((1.05, True), (0.5, True), (1.2, False)):
        made = pe.prune(
            randomise(Plain()), EXAMPLE, fit=trained, evaluate=judge, metric="mae",
            higher_is_better=False, max_drop=0.1, max_steps=1, extra_rounds=0, polish=0,
            criterion="weight-l2", step_ratio=0.2,
        )  # fmt: skip
        steps = [step for step, _ in made]
        assert steps[0].metric_after == 1.0
        assert steps[1].metrics == {"mae": error, "other": 7.0}
        assert steps[1].keeps_rule is keeps_rule


def test_a_step_that_costs_too_much_is_taken_back() -> None:
    model = randomise(Plain())
    whole = size(model)

    def judge(net: nn.Module) -> float:
        return 0.9 if size(net) == whole else 0.5

    steps = [
        step
        for step, _ in pe.prune(
            model, EXAMPLE, fit=trained, evaluate=judge, max_drop=0.1,
            criterion="weight-l2", max_steps=2, extra_rounds=0, step_ratio=0.5,
        )
    ]  # fmt: skip
    assert [step.keeps_rule for step in steps] == [True, False, False]
    assert steps[1].metric_after == 0.5


def test_a_model_that_fit_gives_back_is_gone_on_with() -> None:
    def train(net: nn.Module, epochs: int) -> nn.Module:
        copied = copy.deepcopy(net)
        with torch.no_grad():
            next(iter(copied.parameters())).fill_(0.125)
        return copied

    made = list(
        pe.prune(
            randomise(Plain()), EXAMPLE, fit=train, evaluate=lambda net: 1.0, max_steps=1,
            criterion="weight-l2", polish=0,
        )
    )  # fmt: skip
    assert bool((next(iter(made[1][1].parameters())) == 0.125).all())


def test_a_fit_that_gives_another_model_back_is_refused() -> None:
    made = pe.prune(
        randomise(Plain()), EXAMPLE, fit=lambda net, epochs: Plain(), evaluate=lambda net: 1.0,
        max_steps=1, criterion="weight-l2", step_ratio=0.5,
    )  # fmt: skip
    next(made)
    with pytest.raises(TrainError, match="other shapes"):
        next(made)


@pytest.mark.parametrize(
    ("functions", "settings", "message"),
    [
        ({"fit": trained}, {}, "without evaluate= nothing says how good"),
        ({"evaluate": judged}, {}, "without fit= nothing is fine-tuned.*fit=lambda"),
        ({"fit": trained, "evaluate": judged}, {}, "taylor.*weight-l1"),
        (
            {"fit": trained, "evaluate": judged, "batches": [EXAMPLE]},
            {},
            "gradients of a loss.*activation-mean.*weight-l1",
        ),
        (
            {"fit": trained, "evaluate": judged},
            {"criterion": "weight-l2", "batch_size": 4, "distill": 0.5},
            "distill.* belongs to prunedge's own training",
        ),
        (
            {"fit": trained, "evaluate": judged},
            {"criterion": "weight-l2", "confidence": 0.9},
            "confidence",
        ),
        (
            {"fit": trained, "evaluate": lambda net: {"a": 1.0, "b": 2.0}},
            {"criterion": "weight-l2"},
            "evaluate gives a, b.*metric='a'",
        ),
        (
            {"fit": trained, "evaluate": judged},
            {"criterion": "weight-l2", "metric": "mAP50-95"},
            "evaluate gave no 'mAP50-95'.*score",
        ),
        (
            {"fit": trained, "evaluate": lambda net: {"a": float("nan")}},
            {"criterion": "weight-l2"},
            "no finite number for 'a'",
        ),
        (
            {"fit": trained, "evaluate": lambda net: {"a": "good"}},
            {"criterion": "weight-l2"},
            "gave str for 'a'",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(
    functions: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PrunedgeError, match=message) as caught:
        next(pe.prune(randomise(Plain()), EXAMPLE, **functions, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"fit": lambda net: None}, r"fit can't be called as fit\(model, epochs\)"),
        ({"evaluate": lambda: 1.0}, r"evaluate can't be called as evaluate\(model\)"),
        ({"loss": lambda batch: batch}, r"loss can't be called as loss\(model, batch\)"),
        ({"batches": iter([EXAMPLE])}, "only once.*a list, a DataLoader, or a function"),
        ({"batches": (one for one in [EXAMPLE])}, "only once"),
        ({"batches": []}, "there is no batch in batches"),
        ({"batches": lambda: iter(())}, "there is no batch in batches"),
        ({"batches": 3}, "batches gives int, and no batches"),
        ({"batches": lambda: None}, "batches gives NoneType, and no batches"),
    ],
)
def test_functions_that_can_t_be_used_are_refused_before_anything_is_trained(
    functions: dict[str, Any], message: str
) -> None:
    def never(net: nn.Module, epochs: int) -> None:
        raise AssertionError("trained")

    usual = {"fit": never, "evaluate": judged, "loss": loss, "batches": [(EXAMPLE, LABELS)]}
    with pytest.raises(PrunedgeError, match=message):
        next(pe.prune(randomise(Plain()), EXAMPLE, **{**usual, **functions}))


class TwoInputs(nn.Module):
    """Two images that are compared, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        both = torch.relu(self.stem(left)) - torch.relu(self.stem(right))
        return self.head(both.mean((2, 3)))


@pytest.mark.parametrize("form", [dict, tuple])
def test_a_model_of_several_arguments_is_pruned(form: type) -> None:
    images = {"left": torch.randn(2, 3, 8, 8), "right": torch.randn(2, 3, 8, 8)}
    example = images if form is dict else tuple(images.values())

    def loss_of_two(net: nn.Module, batch: Any) -> torch.Tensor:
        found = net(**batch) if isinstance(batch, dict) else net(*batch)
        return functional.cross_entropy(found, torch.tensor([0, 1]))

    model = randomise(TwoInputs()).train()
    made = list(
        pe.prune(
            model, example, fit=trained, evaluate=judged, loss=loss_of_two, batches=[example],
            max_steps=1, polish=0, step_ratio=0.5,
        )
    )  # fmt: skip
    assert made[1][1].stem.out_channels < 6
    assert model.training


def test_a_graph_of_another_model_is_refused() -> None:
    model = randomise(Plain())
    other = trace(randomise(Residual()), EXAMPLE)
    with pytest.raises(GraphError, match="another model's"):
        rank(model, other, [(EXAMPLE, LABELS)])
    with pytest.raises(GraphError, match="another model's"), pe.collect(model, other):
        pass


def test_functions_beside_a_dataset_are_refused(data: images.Dataset) -> None:
    with pytest.raises(ConfigError, match="fit= beside a dataset"):
        next(pe.prune(randomise(Residual()), data, fit=trained))
    with pytest.raises(TypeError, match="or, beside fit= and evaluate=, an example"):
        next(pe.prune(randomise(Residual()), EXAMPLE))


@pytest.mark.parametrize("criterion", ["taylor", "taylor-fo", "fisher"])
def test_a_training_that_changes_nothing_gathers_what_a_pass_ranks(criterion: str) -> None:
    # Without norms: with them a training sees other values than an evaluation.
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    randomise(model).train()
    graph = trace(model, EXAMPLE)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for count in (5, 3):
        pictures = torch.randn(count, 3, 16, 16, generator=generator)
        batches.append((pictures, torch.randint(0, 2, (count,), generator=generator)))

    with pe.collect(model, graph, criterion) as collecting:
        for batch in batches:
            loss(model, batch).backward()
            with torch.no_grad():  # a look at something else in between
                model(batch[0][:2])
            model.eval()
            model(batch[0])
            model.train()
    wanted = rank(model, graph, batches, criterion, loss=loss)
    found = collecting.scores()
    assert found.examples == wanted.examples == 8
    for name, values in wanted.values.items():
        assert torch.allclose(found.values[name], values, rtol=1e-4, atol=1e-9), name


def test_only_gradients_can_be_gathered_while_training() -> None:
    model = randomise(Plain())
    graph = trace(model, EXAMPLE)
    refused = pytest.raises(PrunedgeError, match="in a pass of its own; or take taylor")
    with refused, pe.collect(model, graph, "weight-l2"):
        pass
    with pe.collect(model, graph) as collecting:
        pass
    with pytest.raises(PrunedgeError, match="has seen no images"):
        collecting.scores()
    left = [module for module in model.modules() if module._forward_pre_hooks]
    assert left == []


def told_of(caplog: pytest.LogCaptureFixture, fit: Any, **given: Any) -> list[str]:
    """The lines that a search of three fine-tunings tells."""
    rules: dict[str, Any] = {"max_steps": 2, "polish": 1, "extra_rounds": 0, "max_drop": 10}
    usual = {
        "evaluate": judged,
        "loss": loss,
        "batches": [(torch.rand(2, 3, 16, 16), LABELS[[0, 0]])],
    }
    model = randomise(Plain())
    for _ in pe.prune(model, EXAMPLE, fit=fit, step_ratio=0.3, **{**usual, **given}, **rules):
        pass
    return [record.getMessage() for record in caplog.records if "fit" in record.getMessage()]


def test_a_number_that_fit_gives_back_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told_of(caplog, lambda net, epochs: 0.25)
    assert line.startswith("fit gave float back, which nobody looks at")


def test_a_fit_that_never_enters_its_collector_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (line,) = told_of(caplog, lambda net, epochs, collector=None: None)
    assert "never enters it: a pass of its own ranks the channels" in line


def test_a_fit_that_trains_another_model_inside_its_collector_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(net: nn.Module, epochs: int, collector: Any = None) -> None:
        if collector is None:
            return
        with collector:
            loss(randomise(Plain()), (EXAMPLE, LABELS)).backward()

    (line,) = told_of(caplog, train)
    assert "made no pass in training mode" in line


def test_a_fit_that_takes_anything_or_collects_is_told_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(net: nn.Module, epochs: int, collector: Any = None) -> None:
        if collector is None:
            return
        with collector:
            loss(net, (torch.rand(2, 3, 16, 16), LABELS[[0, 0]])).backward()

    assert told_of(caplog, train) == []
    assert told_of(caplog, lambda net, epochs, **others: None) == []
