from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.graph import trace
from prunedge.importance import TaylorCollector
from prunedge.train import TrainConfig, TrainExtras, evaluate, fit, make_engine
from tests.importance.folded import SharedTable, WindowsFirst
from tests.train.tiny import FakeSplit, frozen, images, model

QUICK = TrainConfig(lr=0.05, batch_size=8)
TRAIN, VAL = images(64), images(32, seed=1)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["32", "32-channels-last", "bf16"])
def test_it_learns_in_place_and_gives_the_model_back_as_it_was_laid_out(name: str) -> None:
    net, engine = model().eval(), make_engine(name)
    result = fit(net, TRAIN, epochs=4, config=QUICK, engine=engine, seed=0, val=VAL)
    assert result.model is net
    assert not net.training
    assert result.val is not None
    assert result.val.accuracy > 0.9
    assert result.history[-1].loss < result.history[0].loss
    assert all(
        parameter.is_contiguous() and parameter.grad is None for parameter in net.parameters()
    )
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert evaluate(net, VAL, engine) == result.val


def test_the_result_is_printed_without_its_tensors() -> None:
    result = fit(model(), TRAIN, epochs=2, config=QUICK, engine=make_engine(), seed=0, val=VAL)
    printed = repr(result)
    assert "accuracy" in printed
    assert "best_epoch=" in printed
    assert "lr=0.05" in printed
    assert "tensor" not in printed
    assert len(printed) < 700


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before() -> None:
    nets = [model(), model(), model()]
    for net, seed, noise in zip(nets, (3, 3, 4), (1, 2, 1), strict=True):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        fit(net, TRAIN, epochs=2, config=QUICK, engine=make_engine(), seed=seed)
        assert torch.equal(before, torch.get_rng_state())
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])  # another seed, another dropout


def test_the_best_epoch_comes_back_with_its_weights_its_momentum_and_what_was_collected() -> None:
    class Epochs:
        """Spoils nothing, counts everything."""

        def __init__(self) -> None:
            self.epoch, self.batches, self.images, self.open = -1, 0, 0, False

        def reset(self) -> None:
            self.epoch, self.batches, self.images = self.epoch + 1, 0, 0

        @contextlib.contextmanager
        def attach(self, net: nn.Module) -> Iterator[None]:
            self.open = True
            yield
            self.open = False

        def start_batch(self, batch_size: int) -> None:
            assert self.open
            self.batches, self.images = self.batches + 1, self.images + batch_size

        def result(self) -> tuple[int, int, int]:
            return self.epoch, self.batches, self.images

    # Training on wrong labels after the first epoch: the first one is best.
    class Turning:
        def __init__(self) -> None:
            self.turn = -1

        def __len__(self) -> int:
            return len(TRAIN)

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            self.turn += 1
            return ((x, y if self.turn < 2 else 1 - y) for x, y in TRAIN)

    turning, net, alone, collector = Turning(), model(), model(), Epochs()
    iter(turning)  # fit looks once whether the data can be gone through again
    turning.turn = -2
    recipe = TrainConfig(
        lr=0.05, warmup=0, final=1.0
    )  # a flat rate, so that one epoch alone is the same epoch
    result = fit(
        net,
        turning,
        epochs=4,
        config=recipe,
        engine=make_engine(),
        seed=0,
        val=VAL,
        extras=TrainExtras(collector=collector),
    )
    assert result.best_epoch < 3
    assert result.val == result.history[result.best_epoch].val
    assert result.val is not None
    assert result.val.accuracy == max(one.val.accuracy for one in result.history if one.val)
    assert result.collected == (result.best_epoch, len(TRAIN), 64)
    again = fit(
        alone, TRAIN, epochs=result.best_epoch + 1, config=recipe, engine=make_engine(), seed=0
    )
    assert same(net, alone)
    assert all(
        torch.equal(
            result.optimizer_state[name]["momentum_buffer"],
            again.optimizer_state[name]["momentum_buffer"],
        )
        for name in again.optimizer_state
    )


