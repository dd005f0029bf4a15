"""What a model is judged by: cross-entropy where that means something, a loss of one's own anywhere."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunedge as pe
from prunedge.errors import ModelError, PrunedgeError
from prunedge.graph import trace
from prunedge.importance import CRITERIA, oracle, rank, sample
from prunedge.tasks.logits import cross_entropy, logits_of
from prunedge.train import TrainConfig, evaluate, fit, make_engine, measure_engine
from tests.small_models import Plain, randomise

INPUTS = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 1, 0])
NEED_NO_LABELS = sorted(
    name
    for name, one in CRITERIA.items()
    if one.reads != "gradients" and name != "mutual-information"
)


class Net(nn.Module):
    """Two convolutions, a number of outputs for the whole image or for each place, handed over in some form."""

    def __init__(
        self,
        outputs: int = 2,
        places: bool = False,
        form: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Conv2d(5, outputs, 1)
        self.places, self.form = places, form or (lambda x: x)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))
        return self.form(h if self.places else h.mean((2, 3)))


def net(
    outputs: int = 2, places: bool = False, form: Callable[[torch.Tensor], Any] | None = None
) -> nn.Module:
    return randomise(Net(outputs, places, form))


def scores(
    model: nn.Module, batches: list[Any], criterion: str = "taylor", **more: Any
) -> dict[str, torch.Tensor]:
    return dict(
        rank(
            model,
            trace(randomise(Net(model.head.out_channels, model.places)), INPUTS[:1]),
            batches,
            criterion,
            **more,
        ).values
    )


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    extra: torch.Tensor | None = None


@dataclasses.dataclass
class Alone:
    anything: torch.Tensor


class Named(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "tuple": lambda x: (x, x.sum()),
    "named tuple": lambda x: Named(x, -x),
    "dict of logits": lambda x: {"aux": -x, "logits": x},
    "dict of out": lambda x: {"out": x, "aux": -x},
    "dataclass": lambda x: Answer(x, -x),
    "dataclass of one": Alone,
    "transformers": lambda x: image_classifier_output(x),
}
FORMS_NEEDING = [
    pytest.param(form, marks=pytest.mark.slow) if form == "transformers" else form for form in FORMS
]


def image_classifier_output(x: torch.Tensor) -> Any:
    outputs = pytest.importorskip(
        "transformers.modeling_outputs", reason="needs transformers: pip install -e '.[zoo]'"
    )
    return outputs.ImageClassifierOutput(logits=x, hidden_states=(x, x))


# name -> outputs, for each place?, labels
UNFIT: dict[str, tuple[int, bool, torch.Tensor]] = {
    "one output": (1, False, LABELS),
    "one output, labels beside it": (1, False, LABELS[:, None].float()),
    "one output for each place": (1, True, torch.zeros(4, 12, 12, dtype=torch.int64)),
    "several labels": (3, False, torch.tensor([[0, 1, 1]] * 4)),
    "several labels, of floats": (3, False, torch.rand(4, 3)),
    "numbers": (2, False, torch.rand(4)),
    "a label too many": (2, False, torch.tensor([0, 1, 2, 0])),
    "labels that are to be ignored": (2, False, torch.tensor([0, 1, -100, 0])),
    "labels of images for logits of places": (2, True, LABELS),
    "a reconstruction": (3, True, INPUTS),
    "yes and no": (2, False, LABELS.bool()),
    "another number of labels": (2, False, LABELS[:3]),
}


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("criterion", ["taylor", "taylor-fo", "taylor-bn", "fisher"])
def test_cross_entropy_is_refused_where_it_says_nothing(what: str, criterion: str) -> None:
    outputs, places, labels = UNFIT[what]
    with pytest.raises(ModelError, match="loss=") as raised:
        scores(net(outputs, places), [(INPUTS, labels)], criterion)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("what", UNFIT)
def test_the_oracle_refuses_the_same(what: str) -> None:
    outputs, places, labels = UNFIT[what]
    model = net(outputs, places)
    graph = trace(model, INPUTS[:1])
    with pytest.raises(ModelError, match="loss="):
        oracle(model, graph, [(INPUTS, labels)], sample(graph, 2))


@pytest.mark.parametrize(("outputs", "places"), [(1, False), (1, True), (2, True)])
def test_training_and_evaluation_refuse_what_is_no_classifier_before_anything_changes(
    outputs: int, places: bool
) -> None:
    model = net(outputs, places)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine, batches = make_engine("32"), [(INPUTS, LABELS * 0)]
    with pytest.raises(ModelError, match="loss="):
        fit(model, batches, epochs=1, config=TrainConfig(), engine=engine, seed=0)
    with pytest.raises(ModelError, match="loss="):
        evaluate(model, batches, engine)
    with pytest.raises(ModelError, match="loss="):
        measure_engine(model, INPUTS)
    for name, tensor in model.state_dict().items():
        if "num_batches" not in name and "running" not in name:
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("form", FORMS_NEEDING)
def test_logits_are_found_in_whatever_a_model_gives(form: str) -> None:
    wanted = scores(net(), [(INPUTS, LABELS)])
    found = scores(net(form=FORMS[form]), [(INPUTS, LABELS)])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    engine = make_engine("32")
    metrics, same = (
        evaluate(one, [(INPUTS, LABELS)], engine) for one in (net(), net(form=FORMS[form]))
    )
    assert metrics == same
    fitted = fit(
        net(form=FORMS[form]),
        [(INPUTS, LABELS)],
        epochs=1,
        config=TrainConfig(),
        engine=engine,
        seed=0,
    )
    assert (
        fitted.history[0].loss
        == fit(net(), [(INPUTS, LABELS)], epochs=1, config=TrainConfig(), engine=engine, seed=0)
        .history[0]
        .loss
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)},
        [],
        None,
        [{"boxes": torch.zeros(1, 4)}],
        "logits",
    ],
)
def test_answers_without_logits_are_refused(answer: Any) -> None:
    with pytest.raises(ModelError, match="loss="):
        logits_of(answer)


def test_labels_of_each_place_are_the_mean_over_places_and_examples() -> None:
    model, labels = (
        net(3, True).double(),
        torch.randint(0, 3, (4, 12, 12), generator=torch.Generator().manual_seed(1)),
    )
    graph = trace(model, INPUTS[:1].double())
    changes = []
    for x, y in zip(INPUTS.double(), labels, strict=True):
        h = torch.relu(model.norm(model.first(x[None]))).detach().requires_grad_()
        functional.cross_entropy(model.head(torch.relu(model.second(h))), y[None]).backward()
        assert h.grad is not None
        changes.append((h * h.grad).detach().sum((0, 2, 3)))
    found = rank(model, graph, [(INPUTS.double(), labels)]).values["first"]
    torch.testing.assert_close(
        found, torch.stack(changes).abs().mean(0) / 144, rtol=1e-5, atol=1e-10
    )


def test_a_loss_of_ones_own_is_the_direct_formula_for_any_batch() -> None:
    """Numbers, from dicts of two inputs."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.beside, self.last = (
                nn.Conv2d(3, 6, 3),
                nn.Linear(2, 6),
                nn.Linear(6, 1),
            )

        def forward(self, image: torch.Tensor, more: torch.Tensor) -> dict[str, torch.Tensor]:
            return {
                "depth": self.last(
                    torch.tanh(self.first(image)).mean((2, 3)) + torch.tanh(self.beside(more))
                )
            }

    torch.manual_seed(0)
    model = Two().double()
    more, target = torch.randn(4, 2).double(), torch.randn(4, 1).double()
    batch = {"image": INPUTS.double(), "more": more, "target": target}

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.mse_loss(
            model(image=batch["image"], more=batch["more"])["depth"], batch["target"]
        )

    graph = trace(model, {"image": batch["image"][:1], "more": more[:1]})
    (group,) = graph.groups
    changes = []
    for row in range(4):
        h = torch.tanh(model.first(batch["image"][row : row + 1])).mean((2, 3)) + torch.tanh(
            model.beside(more[row : row + 1])
        )
        h = h.detach().requires_grad_()
        functional.mse_loss(model.last(h), target[row : row + 1]).backward()
        assert h.grad is not None
        changes.append((h * h.grad).detach()[0])
    wanted = torch.stack(changes).abs().mean(0) / group.positions
    parts = [
        {name: one[rows] for name, one in batch.items()} for rows in (slice(0, 3), slice(3, 4))
    ]
    for batches in ([batch], parts):
        found = rank(model, graph, batches, loss=loss)
        assert found.examples == 4
        assert not found.zero
        torch.testing.assert_close(found.values[group.name], wanted)
    for criterion in (
        "activation-mean",
        "activation-std",
        "apoz",
        "fisher",
        "taylor-fo",
        "random",
        "weight-l2",
    ):
        assert rank(model, graph, parts, criterion, loss=loss).values[group.name].shape == (6,)


