"""Weights that are too small to matter are zeros in every form, and torch goes on as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.edge import Bundle
from prunedge.edge.denormals import TINY
from prunedge.edge.image.size import square
from prunedge.edge.runtimes.onnx import tiny_weights
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import ExportError
from prunedge.export import export_bundle
from tests.small_models import Mobile, randomise

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TASK = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))


def decayed() -> nn.Module:
    """A model of which weight decay has left five channels at almost nothing."""
    model = randomise(Mobile())
    with torch.no_grad():
        model.squeeze.weight[:4] *= 1e-36  # type: ignore[index, operator]
        model.norm1.weight[0] = 1e-33  # type: ignore[index, operator]
    return model


class Folding(nn.Module):
    """Both factors of a weight are ordinary numbers, and the constant that is folded of them isn't."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.register_buffer("one", torch.tensor([1e-20, 1.0, 1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean((2, 3))) + self.one * self.one


def export(model: nn.Module, out: Path) -> Bundle:
    return export_bundle(model, out, model_name="m", task=TASK, images=IMAGES, macs=1, params=1)


def test_tiny_weights_are_zeros_and_the_answers_are_torchs(tmp_path: Path) -> None:
    model = decayed()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = model(IMAGES).detach().numpy()
    bundle = export(model, tmp_path / "b")

    assert bundle.manifest.zeroed == 4 * 24 + 1
    assert tiny_weights(bundle.model()) == 0
    found = open_session(bundle).outputs(IMAGES.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_constants_that_are_folded_of_ordinary_weights_count_too(tmp_path: Path) -> None:
    bundle = export(Folding().eval(), tmp_path / "b")
    assert bundle.manifest.zeroed == 1
    assert tiny_weights(bundle.model()) == 0


def test_ordinary_weights_stay(tmp_path: Path) -> None:
    model = randomise(Mobile())
    with torch.no_grad():
        model.squeeze.weight[0] = 2 * TINY  # type: ignore[index, operator]
    assert export(model, tmp_path / "b").manifest.zeroed == 0


class Amplifying(nn.Module):
    """Its answers hang on weights that are tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight *= 1e-31

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(1e20 * images.mean((2, 3))) * 1e12


def test_a_model_that_hangs_on_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differs from torch"):
        export(Amplifying().eval(), tmp_path / "b")


def test_torch_computes_with_denormal_numbers_as_before(tmp_path: Path) -> None:
    torch.set_flush_denormal(False)  # as in a process that has opened no session yet
    small = torch.tensor(1.2e-38)
    assert small * 0.1 != 0
    export(randomise(Mobile()), tmp_path / "b")
    assert small * 0.1 != 0
