"""What may be asked of the ONNX file, and what a .pt2 must not hold."""

from __future__ import annotations

import json
import shutil
import zipfile
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunedge.edge import Bundle, Candidate, bench
from prunedge.edge.image.size import square
from prunedge.edge.runtimes.pt2_file import require_plain
from prunedge.edge.runtimes.torch_export import load
from prunedge.edge.session import open_session
from prunedge.edge.targets import TARGETS
from prunedge.edge.tasks.base import Scale, TaskSpec
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import BundleError, ExportError
from prunedge.export import Comparison, Judge, export_bundle
from prunedge.export.onnx import OnnxOptions
from tests.small_models import Mobile, randomise

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TASK = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))


class Plain(nn.Module):
    """Only what every opset has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.flatten(torch.relu(self.conv(images)), 1)


def export(
    model: nn.Module, out: Path, *formats: str, task: TaskSpec = TASK, **options: int
) -> Bundle:
    return export_bundle(
        model,
        out,
        model_name="m",
        task=task,
        images=IMAGES,
        macs=1,
        params=1,
        formats=formats,
        calibration=IMAGES,
        judge=Judge(ACCURACY, lambda before, after: Comparison(0.9, 0.9, 5, 1.0)),
        onnx_options=OnnxOptions(**options),
    )


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("fixed") / "bundle"
    formats = ("onnx", "onnx-fp16", "onnx-int8", "tensorrt")
    return export(randomise(Mobile()), out, *formats, batch=4, opset=20)


def test_a_file_of_a_fixed_batch_answers_any_number_of_images(fixed: Bundle) -> None:
    with torch.no_grad():
        wanted = randomise(Mobile())(IMAGES).numpy()
    for name in ("onnx", "onnx-fp16", "onnx-int8"):
        file = onnx.load(fixed.model(name))
        assert file.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
        session = open_session(fixed, 1, name)
        assert session.self_test().agreement == 1
        for count in (1, 4, 5):
            found = session.outputs(IMAGES[:count].numpy())
            assert found.shape == (count, 3)
            np.testing.assert_allclose(found, wanted[:count], atol=0.2)
    script = (fixed.path / "build_tensorrt.sh").read_text()
    assert "--minShapes=images:4x3x16x16" in script
    assert "--maxShapes=images:4x3x16x16" in script


def test_an_onnx_file_says_what_it_is(fixed: Bundle) -> None:
    for name in ("onnx", "onnx-fp16", "onnx-int8"):
        told = {entry.key: entry.value for entry in onnx.load(fixed.model(name)).metadata_props}
        assert literal_eval(told["names"]) == {0: "a", 1: "b", 2: "c"}
        assert literal_eval(told["imgsz"]) == [16, 16]
        assert (told["task"], told["stride"], told["batch"]) == ("classify", "1", "4")
        assert json.loads(told["mean"]) == list(fixed.manifest.mean)
        assert told["version"] == fixed.manifest.versions["prunedge"]


def test_a_file_of_a_fixed_batch_is_measured_with_any(fixed: Bundle) -> None:
    result = bench([Candidate(fixed)], patches=2, batch=1, batches=(5,), profile=True)
    assert result.profile
    assert result.profile[0]["layers"]


def test_the_opset_is_the_one_that_was_asked_for(fixed: Bundle, tmp_path: Path) -> None:
    older = export(Plain().eval(), tmp_path / "b", "onnx", opset=15)
    for bundle, opset in ((fixed, 20), (older, 15)):
        versions = {one.domain: one.version for one in onnx.load(bundle.model()).opset_import}
        assert versions[""] == opset


def test_an_opset_that_the_model_can_t_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"can't write this model in opset 13.*give 18 or more"):
        export(randomise(Mobile()), tmp_path / "b", "onnx", opset=13)
    with pytest.raises(ExportError, match=r"no opset 12 can be written.*give 13 to "):
        export(randomise(Mobile()), tmp_path / "b", "onnx", opset=12)
    with pytest.raises(ExportError, match=r"no batch of 0 images"):
        export(randomise(Mobile()), tmp_path / "b", "onnx", batch=0)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_that_differs_too_much_is_refused(tmp_path: Path) -> None:
    class Loud(nn.Module):
        """A number that half precision can't hold."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) * 1e6 * 1e-6 * 10 + 5

    with pytest.raises(ExportError, match=r"differs from torch by .* more than 0\.01"):
        export(Loud().eval(), tmp_path / "b", "onnx-fp16")
    assert TARGETS["onnx-fp16"].tolerance == 0.01


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(randomise(Mobile()), tmp_path_factory.mktemp("pt2") / "b", "torch-export").model()