def test_momentum_goes_on_where_it_stopped() -> None:
    flat = TrainConfig(lr=0.02, warmup=0, final=1.0)
    net = model()
    first = fit(net, TRAIN, epochs=1, config=flat, engine=make_engine(), seed=0)
    assert set(first.optimizer_state) == dict(net.named_parameters()).keys()
    moved, still = model(), model()
    for other in (moved, still):
        other.load_state_dict(net.state_dict())
    kept = {name: entry["momentum_buffer"].clone() for name, entry in first.optimizer_state.items()}
    fit(
        moved,
        TRAIN,
        epochs=1,
        config=flat,
        engine=make_engine(),
        seed=1,
        extras=TrainExtras(optimizer_state=first.optimizer_state),
    )
    fit(still, TRAIN, epochs=1, config=flat, engine=make_engine(), seed=1)
    assert not same(moved, still)
    assert all(
        torch.equal(kept[name], first.optimizer_state[name]["momentum_buffer"]) for name in kept
    )  # the caller's own


def test_momentum_that_does_not_fit_is_named() -> None:
    state = {
        "0.weight": {"momentum_buffer": torch.zeros(1)},
        "gone": {"momentum_buffer": torch.zeros(1)},
    }
    with pytest.raises(
        TrainError,
        match=r"gone isn't in the model; 0\.weight has momentum \(1,\) for \(8, 3, 3, 3\)",
    ):
        fit(
            model(),
            TRAIN,
            epochs=1,
            config=QUICK,
            engine=make_engine(),
            seed=0,
            extras=TrainExtras(optimizer_state=state),
        )


def test_a_model_with_smaller_layers_trains_with_sliced_momentum() -> None:
    wide = model()
    state = fit(
        wide, TRAIN, epochs=1, config=QUICK, engine=make_engine("32-channels-last"), seed=0
    ).optimizer_state
    keep, inputs = [0, 2, 5], [4 * channel + place for channel in (0, 2, 5) for place in range(4)]
    small = model()
    small[0] = nn.Conv2d(3, 3, 3, stride=2)
    small[1] = nn.BatchNorm2d(3)
    small[6] = nn.Linear(12, 2)
    sliced = {
        name: {key: one[keep] for key, one in entry.items()}
        for name, entry in state.items()
        if name[0] in "01"
    }
    sliced["6.weight"] = {"momentum_buffer": state["6.weight"]["momentum_buffer"][:, inputs]}
    result = fit(
        small,
        TRAIN,
        epochs=2,
        config=QUICK,
        engine=make_engine(),
        seed=0,
        val=VAL,
        extras=TrainExtras(optimizer_state=sliced),
    )
    assert result.optimizer_state["0.weight"]["momentum_buffer"].shape == (3, 3, 3, 3)


def test_a_split_is_shuffled_by_the_seed_and_no_tiny_batch_is_left() -> None:
    for count, drops in ((24, False), (25, True), (27, True), (28, False)):
        split = FakeSplit(count)
        fit(model(), split, epochs=2, config=QUICK, engine=make_engine(), seed=7)
        expected = {"batch_size": 8, "shuffle_seed": 7, "augment": "full", "drop_last": drops}
        assert split.asked == [{**expected, "epoch": 0}, {**expected, "epoch": 1}]


def test_batches_that_come_only_once_are_kept() -> None:
    listed, flowing = model(), model()
    fit(listed, TRAIN, epochs=2, config=QUICK, engine=make_engine(), seed=0, val=VAL)
    fit(flowing, iter(TRAIN), epochs=2, config=QUICK, engine=make_engine(), seed=0, val=iter(VAL))
    assert same(listed, flowing)


