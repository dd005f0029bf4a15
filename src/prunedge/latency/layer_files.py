"""One layer as an ONNX file of a few hundred bytes: its weights are made when the runtime loads
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunedge.latency.layers import Shape

OPSET = 17


def write_probe(shape: Shape, file: Path) -> None:
    """Write a layer with its bias and a ReLU, as runtimes fuse them; for one image."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    value = numpy_helper.from_array(np.array([0.01], np.float32))
    is_linear = shape.kernel == (0, 0)
    weight = (
        [shape.inputs, shape.outputs]
        if is_linear
        else [shape.outputs, shape.inputs // shape.groups, *shape.kernel]
    )
    image = [shape.size[0], shape.inputs] if is_linear else [1, shape.inputs, *shape.size]
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value)
        for name in ("weight", "bias")
    ]  # folded into constants before anything runs
    if is_linear:
        nodes += [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"])]
    else:
        pads = [*shape.padding, *shape.padding]
        nodes += [
            helper.make_node(
                "Conv",
                ["x", "weight", "bias"],
                ["made"],
                kernel_shape=shape.kernel,
                strides=shape.stride,
                pads=pads,
                dilations=shape.dilation,
                group=shape.groups,
            ),
            helper.make_node("Relu", ["made"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(weight, np.int64), "weight_shape"),
            numpy_helper.from_array(np.array([shape.outputs], np.int64), "bias_shape"),
        ],
    )
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9),
        str(file),
    )
