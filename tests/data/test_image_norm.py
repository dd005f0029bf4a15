"""Images are normalised as the model's weights were trained, from the loader to the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunedge as pe
from prunedge.data import load
from prunedge.edge.image.normalise import HALF
from prunedge.edge.session import open_session
from prunedge.models import makers
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("augment", ["none", "full"])
def test_batches_have_the_mean_that_was_asked_for(
    folder: Path, tmp_path: Path, augment: Any
) -> None:
    usual = load(folder, size=16, cache_dir=tmp_path)
    half = load(folder, size=16, cache_dir=tmp_path, image_norm="half")
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    pairs = zip(
        usual.train.batches(8, shuffle_seed=1, augment=augment),
        half.train.batches(8, shuffle_seed=1, augment=augment),
        strict=True,
    )
    for (first, labels), (other, other_labels) in pairs:
        assert torch.equal(labels, other_labels)
        torch.testing.assert_close(other, (first * std + mean - 0.5) / 0.5, rtol=1e-5, atol=1e-5)
    # The same decoded images, and yet not the same to learn from.
    assert half.train.cache == usual.train.cache
    assert half.fingerprint != usual.fingerprint
    assert half.train_fingerprint() != usual.train_fingerprint()


def test_the_device_normalises_as_the_training_did(folder: Path, tmp_path: Path) -> None:
    data = load(folder, size=32, cache_dir=tmp_path / "cache", image_norm="half")
    name = "test_resnet"
    model = pe.build(name, data.classes, "none").eval()
    bundle = pe.export_bundle(model, data, tmp_path / "bundle", model_name=name)
    assert bundle.manifest.mean == bundle.manifest.std == HALF
    pixels = data.val.pixels(np.arange(len(data.val)))
    images = next(iter(data.val.batches(len(data.val))))[0]
    with torch.no_grad():
        wanted = model(images).softmax(1).numpy()
    found = open_session(bundle).predict(pixels)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_weights_of_another_mean_say_how_they_get_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    trained = nn.Conv2d(3, 2, 1)
    trained.pretrained_cfg = {"mean": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
    monkeypatch.setattr(timm, "create_model", lambda name, **how: trained)
    monkeypatch.setattr(timm.models, "is_model_pretrained", lambda name: True)
    makers.maker_of("test_resnet").imagenet(trained)
    assert "was trained on images of mean (0.5, 0.5, 0.5): image_norm='half'" in caplog.text