def test_no_epochs_only_measure() -> None:
    net, fresh = model(), model()
    state = {"6.bias": {"momentum_buffer": torch.ones(2)}}
    result = fit(
        net,
        TRAIN,
        epochs=0,
        config=QUICK,
        engine=make_engine(),
        seed=0,
        val=VAL,
        extras=TrainExtras(optimizer_state=state),
    )
    assert same(net, fresh)
    assert result.best_epoch == -1
    assert result.history == ()
    assert result.collected is None
    assert result.val == evaluate(fresh, VAL, make_engine())
    assert torch.equal(result.optimizer_state["6.bias"]["momentum_buffer"], torch.ones(2))


def test_a_loss_that_is_not_finite_names_the_batch_and_the_remedy() -> None:
    with pytest.raises(
        TrainError, match=r"loss became .* \(epoch 1, batch 1\): lower .* it is 0\.05, try lr=0\.01"
    ):
        fit(
            model(),
            [(torch.full((8, 3, 16, 16), torch.inf), TRAIN[0][1])],
            epochs=1,
            config=QUICK,
            engine=make_engine(),
            seed=0,
        )


@pytest.mark.parametrize("data", [[], FakeSplit(0)])
def test_no_images_is_an_error(data: object) -> None:
    with pytest.raises(TrainError, match="no image to train on"):
        fit(model(), data, epochs=1, config=QUICK, engine=make_engine(), seed=0)


def test_frozen_parameters_stay_and_a_wholly_frozen_model_is_refused() -> None:
    net = model()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    result = fit(net, TRAIN, epochs=1, config=QUICK, engine=make_engine(), seed=0)
    assert torch.equal(net[0].weight, before)
    assert "0.weight" not in result.optimizer_state
    with pytest.raises(TrainError, match="no parameter to train"):
        fit(net.requires_grad_(False), TRAIN, epochs=1, config=QUICK, engine=make_engine(), seed=0)


def test_progress_counts_batches() -> None:
    told: list[tuple[int, int, str]] = []
    watch = TrainExtras(progress=lambda *news: told.append(news))
    fit(model(), TRAIN, epochs=2, config=QUICK, engine=make_engine(), seed=0, extras=watch)
    assert [done for done, _, _ in told] == list(range(1, 17))
    assert {total for _, total, _ in told} == {16}
    assert told[-1][2].startswith("epoch 2/2, loss 0.")


def test_a_teacher_s_answers_are_learned_where_labels_say_nothing() -> None:
    teacher = model()
    fit(teacher, TRAIN, epochs=4, config=QUICK, engine=make_engine("32"), seed=0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    wrong = [(inputs, torch.zeros_like(labels)) for inputs, labels in TRAIN]
    student = model()
    recipe = TrainConfig(lr=0.05, batch_size=8, distill=1.0)
    fit(
        student,
        wrong,
        epochs=4,
        config=recipe,
        engine=make_engine("32"),
        seed=0,
        extras=TrainExtras(teacher=teacher.train()),
    )
    assert evaluate(student, VAL, make_engine("32")).accuracy > 0.9
    assert teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_distilling_without_a_teacher_is_an_error() -> None:
    with pytest.raises(TrainError, match="needs a teacher"):
        fit(
            model(),
            TRAIN,
            epochs=1,
            config=TrainConfig(distill=0.5),
            engine=make_engine("32"),
            seed=0,
        )


def test_a_penalty_adds_to_the_gradients_and_hears_how_far_it_is() -> None:
    heard: list[float] = []

    def shrink(net: nn.Module, along: float) -> None:
        heard.append(along)
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter.grad += parameter.detach()

    plain, drawn = model(), model()
    fit(plain, TRAIN, epochs=2, config=QUICK, engine=make_engine("32"), seed=0)
    fit(
        drawn,
        TRAIN,
        epochs=2,
        config=QUICK,
        engine=make_engine("32"),
        seed=0,
        extras=TrainExtras(penalty=shrink),
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    sizes = [
        sum(float(parameter.detach().norm()) for parameter in net.parameters())
        for net in (plain, drawn)
    ]
    assert sizes[1] < 0.8 * sizes[0]


def fitted_frozen() -> dict[str, torch.Tensor]:
    """The model with frozen blocks after two epochs; also run in several processes (test_whole.py)."""
    net = frozen()
    fit(net, images(40), epochs=2, config=QUICK, engine=make_engine("32"), seed=0)
    return net.state_dict()


def test_frozen_blocks_stay_as_they_are_to_the_last_bit_and_the_rest_learns() -> None:
    before, after = frozen().state_dict(), fitted_frozen()
    for name, tensor in before.items():
        is_frozen = name.startswith(("block.", "lone."))
        assert torch.equal(after[name], tensor) == is_frozen, name


def test_a_frozen_block_computes_in_training_what_it_computes_later() -> None:
    net, seen = frozen(), []
    net.lone.register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach().clone())
    )
    batches = images(8)
    fit(net, batches, epochs=1, config=QUICK, engine=make_engine("32"), seed=0)
    with torch.no_grad():
        assert torch.equal(seen[0], net.lone.eval()(net.block.eval()(batches[0][0])))
    assert net.training


