"""Several processes do one process's mathematics: uneven batches, batch norms, dropout, collectors, evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import CRITERIA, TaylorCollector, rank
from prunedge.importance.taylor_bn import ScaleCollector
from prunedge.tasks import Metrics, unpacked
from prunedge.train import TrainConfig, TrainExtras, evaluate, fit, make_engine, observe
from prunedge.train.sync import SynchronizedBatch
from prunedge.utils import distributed
from prunedge.utils.distributed import BatchShard
from tests.processes import together
from tests.small_models import Residual, randomise
from tests.train.test_fit import fitted_frozen
from tests.train.tiny import frozen, images, model

# Batches of 7, and a last one of a single image: two of three processes have none.
TRAIN, VAL = images(50, batch_size=7), images(27, seed=1, batch_size=4)
PROCESSES = 3


class Attending(nn.Module):
    """Its attention's projections are used by code of torch's own, so that nobody sees what they consume."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.stem(x).relu().flatten(2).movedim(1, 2)
        return self.head(self.attention(z, z, z)[0].mean(1))


class Several:
    """Collectors side by side."""

    def __init__(self, graph: ChannelGraph) -> None:
        # The last one's function is not zero at zero: it would count images that only keep a process busy.
        family = [
            TaylorCollector(graph, kind) for kind in ("taylor", "taylor-fo", "fisher", "signed")
        ]
        self.all = [
            *family,
            ScaleCollector(graph),
            TaylorCollector(graph, "own", lambda change: change.cos()),
        ]

    def reset(self) -> None:
        for one in self.all:
            one.reset()

    @contextlib.contextmanager
    def attach(self, net: nn.Module) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in self.all:
                stack.enter_context(one.attach(net))
            yield

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        for one in self.all:
            one.start_batch(batch_size, here)

    def gathered(self) -> Any:
        return [one.gathered() for one in self.all]

    def take_over(self, gathered: Any) -> None:
        for one, part in zip(self.all, gathered, strict=True):
            one.take_over(part)

    def result(self) -> list[dict[str, Any]]:
        return [
            {**scores.values, "examples": scores.examples}
            for scores in (one.result() for one in self.all)
        ]


def shrink(net: nn.Module, along: float) -> None:
    for parameter in net.parameters():
        assert parameter.grad is not None
        parameter.grad += along * 0.01 * parameter.detach()


def numbers(metrics: Metrics) -> dict[str, Any]:
    """The metrics as torch compares them: strings are none of its things."""
    return {**metrics.to_json(), "correct": unpacked(metrics.correct).tolist()}


def trained() -> dict[str, Any]:
    """All that a fit gives, with all that can depend on how the batches are cut."""
    recipe = TrainConfig(lr=0.05, clip=0.5, label_smoothing=0.1, distill=0.3)
    found: dict[str, Any] = {}
    for name in ("32", "32-channels-last"):
        net, teacher = model(), model(1)
        collector = Several(trace(net, TRAIN[0][0][:2]))
        result = fit(
            net,
            TRAIN,
            epochs=3,
            config=recipe,
            engine=make_engine(name),
            seed=5,
            val=VAL,
            extras=TrainExtras(collector=collector, teacher=teacher, penalty=shrink),
        )
        assert result.val is not None
        found[name] = {
            "weights": dict(net.state_dict()),
            "momentum": result.optimizer_state,
            "val": numbers(result.val),
            "collected": result.collected,
            "losses": [epoch.loss for epoch in result.history],
        }
    return found


