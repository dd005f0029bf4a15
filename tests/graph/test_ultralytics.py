"""ultralytics' models after pruning: whatever their library does with them (fuse, export, train, other sizes) still works."""

from __future__ import annotations

import copy
import io
import pickle
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_flatten

from prunedge.graph import trace
from prunedge.graph.sizes import pinned_modules
from prunedge.pruning.select import random_plan
from prunedge.surgery import operate, sizes_of
from tests.small_models import randomise

pytestmark = pytest.mark.slow

KINDS = {
    "-seg": "SegmentationModel",
    "-pose": "PoseModel",
    "-obb": "OBBModel",
    "-cls": "ClassificationModel",
}
NAMES = [
    "yolov8n",
    "yolov9t",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
    "yolov8n-seg",
    "yolo11n-pose",
    "yolo11n-obb",
    "yolo11n-cls",
]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tasks() -> ModuleType:
    """ultralytics' models. Its import replaces functions of Pillow and torch for the whole process: they are put back."""
    before = Image.open, torch.save
    found = pytest.importorskip(
        "ultralytics.nn.tasks", reason="needs ultralytics: pip install -e '.[zoo]'"
    )
    Image.open, torch.save = before
    return found


def build(name: str) -> nn.Module:
    kind = next((kind for part, kind in KINDS.items() if name.endswith(part)), "DetectionModel")
    return randomise(getattr(tasks(), kind)(f"{name}.yaml", verbose=False))


def cut(model: nn.Module, seed: int = 0) -> nn.Module:
    graph = trace(model, IMAGES)
    surgery = operate(
        model, graph, random_plan(graph, 0.3, torch.Generator().manual_seed(seed), least=2)
    )
    assert surgery.refused == {}
    return surgery.model.eval()


def answers(model: Any, images: torch.Tensor = IMAGES) -> list[torch.Tensor]:
    with torch.no_grad():
        return [x for x in tree_flatten(model(images))[0] if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_model_is_as_good_as_any(name: str) -> None:
    model = build(name)
    small = cut(model)
    torch.manual_seed(1)
    again = pickle.loads(pickle.dumps(copy.deepcopy(small)))
    assert all(torch.equal(a, b) for a, b in zip(answers(again), answers(small), strict=True))

    # Cold or warm, at the same size or another one before: the same model.
    answers(model, torch.rand(1, 3, 96, 96))
    answers(model)
    warm = cut(model)
    assert {n: x.shape for n, x in warm.state_dict().items()} == {
        n: x.shape for n, x in small.state_dict().items()
    }
    for a, b in zip(answers(warm), answers(small), strict=True):
        torch.testing.assert_close(a, b)

    trained = copy.deepcopy(small).train()
    sum(
        x.float().square().mean()
        for x in tree_flatten(trained(IMAGES))[0]
        if isinstance(x, torch.Tensor) and x.requires_grad
    ).backward()
    torch.optim.SGD(trained.parameters(), 1e-4).step()
    assert answers(trained.eval(), torch.rand(1, 3, 96, 128))

    twice = cut(small, seed=1)
    assert answers(twice.train())
    assert answers(twice.eval())


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_model_is_fused_and_exported_as_ultralytics_does(name: str) -> None:
    from ultralytics.nn.modules import C2f, Classify, Detect

    small = cut(build(name))
    before = answers(small)
    fused = copy.deepcopy(small).requires_grad_(False).fuse(verbose=False)
    torch.testing.assert_close(answers(fused)[0], before[0], rtol=1e-3, atol=1e-3)
    for module in fused.modules():
        if isinstance(module, (Classify, Detect)):
            module.export, module.format = True, "onnx"
        if isinstance(module, Detect):
            module.dynamic, module.shape, module.max_det = False, None, 20
        elif isinstance(module, C2f):
            module.forward = module.forward_split
    wanted = answers(fused)
    with pytest.warns():  # deprecated, and shapes become constants
        recorded = torch.jit.trace(fused, IMAGES, strict=False, check_trace=False)
    torch.testing.assert_close(answers(recorded)[0], wanted[0])
    onnxruntime, file = pytest.importorskip("onnxruntime"), io.BytesIO()
    torch.onnx.export(fused, (IMAGES,), file, dynamo=False, opset_version=17)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found, *_) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted[0], rtol=1e-3, atol=1e-3)


def test_the_size_that_forward_split_reads_is_mended() -> None:
    from ultralytics.nn.modules import C2f

    small = cut(build("yolov8n"))
    layers = {name: module for name, module in small.named_modules() if isinstance(module, C2f)}
    assert layers
    assert not list(pinned_modules(small))
    for name, module in layers.items():
        assert module.cv1.conv.out_channels == 2 * module.c
        assert sizes_of(small)[f"{name}.c"] == module.c
