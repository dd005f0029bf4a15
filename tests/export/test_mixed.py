"""Where integers lose too much, the layers that suffer most go back to float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunedge.cli.bench_table import print_bench
from prunedge.edge import Bundle, Candidate, bench
from prunedge.edge.image.size import square
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import ExportError
from prunedge.export import Comparison, Judge, export_bundle
from prunedge.report.run.cards import _time_card

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 3, 16, 16, generator=DRAW)
TASK = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))


class Uneven(nn.Module):
    """A layer whose inputs are of very unequal sizes, so that eight bits for all of them leave nothing of the small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.harmed = nn.Conv2d(6, 8, 1)
        self.last = nn.Linear(8, 3)
        with torch.no_grad():
            self.stem.weight[0] *= 3000
            self.harmed.weight[:, 0] *= 1e-6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.harmed(torch.relu(self.stem(images)))
        return self.last(torch.relu(x).mean((2, 3)))


def uneven() -> nn.Module:
    torch.manual_seed(0)
    return Uneven().eval()


def judged(float_model: Any, form: Any) -> Comparison:
    """By how far the outputs are apart, so that nothing hangs on ties."""
    pixels = IMAGES.numpy()
    wanted = float_model(pixels)
    apart = float(np.abs(form(pixels) - wanted).max() / np.abs(wanted).max())
    return Comparison(1.0, max(0.0, 1.0 - apart), len(pixels), 1.0)


def export(out: Path, max_drop: float) -> Bundle:
    return export_bundle(
        uneven(),
        out,
        model_name="m",
        task=TASK,
        images=IMAGES,
        macs=1,
        params=1,
        formats=("onnx-int8",),
        calibration=IMAGES,
        judge=Judge(ACCURACY, judged, max_drop),
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tmp_path_factory.mktemp("mixed") / "b", 5.0)


def test_the_layers_that_suffer_most_are_float_and_the_others_are_not(mixed: Bundle) -> None:
    form = mixed.form("onnx-int8")
    assert form.check is not None
    assert form.check.metrics["accuracy"] >= 0.95
    assert {"stem", "harmed"} & set(form.float_layers)
    assert "last" not in form.float_layers

    graph = onnx.load(mixed.model()).graph
    kept = {tensor.name for tensor in graph.initializer}
    weights = [f"{name}.weight" for name in form.float_layers if name in ("stem", "harmed")]
    assert set(weights) <= kept
    assert "last.weight" not in kept
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


def test_a_model_in_both_answers_as_the_float_one(mixed: Bundle) -> None:
    with torch.no_grad():
        wanted = uneven()(IMAGES).numpy()
    found = open_session(mixed).outputs(IMAGES.numpy())
    assert np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()
    assert {file.name for file in mixed.path.iterdir()} >= {"model.int8.onnx", "manifest.json"}
    assert not [path for path in mixed.path.iterdir() if path.is_dir()]


def test_a_bench_and_its_page_say_which_are_float(
    mixed: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    result = bench([Candidate(mixed), Candidate(mixed)], patches=1)
    layers = mixed.form("onnx-int8").float_layers
    assert [record["float_layers"] for record in result.bundles] == [layers, layers]
    print_bench(result)
    assert "layers left in float" in capsys.readouterr().out
    assert f"layers left in float: {layers[0]}" in _time_card(result.to_json())["note"]


def test_all_stay_in_integers_where_that_is_good_enough(tmp_path: Path) -> None:
    assert export(tmp_path / "b", 100.0).form("onnx-int8").float_layers == []


def test_it_is_refused_where_no_mixture_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def always(float_model: Any, form: Any) -> Comparison:
        seen.append(form)
        return Comparison(0.9, 0.5, 16, 1.0)

    monkeypatch.setitem(globals(), "judged", always)
    with pytest.raises(ExportError, match=r"onnx-int8 loses 40\.0 points.*max_int8_drop="):
        export(tmp_path / "b", 1.0)
    assert len(seen) > 2
    assert list(tmp_path.iterdir()) == []