def test_the_oracle_takes_a_loss_of_ones_own() -> None:
    model, target = net(1).double(), torch.randn(4, 1).double()
    graph = trace(model, INPUTS[:1].double())

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return functional.mse_loss(model(batch[0]), batch[1])

    truth = oracle(
        model,
        graph,
        [(INPUTS[:3].double(), target[:3]), (INPUTS[3:].double(), target[3:])],
        sample(graph, None),
        loss=loss,
    )
    whole = (INPUTS.double(), target)
    with torch.no_grad():
        before = loss(model, whole)
        model.second.weight[:, 2] = 0
        after = loss(model, whole)
    torch.testing.assert_close(truth.loss, float(before))
    torch.testing.assert_close(float(truth.changes["first"][2]), float(after - before))


@pytest.mark.parametrize("criterion", NEED_NO_LABELS)
def test_criteria_that_need_no_loss_take_inputs_alone(criterion: str) -> None:
    wanted = scores(net(), [(INPUTS, LABELS)], criterion)
    for batches in ([INPUTS], [(INPUTS,)], [{"x": INPUTS}]):
        for name, value in scores(net(), batches, criterion).items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)


def test_criteria_that_need_a_loss_name_those_that_do_not() -> None:
    with pytest.raises(PrunedgeError, match=r"loss=fn.*activation-mean.*weight-l2") as raised:
        scores(net(), [INPUTS])
    assert "taylor" not in str(raised.value).partition("loss=fn")[2]
    with pytest.raises(PrunedgeError, match="needs labels"):
        scores(net(), [INPUTS], "mutual-information")
    with pytest.raises(PrunedgeError, match="loss=fn"):
        scores(net(), [(INPUTS, LABELS, LABELS)])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda model, batch: model(batch[0]), "not a number"),
        (lambda model, batch: 1.0, "not a number"),
        (lambda model, batch: torch.zeros(()), "does not hang"),
        (lambda model, batch: model(batch[0]).sum() * float("nan"), "not finite"),
    ],
)
def test_a_loss_that_is_none_is_told_so(loss: Any, said: str) -> None:
    with pytest.raises(PrunedgeError, match=said):
        scores(net(), [(INPUTS, LABELS)], loss=loss)


def test_groups_that_score_zero_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    with torch.no_grad():
        model.head.weight.zero_()
    graph = trace(model, INPUTS[:1])
    with caplog.at_level(logging.WARNING):
        found = pe.rank(model, graph, [(INPUTS, LABELS)])
    assert found.zero == ("first", "second")
    assert "every score is 0" in caplog.text
    assert "first, second" in caplog.text
    assert pe.rank(net(), graph, [(INPUTS, LABELS)]).zero == ()


def test_cross_entropy_is_torchs() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    wanted = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(cross_entropy(logits, labels.int(), label_smoothing=0.1), wanted)
    assert cross_entropy(logits, labels, double=True).dtype == torch.float64


def test_the_plain_model_of_the_tests_is_judged_as_before() -> None:
    model = randomise(Plain())
    found = rank(model, trace(model, INPUTS[:1]), [(INPUTS, LABELS)])
    assert found.examples == 4
    assert not found.zero