def gathered() -> dict[str, Any]:
    """Scores while training, read off the weights, and in a pass of their own for every criterion; and what evaluation gives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attending = Attending()
    collector = TaylorCollector(trace(attending, TRAIN[0][0][:2]))
    gather = TrainExtras(collector=collector)
    unseen = fit(
        attending,
        TRAIN,
        epochs=1,
        config=TrainConfig(),
        engine=make_engine(),
        seed=0,
        extras=gather,
    ).collected
    net = randomise(Residual())
    graph = trace(net, TRAIN[0][0][:2])
    meter = observe(net, VAL, make_engine())
    return {
        "unseen": {**unseen.values, "examples": unseen.examples},
        **{name: dict(rank(net, graph, TRAIN, name).values) for name in sorted(CRITERIA)},
        "logits": meter.logits(),
        "labels": meter.labels(),
        "val": numbers(evaluate(net, VAL, make_engine())),
    }


def agreed() -> list[str]:
    """What the processes say to one another."""
    distributed.require_same("nothing", "the same")
    said = [
        str(distributed.broadcast_object(distributed.get_rank())),
        ",".join(map(str, distributed.all_gather(distributed.get_rank()))),
    ]
    for attempt in (
        lambda: distributed.require_same("their ranks", str(distributed.get_rank())),
        lambda: distributed.rank_zero_only(_refuse)("a thing"),
        _count_processes,
    ):
        try:
            said.append(str(attempt()))
        except PrunedgeError as error:
            said.append(str(error))
    return said


def otherwise() -> dict[str, Any]:
    """A fit with AdamW, frozen and slower blocks, the moving average and the focal loss.

    Without biases before norms: their gradients are nothing but rounding, which Adam makes steps of.
    """
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    config = TrainConfig(
        lr=0.01,
        optimizer="adamw",
        freeze=1,
        layer_decay=0.5,
        ema=0.9,
        patience=3,
        distill=0.2,
        focal=2.0,
    )
    result = fit(
        net,
        TRAIN,
        epochs=3,
        config=config,
        engine=make_engine(),
        seed=5,
        val=VAL,
        extras=TrainExtras(teacher=model(1)),
    )
    assert result.val is not None
    return {
        "weights": dict(net.state_dict()),
        "state": result.optimizer_state,
        "val": numbers(result.val),
        "losses": [epoch.loss for epoch in result.history],
    }


def everything() -> dict[str, Any]:
    return {
        "trained": trained(),
        "otherwise": otherwise(),
        "gathered": gathered(),
        "agreed": agreed(),
    }


def _refuse(what: str) -> None:
    raise PrunedgeError(f"the first refuses {what}", where="here", remedy="none")


@distributed.rank_zero_only
def _count_processes() -> str:
    # What the first does alone may call what is itself done by the first.
    return f"{distributed.get_rank()} of {distributed.world_size()}, {distributed.rank_zero_only(distributed.world_size)()}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return together(everything, PROCESSES, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("what", ["trained", "otherwise", "gathered"])
def test_several_processes_come_to_what_one_comes_to(
    results: list[dict[str, Any]], what: str
) -> None:
    alone = {"trained": trained, "otherwise": otherwise, "gathered": gathered}[what]()
    for found in results:
        torch.testing.assert_close(found[what], alone, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            found[what], results[0][what], rtol=0, atol=0
        )  # the same bits everywhere


def test_the_processes_agree_or_say_so(results: list[dict[str, Any]]) -> None:
    for found in results:
        assert found["agreed"] == [
            "0",
            "0,1,2",
            "the processes of this run came to different results: their ranks: use machines of one kind, with the same versions of torch "
            "and prunedge",
            "the first refuses a thing (here): none",
            "0 of 1, 1",
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (6, 4)])
def test_a_batch_norm_over_a_whole_share_is_torch_s_own(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) + 10).to(
        dtype
    )  # far from zero, where squares cancel
    slope = torch.randn(shape, generator=generator).to(dtype)
    norms = [
        nn.BatchNorm1d(4, momentum=None) if len(shape) == 2 else nn.BatchNorm2d(4) for _ in range(2)
    ]
    found = []
    for norm, mode in zip(
        norms,
        (contextlib.nullcontext(), SynchronizedBatch(BatchShard(x, x[:, 0], 0, 6, 6))),
        strict=True,
    ):
        given = x.clone().requires_grad_()
        with mode:
            out = norm(given)
        (out * slope).sum().backward()
        assert given.grad is not None
        assert out.dtype == dtype
        found.append(
            {
                "out": out.detach(),
                "change": given.grad,
                **norm.state_dict(),
                **{n: p.grad for n, p in norm.named_parameters()},
            }
        )
    loose = (
        {"rtol": 0.02, "atol": 0.02} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    )
    del found[0]["weight"], found[0]["bias"], found[1]["weight"], found[1]["bias"]
    torch.testing.assert_close(found[1], found[0], **loose)


def test_one_value_per_channel_is_refused_as_torch_refuses_it() -> None:
    with (
        pytest.raises(ValueError, match="one value per channel"),
        SynchronizedBatch(BatchShard(torch.ones(1), torch.ones(1), 0, 1, 1)),
    ):
        nn.BatchNorm1d(3)(torch.ones(1, 3))


@pytest.mark.parametrize(
    "drop",
    [
        lambda x: functional.dropout(x, 0.4),
        lambda x: functional.dropout2d(x, 0.4),
        lambda x: x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.6),
    ],
)
def test_what_is_drawn_is_the_part_of_what_one_process_draws(drop: Any) -> None:
    x = torch.ones(8, 3, 2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        alone, following = drop(x), torch.rand(1)
        for start, stop in ((0, 3), (3, 8)):
            torch.manual_seed(3)
            with SynchronizedBatch(
                BatchShard(x[start:stop], torch.zeros(stop - start), start, stop - start, 8)
            ):
                assert torch.equal(drop(x[start:stop]), alone[start:stop])
            assert torch.equal(torch.rand(1), following)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (7, 5)])
def test_a_norm_by_hand_is_torchs_own(
    shape: tuple[int, ...], dtype: torch.dtype, affine: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    precise = torch.promote_types(dtype, torch.float32)
    x, gradient = (torch.randn(shape, generator=draw).add(1).to(dtype) for _ in range(2))
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    held = (
        [torch.rand(5, generator=draw).to(precise).requires_grad_() for _ in range(2)]
        if affine
        else [None, None]
    )
    found = []
    for by_hand in (True, False):
        one = x.clone().requires_grad_()
        with (
            SynchronizedBatch(BatchShard(one, torch.zeros(len(x)), 0, len(x), len(x)))
            if by_hand
            else contextlib.nullcontext()
        ):
            running = torch.zeros(5, dtype=precise), torch.ones(5, dtype=precise)
            y = functional.batch_norm(one, *running, *held, True, 0.3, 1e-3)
        given = [one, *(tensor for tensor in held if tensor is not None)]
        found.append([y.detach(), *running, *torch.autograd.grad(y, given, gradient)])
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for ours, torchs in zip(*found, strict=True):
        assert ours.dtype == torchs.dtype
        torch.testing.assert_close(ours, torchs, rtol=tolerance, atol=tolerance)


def fit_frozen() -> dict[str, torch.Tensor]:
    return fitted_frozen()


@pytest.mark.slow
def test_frozen_batch_norms_learn_nothing_in_several_processes_either(tmp_path: Path) -> None:
    before = frozen().state_dict()
    for after in together(fit_frozen, 2, tmp_path):
        assert all(
            torch.equal(after[name], tensor)
            for name, tensor in before.items()
            if name.startswith(("block.", "lone."))
        )
        assert not torch.equal(after["learns.1.running_mean"], before["learns.1.running_mean"])
