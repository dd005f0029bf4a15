"""Layers, tables and predictions, with real times of this machine where times are needed; no time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunedge.edge.bench.probe import time_files
from prunedge.errors import BundleError, PrunedgeError
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.latency import Steering, Timer, steer
from prunedge.latency.layer_files import write_probe
from prunedge.latency.layers import Shape, layers_of, shapes_after
from prunedge.latency.steering import Fit
from prunedge.latency.table import LatencyTable, measure_table
from prunedge.latency.timer import Timed
from prunedge.pruning.select import random_plan
from prunedge.surgery import remove
from tests.small_models import Dense, Mobile, randomise

EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Mobile, Dense])
def test_the_layers_after_a_plan_are_those_of_the_smaller_model(kind: type[nn.Module]) -> None:
    model = randomise(kind())
    graph = trace(model, EXAMPLE)
    layers = layers_of(model, EXAMPLE)
    plan = random_plan(graph, 0.5, torch.Generator().manual_seed(0))
    small = remove(model, graph, plan)
    assert shapes_after(layers, graph.sizes(plan)) == [
        shape for _, shape in layers_of(small, EXAMPLE)
    ]
    assert sum(shape.weights for _, shape in layers) == sum(
        m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )


@pytest.mark.parametrize(
    "shape",
    [
        Shape(8, 12, (9, 7), (3, 3), (2, 1), (1, 1)),
        Shape(8, 12, (9, 9), (3, 3), (1, 1), (2, 2), (2, 2)),
        Shape(8, 8, (5, 5), (3, 3), groups=8),
        Shape(8, 16, (5, 5), (3, 3), groups=8),
        Shape(8, 12, (5, 5), (1, 1), groups=4),
        Shape(10, 4, (1, 0)),
        Shape(10, 4, (6, 0)),
    ],
)
def test_a_probe_is_the_layer_that_torch_would_run(shape: Shape, tmp_path: Path) -> None:
    write_probe(shape, tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx").stat().st_size < 2000
    session = onnxruntime.InferenceSession(
        str(tmp_path / "p.onnx"), providers=["CPUExecutionProvider"]
    )
    inputs = torch.randn(session.get_inputs()[0].shape)
    if shape.kernel == (0, 0):
        module: nn.Module = nn.Linear(shape.inputs, shape.outputs)
    else:
        conv = nn.Conv2d(
            shape.inputs,
            shape.outputs,
            shape.kernel,
            shape.stride,
            shape.padding,
            shape.dilation,
            shape.groups,
        )
        module = nn.Sequential(conv, nn.ReLU())
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.01)
    with torch.no_grad():
        wanted = module(inputs).numpy()
    np.testing.assert_allclose(
        session.run(None, {"x": inputs.numpy()})[0], wanted, rtol=1e-4, atol=1e-5
    )


class Clock:
    """A device that takes 1 ms for every 1,000 weights, in steps of 8 outputs, and notes what it was asked."""

    threads, asked = 1, 0

    def time(self, files: dict[str, Path]) -> Timed:
        import onnx

        self.asked += len(files)
        found = {}
        for name, file in files.items():
            sizes = {
                one.name: onnx.numpy_helper.to_array(one)
                for one in onnx.load(file).graph.initializer
            }
            outputs, *rest = sizes["weight_shape"].tolist()
            found[name] = -(-outputs // 8) * 8 * float(np.prod(rest)) / 1000
        return Timed(found, "clockwork", {"processor": "brass"})


def test_a_table_gives_the_times_that_it_was_made_of_and_those_between() -> None:
    layers = [
        Shape(3, 64, (8, 8), (3, 3)),
        Shape(64, 64, (6, 6), (3, 3)),
        Shape(64, 128, (6, 6), (3, 3)),
    ]
    table = measure_table(layers, Clock())  # type: ignore[arg-type]
    assert table.step == 8
    assert {one.step for one in table.staircases if one.axis == "outputs"} == {8}
    for layer in (*layers, layers[2].wide(24, 104), layers[0].wide(3, 40)):
        assert table.ms(layer) == pytest.approx(layer.weights / 1000, rel=1e-6)
    assert table.ms(layers[2].wide(64, 97)) == table.ms(layers[2].wide(64, 104))
    again = LatencyTable.from_json(json.loads(json.dumps(table.to_json())))
    assert again == table
    assert again.knows(layers)
    assert not again.knows([layers[1].wide(65, 64)])
    assert not again.knows([replace(layers[1], stride=(2, 2))])


@given(st.floats(0.1, 3), st.floats(0, 0.5), st.floats(0, 2), st.sampled_from([0.0, 4.0]))
@settings(deadline=None, max_examples=50)
def test_the_fit_finds_what_made_the_times(
    layers: float, megabyte: float, rest: float, cache: float
) -> None:
    sums, megabytes = [1.0, 2.0, 5.0, 9.0, 4.0, 7.0], [1.0, 30.0, 3.0, 44.0, 20.0, 8.0]
    made = Fit(layers, megabyte, rest, cache)
    found = Fit.to(sums, megabytes, [made.ms(a, b) for a, b in zip(sums, megabytes, strict=True)])
    assert found.error < 0.02
    assert found.ms(3.0, 25.0) == pytest.approx(made.ms(3.0, 25.0), rel=0.05)


@pytest.mark.slow
def test_steering_on_this_machine_measures_once_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomise(Mobile())
    first = steer(model, EXAMPLE, Timer(), tmp_path)
    assert len(list((tmp_path / "latency").iterdir())) == 1
    graph = trace(model, EXAMPLE)
    cost = first.cost(model, graph)
    assert cost.total() > 0
    assert first.measure(model, EXAMPLE) > 0
    monkeypatch.setattr(
        "prunedge.latency.steering.measure_table", lambda *_: pytest.fail("it was measured already")
    )
    second = steer(model, EXAMPLE, Timer(), tmp_path)
    assert second.table == first.table
    assert Steering.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_costly_channels_cost_more(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.Conv2d(32, 32, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )
    graph, layers = trace(model, EXAMPLE), [shape for _, shape in layers_of(model, EXAMPLE)]
    steering = Steering(Timer(), measure_table(layers, Clock()), Fit(1.0, 0.0, 0.0))  # type: ignore[arg-type]
    cost = steering.cost(model, graph)
    first, second = (
        (cost.total() - cost.total(Plan({group.name: tuple(range(24))}))) / 8
        for group in graph.groups
    )
    # A channel of the first layer is made by 27 weights and taken by 288; one of the second is made by 288 and taken by 2.
    assert first == pytest.approx((27 + 288) / 1000, rel=0.05)
    assert second == pytest.approx((288 + 2) / 1000, rel=0.1)


@pytest.mark.parametrize("target", ["onnx-int8", "executorch", "nonsense"])
def test_runtimes_that_time_no_layers_are_named(target: str, tmp_path: Path) -> None:
    write_probe(Shape(4, 4, (4, 4), (1, 1)), tmp_path / "p.onnx")
    with pytest.raises(PrunedgeError, match=f"can't be timed as '{target}'"):
        time_files(tmp_path, target=target)


def test_an_empty_folder_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no \.onnx file"):
        time_files(tmp_path)
    (tmp_path / "p.onnx").write_bytes(b"nothing")
    with pytest.raises(PrunedgeError, match="can't load the model"):
        Timer().time({"p.onnx": tmp_path / "p.onnx"})
