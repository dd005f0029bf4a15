"""A model on a GPU, where there is one; on the processor the same tests say that nothing else changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import prunedge as pe
from prunedge.graph.inputs import brought_to
from prunedge.importance.consumers import Tap
from prunedge.importance.oracle import oracle, sample
from prunedge.pruning.select import random_plan
from prunedge.surgery import TOLERANCE, operate
from prunedge.surgery.compensate import compensate
from tests.small_models import Residual, randomise

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _half(graph: pe.ChannelGraph) -> pe.Plan:
    return random_plan(graph, 0.5, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("device", DEVICES)
def test_images_from_the_processor_meet_a_model_on_any_device(device: str) -> None:
    here, images = (
        randomise(Residual()),
        torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
    )
    there = copy.deepcopy(here).to(device)
    batches = [(images, torch.tensor([0, 1, 0, 1, 0, 1]))]
    graph = pe.trace(there, images[:2])
    surgery = operate(there, graph, _half(graph))
    assert not surgery.refused
    assert surgery.difference <= TOLERANCE
    assert {one.device.type for model in (there, surgery.model) for one in model.parameters()} == {
        device
    }
    wanted = pe.rank(here, pe.trace(here, images[:2]), batches)
    for name, values in pe.rank(there, graph, batches).values.items():
        torch.testing.assert_close(values, wanted.values[name], rtol=1e-3, atol=1e-6)
    truth = oracle(there, graph, batches, sample(graph, 1))
    assert truth.examples == 6
    assert truth.loss == pytest.approx(
        oracle(here, graph, batches, sample(graph, 1)).loss, rel=1e-5
    )
    for how in ("mean", "lstsq"):
        assert (
            compensate(there, graph, surgery.plan, surgery.model, batches, how).left.keys()
            <= dict(there.named_modules()).keys()
        )


def test_what_is_given_stays_where_it_is_beside_models_on_no_device_or_on_several() -> None:
    layer, given = torch.nn.Linear(2, 2), {"x": torch.zeros(1, 2), "name": "an image"}
    assert brought_to(given, layer) is given
    assert brought_to(given, torch.nn.ReLU()) is given
    assert brought_to(given, torch.nn.Linear(2, 2, device="meta")) is given
    assert (
        brought_to(given, torch.nn.Sequential(layer, torch.nn.Linear(2, 2, device="meta"))) is given
    )


def test_the_proof_and_a_ranking_of_its_own_compute_in_full_float32() -> None:
    model, seen = randomise(Residual()), []
    images = torch.randn(4, 3, 16, 16)
    graph = pe.trace(model, images[:2])
    model.register_forward_hook(
        lambda module, args, out: seen.append(torch.backends.cudnn.conv.fp32_precision)
    )
    for work in (
        lambda: operate(model, graph, _half(graph)),
        lambda: pe.rank(model, graph, [(images, torch.tensor([0, 1, 0, 1]))]),
        lambda: oracle(model, graph, [(images, torch.tensor([0, 1, 0, 1]))], sample(graph, 1)),
        lambda: compensate(
            model,
            graph,
            _half(graph),
            operate(model, graph, _half(graph)).model,
            [(images, None)],
            "lstsq",
        ),
    ):
        seen.clear()
        work()
        assert seen.count("ieee") == len(seen) > 0
    assert torch.backends.cudnn.conv.fp32_precision != "ieee"


def test_a_tap_s_columns_are_copied_to_a_device_once() -> None:
    tap = Tap("a", 0, torch.arange(3)[:, None])
    there = tap.columns_on(torch.device("meta"))
    assert there.is_meta
    assert tap.columns_on(torch.device("meta")) is there


@pytest.mark.parametrize("device", DEVICES)
def test_an_export_leaves_the_model_where_it_was(
    device: str, tiny_data: Path, tmp_path: Path
) -> None:
    data = pe.load_folder(tiny_data, size=32, seed=0)
    model = pe.build("resnet18", classes=data.classes, weights="none", seed=0).to(device)
    pe.export_bundle(model, data, tmp_path / "bundle", model_name="resnet18")
    assert {one.device.type for one in model.parameters()} == {device}
