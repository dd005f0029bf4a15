"""Every form of a model, through the runtime that a device would use."""

from __future__ import annotations

import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.edge import Bundle, Candidate, bench, open_bundle
from prunedge.edge.bundle import SELFTEST
from prunedge.edge.image.size import square
from prunedge.edge.session import compare, open_session
from prunedge.edge.targets import TARGETS
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import BundleError, ExportError, ExtraMissing, PartialExport
from prunedge.export import Comparison, Judge, export_bundle
from tests.small_models import Mobile, randomise
from tests.tampering import reseal_bundle

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(6, 3, 16, 16, generator=DRAW)
CALIBRATION = torch.randn(32, 3, 16, 16, generator=DRAW)
HERE = tuple(name for name, target in TARGETS.items() if target.runs_here)
MODULES = {
    "onnx": "onnxruntime",
    "onnx-fp16": "onnxruntime",
    "onnx-int8": "onnxruntime",
    "openvino": "openvino",
    "openvino-fp16": "openvino",
    "openvino-int8": "nncf",
    "executorch": "executorch",
    "torch-export": "torch",
    "ncnn": "ncnn",
    "ncnn-fp16": "pnnx",
}
TASK = TaskSpec(name="classification", classes=("a", "b", "c"), size=square(16))
DECODER = decoder_of(TASK)