def changed(program: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the file with other members."""
    with zipfile.ZipFile(program) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(members)
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out


def in_graph(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def change_members(members: dict[str, bytes]) -> None:
        graph = json.loads(members["model/models/model.json"])
        change(graph)
        members["model/models/model.json"] = json.dumps(graph).encode()

    return change_members


def _calls_python(graph: Any) -> None:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.os.system"


def _names_a_class(graph: Any) -> None:
    signature = graph["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = '[1, {"type": "os.PathLike", "context": null, "children_spec": []}]'


def _evaluates(graph: Any) -> None:
    graph["graph_module"]["graph"]["sym_int_values"]["s"] = {"as_expr": {"expr_str": "exit()"}}


def _pickled_weight(members: dict[str, bytes]) -> None:
    name = "model/data/weights/model_weights_config.json"
    members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (in_graph(_calls_python), "calls 'torch.serialization.os.system'"),
        (in_graph(_names_a_class), "names the type 'os.PathLike'"),
        (in_graph(_evaluates), "an expression"),
        (in_graph(lambda graph: graph.update(guards_code=["exit()"])), "holds code"),
        (_pickled_weight, "a pickle"),
        (lambda members: members.update({"model/data/sample_inputs/model.pt": b"x"}), "a pickle"),
        (lambda members: members.update({"model/data/weights/model.pt": b"x"}), "weights/model.pt"),
        (lambda members: members.update({"other/version": b"3"}), "holds"),
        (lambda members: members.pop("model/models/model.json"), "not what prunedge writes"),
    ],
)
def test_a_program_that_could_run_anything_is_never_handed_to_torch(
    program: Path,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], None],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.export, "load", lambda file: pytest.fail("it was loaded"))
    with pytest.raises(BundleError, match=why) as caught:
        load(changed(program, tmp_path / "model.pt2", change), 1)
    assert "\n" not in str(caught.value)


def test_a_program_says_nothing_of_the_machine_that_made_it(program: Path, tmp_path: Path) -> None:
    assert require_plain(program) == [1, 3, 16, 16]
    copy = changed(program, tmp_path / "model.pt2", lambda members: None)
    assert require_plain(copy) == [1, 3, 16, 16]
    with zipfile.ZipFile(program) as archive:
        text = archive.read("model/models/model.json").decode()
    assert str(Path(__file__).parent) not in text
    assert "site-packages" not in text


def test_ncnn_names_what_is_wrong_with_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("pnnx")
    bundle = export(randomise(Mobile()), tmp_path / "b", "ncnn")
    shutil.copytree(bundle.path, tmp_path / "c")
    (tmp_path / "c" / "model.ncnn.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="ncnn can't load the model"):
        open_session(Bundle(tmp_path / "c", bundle.manifest), 1, "ncnn")


class Maps(nn.Module):
    """Logits of each pixel, made larger again as segmentation models do."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.last(torch.relu(self.down(images)))
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


class Numbers(nn.Module):
    """Two numbers of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.last = nn.Linear(6, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.conv(images)).mean((2, 3)))


SIZE = square(16)
SCALE = Scale(mean=3.0, deviation=2.0, median=2.5, lowest=0.0, highest=10.0)
MAPS = TaskSpec(name="segmentation", classes=("sound", "crack"), size=SIZE)
NUMBERS = TaskSpec(name="regression", classes=("length", "width"), size=SIZE, scales=(SCALE, SCALE))


@pytest.mark.parametrize(("model", "task"), [(Maps, MAPS), (Numbers, NUMBERS)])
def test_maps_and_numbers_are_torchs_in_every_new_form(
    model: type[nn.Module], task: TaskSpec, tmp_path: Path
) -> None:
    pytest.importorskip("pnnx")
    made = model().eval()
    with torch.no_grad():
        wanted = made(IMAGES).numpy()
    bundle = export(
        made, tmp_path / "b", "onnx-fp16", "torch-export", "ncnn", "ncnn-fp16", task=task
    )
    for name, form in bundle.manifest.forms.items():
        assert form.check is not None
        assert form.check.agreement == 1
        session = open_session(bundle, 1, name)
        found = session.outputs(IMAGES.numpy())
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TARGETS[name].tolerance * max(1, wanted.max())
        assert session.self_test().agreement == 1
