"""Bundles: what export writes, and that it answers like torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.edge import open_bundle
from prunedge.edge.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from prunedge.edge.image.size import square
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import ExportError
from prunedge.export import export_bundle
from prunedge.graph import trace
from prunedge.pruning.select import random_plan
from prunedge.surgery import remove
from tests.small_models import Mobile, randomise

TASK = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def export(model: nn.Module, out: Path, **more: object) -> Path:
    return export_bundle(
        model,
        out,
        model_name="m",
        task=TASK,
        images=IMAGES,
        macs=10,
        params=20,
        **more,
    ).path  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = randomise(Mobile())
    graph = trace(model, IMAGES)
    plan = random_plan(graph, 0.4, torch.Generator().manual_seed(0))
    return export(
        remove(model, graph, plan), tmp_path_factory.mktemp("bundles") / "pruned", plan=plan.keep
    )


def test_a_bundle_answers_like_torch_at_any_batch(bundle: Path) -> None:
    model = randomise(Mobile())
    graph = trace(model, IMAGES)
    small = remove(model, graph, random_plan(graph, 0.4, torch.Generator().manual_seed(0))).eval()
    session = open_session(open_bundle(bundle))
    for count in (1, 2, 5):
        found = session.outputs(IMAGES[:count].numpy())
        np.testing.assert_allclose(
            found, small(IMAGES[:count]).detach().numpy(), rtol=1e-3, atol=1e-4
        )
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(session.predict(pixels).sum(1), 1, rtol=1e-5)


def test_a_bundle_is_small_and_says_what_was_checked(bundle: Path) -> None:
    assert {file.name for file in bundle.iterdir()} == {
        "manifest.json",
        "model.onnx",
        "model.safetensors",
        "plan.json",
        "selftest.npz",
    }
    manifest = open_bundle(bundle).manifest
    check = manifest.forms["onnx"].check
    assert check is not None
    assert check.images == 5
    assert check.agreement == 1
    assert check.max_abs_difference < 1e-4
    assert manifest.mean == IMAGENET_MEAN
    assert manifest.std == IMAGENET_STD
    assert set(json.loads((bundle / "plan.json").read_text())) == {"expand", "squeeze", "project"}


def test_an_export_that_differs_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.export import onnx as module

    real = module.write_onnx

    def spoilt(model: nn.Module, *more: Any) -> int:
        return real(randomise(Mobile(), seed=9), *more)

    monkeypatch.setattr(module, "write_onnx", spoilt)
    with pytest.raises(ExportError, match="differs from torch"):
        export(randomise(Mobile()), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_export_never_overwrites(bundle: Path) -> None:
    with pytest.raises(ExportError, match="not empty"):
        export(randomise(Mobile()), bundle)
