from __future__ import annotations

import pytest
import torch
from torch import nn

from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import TrainError
from prunedge.tasks import make_task
from prunedge.train import evaluate, make_engine, observe
from tests.train.tiny import images, model


@pytest.mark.parametrize("name", ["32", "32-channels-last", "bf16"])
def test_evaluating_is_float32_and_leaves_the_model_alone(name: str) -> None:
    net, batches = model().train(), images(20)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    meter = observe(net, batches, make_engine(name))
    probabilities = meter.logits().softmax(1)
    labels = meter.labels()
    assert net.training
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    assert probabilities.shape == (20, 2)
    assert labels.tolist() == [0, 1] * 10
    with torch.no_grad():
        expected = net.eval()(torch.cat([x for x, _ in batches])).softmax(1)
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_evaluated_is_told() -> None:
    engine = make_engine()
    net = model()
    three = make_task(TaskSpec(name="classification", classes=("a", "b", "c"), size=(16, 16)))
    with pytest.raises(TrainError, match="no image"):
        evaluate(net, [], engine)
    with pytest.raises(TrainError, match="2 outputs for 3 classes"):
        evaluate(net, images(4), engine, three)
    with pytest.raises(TrainError, match="labels from 0 to 5"):
        evaluate(net, [(torch.zeros(2, 3, 16, 16), torch.tensor([0, 5]))], engine)
    with torch.no_grad():
        nn.init.constant_(net[6].bias, torch.nan)
    with pytest.raises(TrainError, match="aren't finite"):
        evaluate(net, images(4), engine)
