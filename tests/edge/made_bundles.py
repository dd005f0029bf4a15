"""Bundles made without torch, as small as they can be: what a device gets, from ONNX's own nodes and numpy's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from prunedge.edge.bundle import write_manifest
from prunedge.edge.image.normalise import normalise, statistics
from prunedge.edge.image.read import InChannels
from prunedge.edge.image.size import Resize, Size, square
from prunedge.edge.manifest import ExportCheck, Form, View
from prunedge.edge.tasks.base import TaskSpec

OPSET = 18
OPTIONAL = ("model.safetensors", "plan.json")


def write_bundle(
    folder: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, np.ndarray],
    *,
    model_name: str,
    classes: Sequence[str],
    size: int | Size,
    resize: Resize = "stretch",
    view: View | None = None,
    task: str = "classification",
    in_channels: InChannels = 3,
) -> Path:
    """A bundle in the new `folder` whose model's nodes lead from "images" (n, in_channels, height, width) to "logits": (n, classes), or (n, classes, height, width) of the task `segmentation`."""
    size = square(size) if isinstance(size, int) else size
    folder.mkdir(parents=True)
    inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", in_channels, *size])
    shape = ["n", len(classes), *(size if task == "segmentation" else ())]
    outputs = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    constants = [
        numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()
    ]
    graph = helper.make_graph(nodes, model_name, [inputs], [outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (4, *size, in_channels), dtype=np.uint8)
    mean, std = statistics("imagenet", in_channels)
    (answers,) = session.run(None, {"images": normalise(pixels, mean, std)})
    np.savez_compressed(folder / "selftest.npz", pixels=pixels, outputs=answers)
    # What a torch user of the bundle would load, and no device.
    for name in OPTIONAL:
        (folder / name).write_bytes(b"{}")
    check = ExportCheck(images=len(pixels), max_abs_difference=0.0, agreement=1.0)
    write_manifest(
        folder,
        ["model.onnx", "selftest.npz", *OPTIONAL],
        OPTIONAL,
        model=model_name,
        task=TaskSpec(
            name=task, classes=tuple(classes), size=size, resize=resize, in_channels=in_channels
        ),
        view=view,
        mean=mean,
        std=std,
        macs=10,
        params=20,
        forms={"onnx": Form(files=["model.onnx"], check=check)},
    )
    return folder


def write_convolutional(
    folder: Path, *, model: str, classes: Sequence[str], size: int = 16, seed: int = 0
) -> Path:
    """A bundle with two convolutions and a linear head of random weights."""
    draw = np.random.default_rng(seed)
    weights = {
        "stem": draw.normal(0, 0.3, (8, 3, 3, 3)),
        "middle": draw.normal(0, 0.2, (12, 8, 3, 3)),
        "head": draw.normal(0, 0.5, (len(classes), 12)),
        "shift": draw.normal(0, 0.1, len(classes)),
    }
    around = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["a"], **around),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "middle"], ["c"], strides=[2, 2], **around),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "shift"], ["logits"], transB=1),
    ]
    return write_bundle(folder, nodes, weights, model_name=model, classes=classes, size=size)


def write_darkest(
    folder: Path,
    size: int | Size,
    resize: Resize = "stretch",
    view: View | None = None,
    in_channels: InChannels = 3,
) -> Path:
    """A bundle whose answers are known: an image is a crack when one of its pixels is dark."""
    loud = [12.0 / in_channels] * in_channels
    weights = {"head": np.array([loud, loud]) * [[1], [-1]], "shift": np.array([-15.0, 15.0])}
    nodes = [
        helper.make_node("Neg", ["images"], ["dark"]),
        helper.make_node("GlobalMaxPool", ["dark"], ["darkest"]),
        helper.make_node("Flatten", ["darkest"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "shift"], ["logits"], transB=1),
    ]
    return write_bundle(
        folder,
        nodes,
        weights,
        model_name="darkest",
        classes=["crack", "noncrack"],
        size=size,
        resize=resize,
        view=view,
        in_channels=in_channels,
    )


def write_dark_and_bright(folder: Path, size: int) -> Path:
    """A bundle of several labels whose answers are known: an image has a crack when one of its pixels is dark, and salt when one is bright; it may have both, or none."""
    weights = {
        "head": np.array([[4.0] * 3 + [0.0] * 3, [0.0] * 3 + [4.0] * 3]),
        "shift": np.array([-15.0, -15.0]),
    }
    nodes = [
        helper.make_node("Neg", ["images"], ["dark"]),
        helper.make_node("Concat", ["dark", "images"], ["both"], axis=1),
        helper.make_node("GlobalMaxPool", ["both"], ["extremes"]),
        helper.make_node("Flatten", ["extremes"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "shift"], ["logits"], transB=1),
    ]
    return write_bundle(
        folder,
        nodes,
        weights,
        model_name="dark and bright",
        classes=["crack", "salt"],
        size=size,
        task="multilabel",
    )


def write_dark_pixels(folder: Path, size: int) -> Path:
    """A bundle of pixels whose answers are known: a pixel is a crack when it is dark, below about 40 of 255."""
    head = np.array([[-4.0] * 3, [4.0] * 3])[..., None, None]
    weights = {"head": head, "shift": np.array([-18.0, 18.0])}
    nodes = [helper.make_node("Conv", ["images", "head", "shift"], ["logits"], kernel_shape=[1, 1])]
    return write_bundle(
        folder,
        nodes,
        weights,
        model_name="dark pixels",
        classes=["crack", "sound"],
        size=size,
        view=View(kind="patch", width=size, height=size),
        task="segmentation",
    )