def test_nothing_is_collected_while_training_where_the_examples_cannot_be_told_apart() -> None:
    shared = SharedTable()
    collector = TaylorCollector(trace(shared, TRAIN[0][0][:1]))
    gather = TrainExtras(collector=collector)
    fitted = fit(
        shared,
        [(x, y) for x, y in TRAIN],
        epochs=1,
        config=QUICK,
        engine=make_engine(),
        seed=0,
        extras=gather,
    )
    assert fitted.collected is None
    assert fitted.best_epoch == 0


@pytest.mark.parametrize("make", [model, WindowsFirst])
def test_collecting_changes_nothing_in_a_training(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    one = make()
    other = copy.deepcopy(one)
    collector = TaylorCollector(trace(other, TRAIN[0][0][:1]))
    first = fit(one, TRAIN, epochs=2, config=QUICK, engine=make_engine(), seed=0)
    second = fit(
        other,
        TRAIN,
        epochs=2,
        config=QUICK,
        engine=make_engine(),
        seed=0,
        extras=TrainExtras(collector=collector),
    )
    assert second.collected.examples == 64
    assert first.collected is None
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


class Judged:
    """Validation batches on which a model gets worse from the given epoch on."""

    def __init__(self, worse_from: int) -> None:
        self.turn = -1
        self.worse_from = worse_from

    def __len__(self) -> int:
        return len(VAL)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.turn += 1
        is_turned = self.turn >= self.worse_from
        return ((x, 1 - y if is_turned else y) for x, y in VAL)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 5), (2, 6), (9, 10), (None, 10)])
def test_a_training_ends_when_patience_does(patience: int | None, epochs: int) -> None:
    val = Judged(worse_from=5)  # one look before the first epoch: can it be gone through twice?
    net = model()
    result = fit(
        net,
        TRAIN,
        epochs=10,
        config=TrainConfig(lr=0.02, batch_size=8, patience=patience),
        engine=make_engine(),
        seed=0,
        val=val,
    )
    assert result.best_epoch == 3
    assert len(result.history) == epochs
    assert result.val == result.history[3].val == evaluate(net, VAL, make_engine())


def test_adamw_learns(caplog: pytest.LogCaptureFixture) -> None:
    net = model()
    config = TrainConfig(lr=0.01, batch_size=8, optimizer="adamw")
    result = fit(net, TRAIN, epochs=4, config=config, engine=make_engine(), seed=0, val=VAL)
    assert result.val is not None
    assert result.val.accuracy > 0.9


@pytest.mark.parametrize("change", [{"ema": 0.9}, {"freeze": 1}])
def test_nothing_is_collected_of_another_model_than_comes_out(change: dict[str, float]) -> None:
    net = model()
    collector = TaylorCollector(trace(net, TRAIN[0][0][:1]))
    fitted = fit(
        net,
        TRAIN,
        epochs=1,
        config=TrainConfig(batch_size=8, **change),  # type: ignore[arg-type]
        engine=make_engine(),
        seed=0,
        extras=TrainExtras(collector=collector),
    )
    assert fitted.collected is None