class Judged:
    """How many labels of the calibration images by two models are those of `truth`."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def __call__(self, float_model: Any, model: Any) -> Comparison:
        labels = [
            np.concatenate([each(part.numpy()) for part in CALIBRATION.split(8)]).argmax(1)
            for each in (float_model, model)
        ]
        before, after = (float((each == self.truth).mean()) for each in labels)
        agreement = float((labels[0] == labels[1]).mean())
        return Comparison(before, after, len(self.truth), agreement)


def export(
    model: nn.Module,
    out: Path,
    formats: tuple[str, ...],
    max_drop: float = 100.0,
    truth: np.ndarray | None = None,
) -> Bundle:
    model = model.eval()
    if truth is None:
        with torch.no_grad():
            truth = model(CALIBRATION).argmax(1).numpy()
    return export_bundle(
        model,
        out,
        model_name="m",
        task=TASK,
        images=IMAGES,
        macs=10,
        params=20,
        formats=formats,
        calibration=CALIBRATION,
        judge=Judge(ACCURACY, Judged(truth), max_drop),
    )


@pytest.fixture(scope="module")
def formats() -> tuple[str, ...]:
    for name in HERE:
        pytest.importorskip(MODULES[name])
    return (*HERE, "tensorrt")


@pytest.fixture(scope="module")
def bundle(formats: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(randomise(Mobile()), tmp_path_factory.mktemp("targets") / "all", formats)


def test_every_form_answers_like_torch(bundle: Bundle, formats: tuple[str, ...]) -> None:
    assert tuple(bundle.manifest.forms) == formats
    assert bundle.target == "onnx"
    model = randomise(Mobile()).eval()
    with torch.no_grad():
        wanted = model(IMAGES).numpy()
    for name in HERE:
        session = open_session(bundle, 1, name)
        for count in (1, 5):
            found = session.outputs(IMAGES[:count].numpy())
            assert found.shape == (count, 3)
            assert found.dtype == np.float32
            spread = np.abs(wanted).max()
            assert (
                np.abs(found - wanted[:count]).max()
                <= (TARGETS[name].tolerance if TARGETS[name].is_exact else 0.25) * spread
            ), name
        assert session.self_test().images == 4
        check = bundle.form(name).check
        assert check is not None
        assert check.images == 6
        assert bool(check.metrics) != TARGETS[name].is_exact


def test_integers_make_the_file_smaller(tmp_path: Path) -> None:
    wide = nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    found = export(randomise(wide), tmp_path / "b", ("onnx", "onnx-int8"))
    assert found.size_bytes("onnx-int8") < 0.4 * found.size_bytes("onnx")
    assert {one.op_type for one in _graph(found.model("onnx-int8"))} >= {
        "QuantizeLinear",
        "DequantizeLinear",
    }


def _graph(file: Path) -> Any:
    import onnx

    return onnx.load(file).graph.node


def test_integers_that_lose_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.export import bundle as module

    monkeypatch.setattr(Judged, "__call__", lambda self, *models: Comparison(0.9, 0.88, 32, 1.0))
    with pytest.raises(
        ExportError,
        match=r"onnx-int8 loses 2\.0 points of accuracy on validation data \(90\.0% -> 88\.0%\).*max_int8_drop=",
    ):
        export(randomise(Mobile()), tmp_path / "b", ("onnx-int8",), max_drop=1.0)
    assert list(tmp_path.iterdir()) == []
    assert module.SELFTEST_IMAGES


def test_forms_beside_one_that_failed_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, "__call__", lambda self, *models: Comparison(0.9, 0.88, 32, 1.0))
    monkeypatch.setattr("prunedge.export.onnx_int8.mixed", lambda source: iter(()))
    with pytest.raises(
        PartialExport, match=r"onnx-int8 loses 2\.0 points.*has onnx alone"
    ) as caught:
        export(randomise(Mobile()), tmp_path / "b", ("onnx-int8", "onnx"), max_drop=1.0)
    assert caught.value.bundle == tmp_path / "b"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    found = open_bundle(tmp_path / "b")
    assert list(found.manifest.forms) == ["onnx"]
    assert not list(found.path.glob("*int8*"))
    assert open_session(found).self_test().images == 4
    assert open_session(found).predict(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 3)


def test_the_float_file_goes_where_that_form_alone_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(result: object, difference: float, file: str) -> None:
        raise ExportError("the exported model gives other labels than torch", where=file)

    monkeypatch.setattr("prunedge.export.forms._refuse_differences", differs)
    with pytest.raises(PartialExport, match=r"onnx: the exported model gives other labels"):
        export(randomise(Mobile()), tmp_path / "b", ("onnx", "onnx-int8"))
    found = open_bundle(tmp_path / "b")
    assert list(found.manifest.forms) == ["onnx-int8"]
    assert not (found.path / "model.onnx").exists()


def test_integers_alone_leave_no_float_file(tmp_path: Path) -> None:
    found = export(randomise(Mobile()), tmp_path / "b", ("onnx-int8",))
    assert found.target == "onnx-int8"
    assert not (found.path / "model.onnx").exists()
    assert open_session(found).predict(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 3)


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"unknown format 'onxn'.*choose onnx, onnx-fp16"):
        export(randomise(Mobile()), tmp_path / "b", ("onxn",))


@pytest.mark.parametrize(
    "name", [name for name in HERE if TARGETS[name].extra not in (None, "prune")]
)
def test_a_missing_runtime_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(module: str, *args: Any, **kwargs: Any) -> Any:
        if module.partition(".")[0] == MODULES[name]:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module.partition(".")[0])
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ExtraMissing,
        match=rf"'{name}' needs {MODULES[name]}, which is not installed: pip install 'prunedge\[",
    ):
        export(randomise(Mobile()), tmp_path / "b", (name,))
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_says_what_it_needs_and_nothing_else_runs_in_its_place(bundle: Bundle) -> None:
    assert bundle.form("tensorrt").check is None
    with pytest.raises(BundleError, match="this ONNX Runtime has no TensorRT"):
        open_session(bundle, 1, "tensorrt")
    script = bundle.path / "build_tensorrt.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    found = subprocess.run([script], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "no trtexec here" in found.stderr


def test_the_script_calls_trtexec_with_the_bundles_shapes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "trtexec"
    stand_in.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = subprocess.run(
        [bundle.path / "build_tensorrt.sh", "--verbose"], capture_output=True, text=True, check=True
    ).stdout
    assert str(bundle.path) in said
    assert "--onnx=model.onnx" in said
    assert "--maxShapes=images:32x3x16x16" in said
    assert "--verbose" in said


def test_a_form_that_was_not_exported_is_named(tmp_path: Path) -> None:
    found = export(randomise(Mobile()), tmp_path / "b", ("onnx",))
    with pytest.raises(BundleError, match=r"holds no 'openvino'.*it holds onnx"):
        open_session(found, 1, "openvino")


def test_bench_interleaves_forms(bundle: Bundle) -> None:
    result = bench(
        [Candidate(bundle, name) for name in ("onnx", "onnx-int8", "openvino", "executorch")],
        patches=12,
        batch=2,
    )
    assert [one["target"] for one in result.bundles] == [
        "onnx",
        "onnx-int8",
        "openvino",
        "executorch",
    ]
    assert len(result.ratios) == 3
    assert ["onnxruntime" in one["runtime"] for one in result.bundles] == [True, True, False, False]


def _changed(bundle: Bundle, out: Path, file: str, change: Any) -> Path:
    """A copy of a bundle whose file was changed, with a checksum to match: what somebody with bad intentions would send."""
    shutil.copytree(bundle.path, out)
    change(out / file)
    reseal_bundle(out, lambda told: None)
    return out


def test_a_model_that_answers_otherwise_fails_the_self_test(bundle: Bundle, tmp_path: Path) -> None:
    other = export(randomise(Mobile(), seed=5), tmp_path / "other", ("onnx",))
    swapped = _changed(
        bundle, tmp_path / "b", "model.onnx", lambda file: shutil.copy(other.model(), file)
    )
    with pytest.raises(BundleError, match="differ by"):
        open_session(open_bundle(swapped)).self_test()
    with pytest.raises(BundleError, match="differ by"):
        bench([Candidate(open_bundle(swapped))], patches=2)


@pytest.mark.parametrize("name", HERE)
def test_truncated_models_get_one_line(bundle: Bundle, tmp_path: Path, name: str) -> None:
    file = TARGETS[name].file

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    hurt = _changed(bundle, tmp_path / "b", file, cut)
    with pytest.raises(BundleError, match=r"can't load the model") as caught:
        open_session(open_bundle(hurt), 1, name)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_shape_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    small = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)
    )
    other = export_bundle(
        small,
        tmp_path / "o",
        model_name="m",
        task=TASK.model_copy(update={"classes": tuple("abcdefg")}),
        images=IMAGES,
        macs=1,
        params=1,
    )
    swapped = _changed(
        bundle, tmp_path / "b", "model.onnx", lambda file: shutil.copy(other.model(), file)
    )
    with pytest.raises(BundleError, match=r"gives \(1, 7\), the manifest has 3 classes"):
        open_session(open_bundle(swapped))


@pytest.mark.parametrize("content", ["pickle", "shape", "missing", "zip"])
def test_hostile_self_tests_are_refused(bundle: Bundle, tmp_path: Path, content: str) -> None:
    def change(file: Path) -> None:
        if content == "pickle":
            np.savez(file, pixels=np.array([{"a": 1}], dtype=object), outputs=np.zeros((1, 3)))
        elif content == "shape":
            np.savez(file, pixels=np.zeros((1, 8, 8, 3), np.uint8), outputs=np.zeros((1, 3)))
        elif content == "missing":
            np.savez(file, pixels=np.zeros((1, 16, 16, 3), np.uint8))
        else:
            file.write_bytes(b"PK not a zip")

    hurt = _changed(bundle, tmp_path / "b", SELFTEST, change)
    with pytest.raises(BundleError, match="self-test can't be read"):
        open_session(open_bundle(hurt)).self_test()


def test_a_target_that_is_not_known_is_named(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    reseal_bundle(tmp_path / "b", lambda told: told["forms"].update(nonsense=told["forms"]["onnx"]))
    with pytest.raises(BundleError, match="'nonsense' is not one that can be run"):
        open_bundle(tmp_path / "b")


def test_compare_counts_ties_as_the_same_label() -> None:
    wanted = np.array([[1.0, 1.0 - 1e-7], [3.0, 1.0]], np.float32)
    assert (
        compare(DECODER, np.array([[1.0 - 1e-6, 1.0], [3.0, 1.0]], np.float32), wanted).agreement
        == 1
    )
    assert compare(DECODER, np.array([[0.0, 1.0], [3.0, 1.0]], np.float32), wanted).agreement == 0.5
    with pytest.raises(BundleError, match="not numbers"):
        compare(DECODER, np.array([[np.nan, 0.0], [0.0, 1.0]], np.float32), wanted)
