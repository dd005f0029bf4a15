"""What a model can be exported as, and the runtime that each form needs: one row a target."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 1e-3  # of the largest output, that a form in float32 may differ from torch by
HALF_TOLERANCE = 1e-2  # the same for half precision: eleven bits, through many layers


@dataclass(frozen=True)
class Target:
    """One form of a model: `file` in the bundle, the module in `prunedge.edge.runtimes` that runs
    it, the `extra` of prunedge that brings that runtime, and `export_extra`, what writing the form
    needs beyond running it. `packages` make and run it; their versions are noted in a bundle.

    `is_exact`: its answers are torch's but for rounding, its outputs to `tolerance` of the largest;
    others (eight-bit integers) are judged by the predictions that they give. `is_integer`: it is
    calibrated on training images. `is_mixable`: where integers lose too much, some of its layers
    can be float. `batches`: it takes any number of images at a time; the others
    get them one by one. `runs_here`: an export runs it, and compares it with torch; the self-test
    on the device judges the others.
    `times_layers`: its runtime takes any ONNX file, so that single layers can be timed with it.
    """

    name: str
    file: str
    runtime: str
    packages: tuple[str, ...]
    extra: str | None = None
    export_extra: str | None = None
    is_exact: bool = True
    tolerance: float = TOLERANCE
    is_integer: bool = False
    is_mixable: bool = False
    batches: bool = True
    runs_here: bool = True
    times_layers: bool = False


TARGETS = {
    target.name: target
    for target in (
        Target("onnx", "model.onnx", "onnx", ("onnx", "onnxruntime"), times_layers=True),
        Target(
            "onnx-fp16",
            "model.fp16.onnx",
            "onnx",
            ("onnx", "onnxruntime"),
            tolerance=HALF_TOLERANCE,
        ),
        Target(
            "onnx-int8",
            "model.int8.onnx",
            "onnx",
            ("onnx", "onnxruntime"),
            is_exact=False,
            is_integer=True,
            is_mixable=True,
        ),
        Target(
            "openvino",
            "model.openvino.xml",
            "openvino",
            ("openvino",),
            extra="openvino",
            times_layers=True,
        ),
        Target(
            "openvino-fp16",
            "model.openvino-fp16.xml",
            "openvino",
            ("openvino",),
            extra="openvino",
            tolerance=HALF_TOLERANCE,
        ),
        Target(
            "openvino-int8",
            "model.openvino-int8.xml",
            "openvino",
            ("openvino", "nncf"),
            extra="openvino",
            export_extra="int8",
            is_exact=False,
            is_integer=True,
        ),
        Target(
            "executorch",
            "model.pte",
            "executorch",
            ("executorch",),
            extra="executorch",
            batches=False,
        ),
        Target(
            "torch-export",
            "model.pt2",
            "torch_export",
            ("torch",),
            extra="prune",
            batches=False,
        ),
        Target(
            "ncnn",
            "model.ncnn.param",
            "ncnn",
            ("ncnn", "pnnx"),
            extra="ncnn",
            export_extra="ncnn-export",
            batches=False,
        ),
        Target(
            "ncnn-fp16",
            "model.ncnn-fp16.param",
            "ncnn_fp16",
            ("ncnn", "pnnx"),
            extra="ncnn",
            export_extra="ncnn-export",
            tolerance=HALF_TOLERANCE,
            batches=False,
        ),
        Target(
            "tensorrt",
            "model.onnx",
            "tensorrt",
            ("onnx", "onnxruntime"),
            is_exact=False,
            runs_here=False,
            times_layers=True,
        ),
    )
}

# What every other form is made from, and compared with where it is not exact.
ONNX = TARGETS["onnx"]
