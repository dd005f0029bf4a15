"""The moving average of the weights: what it is, and that it is what is judged and kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunedge.train import TrainConfig, evaluate, fit, make_engine
from prunedge.train.average import averaged_model, warmed
from tests.train.tiny import images, model

TRAIN, VAL = images(64), images(32, seed=1)


class Counting(nn.Module):
    """A weight, statistics, and a table of places."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("table", torch.arange(40))


def test_weights_and_statistics_are_averaged_and_whole_numbers_are_not() -> None:
    net = Counting()
    averaged = averaged_model(net, 0.9)
    wanted = 0.0
    for step in range(30):
        with torch.no_grad():
            net.weight.fill_(float(step))
            net.mean.fill_(float(step))  # type: ignore[operator]
        averaged.update_parameters(net)
        decay = 0.0 if step == 0 else min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    torch.testing.assert_close(averaged.module.weight.detach(), torch.full((2,), wanted))
    torch.testing.assert_close(averaged.module.mean, torch.full((2,), wanted))
    assert torch.equal(averaged.module.table, torch.arange(40))


def test_the_decay_grows_to_what_was_asked_for() -> None:
    assert warmed(0.999, 1) == 2 / 11
    assert warmed(0.999, 10**6) == 0.999
    assert warmed(0.5, 100) == 0.5


@pytest.mark.parametrize("val", [VAL, None])
def test_the_average_is_what_is_judged_and_kept(val: object) -> None:
    plain, averaged = model(), model()
    flat = TrainConfig(lr=0.05, warmup=0, final=1.0)
    held = TrainConfig(lr=0.05, warmup=0, final=1.0, ema=0.9)
    fit(plain, TRAIN, epochs=1, config=flat, engine=make_engine(), seed=0)
    fitted = fit(averaged, TRAIN, epochs=1, config=held, engine=make_engine(), seed=0, val=val)

    # The same eight steps, averaged by hand.
    wanted = averaged_model(model(), 0.9)
    for count in range(1, 9):
        net = model()
        fit(net, TRAIN[:count], epochs=1, config=flat, engine=make_engine(), seed=0)
        wanted.update_parameters(net)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, wanted.module.state_dict()[name])
    assert not torch.equal(averaged[0].weight, plain[0].weight)
    if val is not None:
        assert fitted.val == evaluate(averaged, VAL, make_engine())
