from __future__ import annotations

import pytest
import torch

from prunedge.train import TrainConfig, make_engine
from prunedge.train.optim import make_optimizer, state_of
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
