from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from prunedge.errors import TrainError
from prunedge.train import Metrics, evaluate, make_engine, measure, predict
from tests.train.tiny import images, model


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_agree_with_scikit_learn(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(60, classes, generator=generator) * 2
    labels = torch.randint(classes, (60,), generator=generator)
    found, guesses, p = measure(logits, labels), logits.argmax(1).numpy(), logits.softmax(1).numpy()
    truth = labels.numpy()
    auroc = np.mean([reference.roc_auc_score(truth == k, p[:, k]) for k in range(classes)])
    assert found.accuracy == reference.accuracy_score(truth, guesses)
    assert found.f1 == pytest.approx(reference.f1_score(truth, guesses, average="macro"), abs=1e-6)
    assert found.auroc == pytest.approx(auroc, abs=1e-6)
    assert found.loss == pytest.approx(
        reference.log_loss(truth, p, labels=range(classes)), abs=1e-5
    )
    assert np.array_equal(found.confusion, reference.confusion_matrix(truth, guesses))
    assert found.n == 60


def test_a_class_without_images_has_no_auroc() -> None:
    found = measure(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert found.auroc is None and found.value("accuracy") == 1.0
    with pytest.raises(TrainError, match="auroc isn't defined"):
        found.value("auroc")
    with pytest.raises(TrainError, match="no metric is called 'speed'"):
        found.value("speed")


def test_metrics_go_through_json() -> None:
    for labels in ([0, 1], [0, 0]):
        found = measure(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor(labels))
        assert Metrics.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("name", ["32", "32-channels-last", "bf16"])
def test_evaluating_is_float32_and_leaves_the_model_alone(name: str) -> None:
    net, batches = model().train(), images(20)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    probabilities, labels = predict(net, batches, make_engine(name))
    assert net.training and all(
        torch.equal(state[key], tensor) for key, tensor in net.state_dict().items()
    )
    assert probabilities.shape == (20, 2) and labels.tolist() == [0, 1] * 10
    with torch.no_grad():
        expected = net.eval()(torch.cat([x for x, _ in batches])).softmax(1)
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_evaluated_is_told() -> None:
    engine, net = make_engine(), model()
    with pytest.raises(TrainError, match="no image"):
        evaluate(net, [], engine, 2)
    with pytest.raises(TrainError, match="2 outputs for 3 classes"):
        evaluate(net, images(4), engine, ["a", "b", "c"])
    with pytest.raises(TrainError, match="labels from 0 to 5"):
        evaluate(net, [(torch.zeros(2, 3, 16, 16), torch.tensor([0, 5]))], engine, 2)
    with torch.no_grad():
        nn.init.constant_(net[6].bias, torch.nan)
    with pytest.raises(TrainError, match="aren't finite"):
        evaluate(net, images(4), engine, 2)
