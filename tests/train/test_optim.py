from __future__ import annotations

import pytest
import torch

from prunedge.errors import TrainError
from prunedge.train import OptimState, TrainConfig, flattened, make_engine, unflattened
from prunedge.train.config import Optimizer
from prunedge.train.optim import make_optimizer, set_rate, state_of
from tests.train.tiny import images, model


@pytest.mark.parametrize("name", ["32", "32-channels-last"])
def test_a_step_is_nesterovs_in_either_memory_format(name: str) -> None:
    recipe, engine = TrainConfig(lr=0.1, momentum=0.8, weight_decay=0.01), make_engine(name)
    net, batch = model(), images(8)[0]
    generator = torch.Generator().manual_seed(1)
    held = {key: torch.randn(one.shape, generator=generator) for key, one in net.named_parameters()}
    expected, momentum = {}, {}
    with engine.holding(net.eval()):
        optimiser = make_optimizer(
            net, recipe, {key: {"momentum_buffer": one} for key, one in held.items()}
        )
        torch.nn.functional.cross_entropy(net(engine.to_device(batch[0])), batch[1]).backward()
        for key, one in net.named_parameters():
            assert one.grad is not None
            gradient = one.grad + (0.01 * one.detach() if one.ndim > 1 else 0)
            momentum[key] = 0.8 * held[key] + gradient
            expected[key] = one.detach() - 0.1 * (gradient + 0.8 * momentum[key])
        optimiser.step()
        state = state_of(net, optimiser)
    for key, one in net.named_parameters():
        torch.testing.assert_close(one.detach(), expected[key])
        torch.testing.assert_close(state[key]["momentum_buffer"], momentum[key])
        assert state[key]["momentum_buffer"].is_contiguous()


def test_adamw_goes_on_from_its_state_as_torch_s_own_does() -> None:
    config, batches = TrainConfig(lr=0.01, optimizer="adamw"), images(24)
    whole, halved = model(), model()
    own = torch.optim.AdamW(
        [
            {"params": [one for one in whole.parameters() if one.ndim > 1], "weight_decay": 0.01},
            {"params": [one for one in whole.parameters() if one.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    state: OptimState = {}
    for inputs, targets in batches:
        ours = make_optimizer(halved, config, state)  # made anew each time, as after a removal
        for net, optimizer in ((whole.eval(), own), (halved.eval(), ours)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
        state = unflattened(flattened(state_of(halved, ours)))
    assert set(state["0.weight"]) == {"exp_avg", "exp_avg_sq", "step"}
    assert float(state["0.weight"]["step"]) == len(batches)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(halved.get_parameter(name), parameter)


def test_the_state_of_another_optimizer_is_refused() -> None:
    state = {"0.weight": {"momentum_buffer": torch.zeros(8, 3, 3, 3)}}
    with pytest.raises(TrainError, match=r"0\.weight has momentum_buffer, which is not adamw's"):
        make_optimizer(model(), TrainConfig(optimizer="adamw"), state)
    state = {"0.weight": {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(8, 3, 3, 3)}}
    state["0.weight"]["step"] = torch.zeros(())
    with pytest.raises(TrainError, match=r"0\.weight has exp_avg \(2,\) for \(8, 3, 3, 3\)"):
        make_optimizer(model(), TrainConfig(optimizer="adamw"), state)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_each_parameter_has_its_share_of_the_rate(kind: Optimizer) -> None:
    net = model()
    shares = {"0.weight": 0.25, "0.bias": 0.25, "1.weight": 0.25, "1.bias": 0.25}
    optimizer = make_optimizer(net, TrainConfig(optimizer=kind), shares=shares)
    set_rate(optimizer, 0.1)
    rates = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"], group["weight_decay"]
    usual = TrainConfig(optimizer=kind).decay
    assert rates[id(net[0].weight)] == (0.025, usual)
    assert rates[id(net[0].bias)] == (0.025, 0.0)
    assert rates[id(net[6].weight)] == (0.1, usual)
