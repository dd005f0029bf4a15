"""What a model can be exported as, and the runtime that each form needs: one row a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One form of a model: `file` in the bundle, the module in `prunedge.edge.runtimes` that runs
    it, the extra that brings that runtime.

    `is_exact`: its answers are torch's but for rounding; others (eight-bit integers) are judged by
    the labels that they give. `batches`: it takes any number of images at a time; the others get
    them one by one.
    """

    name: str
    file: str
    runtime: str
    extra: str | None = None
    is_exact: bool = True
    batches: bool = True


TARGETS = {
    target.name: target
    for target in (
        Target("onnx", "model.onnx", "onnx"),
        Target("onnx-int8", "model.int8.onnx", "onnx", is_exact=False),
        Target("openvino", "model.openvino.xml", "openvino", "openvino"),
        Target("openvino-int8", "model.openvino-int8.xml", "openvino", "openvino", is_exact=False),
        Target("executorch", "model.pte", "executorch", "executorch", batches=False),
        Target("tensorrt", "model.onnx", "tensorrt", is_exact=False),
    )
}
