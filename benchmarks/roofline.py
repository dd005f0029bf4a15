"""How well a roofline tells milliseconds: whole networks by ONNX Runtime, one thread, batch 1, beside the estimate of `--for latency` without a device.

    python benchmarks/roofline.py

Prints each network's measured and estimated milliseconds, and the two speeds that suit this machine best (least squares of the relative
errors, neither negative). Only their ratio decides which channels are dear.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import save
from scipy.optimize import nnls
from torch import nn

from prunedge.graph import trace
from prunedge.latency import Timer
from prunedge.latency.layers import layers_of
from prunedge.latency.roofline import ONE_CORE
from prunedge.latency.steering import time_models
from prunedge.models import build

SIZES = (96, 224)
NETWORKS = ("vgg16", "resnet18", "mobilenet_v3_small", "mobilenet_v2", "squeezenet1_0", "efficientnet_lite0")
NARROW = ((4, 1024), (8, 4096), (8, 512), (16, 64))  # a VGG16 with its widths divided, and so many neurons
WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def main() -> None:
    """Time every network at every size, fit, print and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for name in (*NETWORKS, *NARROW):
            model = build(name, ["a", "b"], "none", seed=0) if isinstance(name, str) else narrow(*name)
            rows.append({"network": str(name), "size": size, **measured(model.eval(), size)})
            one = rows[-1]
            print(f"{one['network']:20} {size:4} px  {one['ms']:8.2f} ms, estimated {one['estimated']:8.2f}", flush=True)

    design = np.array([[row["macs"], 4 * row["numbers"]] for row in rows])
    times = np.array([row["ms"] for row in rows])
    weights, _ = nnls(design / times[:, None], np.ones(len(rows)))
    speeds = {"gmacs_a_second": 1e-6 / weights[0], "gb_a_second": 1e-6 / weights[1]}
    print(f"best here: {speeds['gmacs_a_second']:.0f} thousand million MACs and {speeds['gb_a_second']:.0f} GB a second")
    save("roofline", {"rows": rows, "best_here": speeds})


def measured(model: nn.Module, size: int) -> dict[str, float]:
    """Milliseconds by ONNX Runtime, and by the estimate."""
    example = torch.randn(1, 3, size, size)
    graph = trace(model, example)
    activations = sum(shape.activations for _, shape in layers_of(model, example))
    numbers = graph.params() + activations
    timed = time_models([model], example, Timer("local", "onnx", 1))
    return {
        "macs": graph.macs(),
        "numbers": numbers,
        "ms": timed.ms["model-0.onnx"],
        "estimated": ONE_CORE.ms(graph.macs(), numbers),
    }


def narrow(divisor: int, neurons: int) -> nn.Module:
    """A VGG16 of few channels."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, width // divisor, 3, padding=1), nn.ReLU()]
        inputs = width // divisor
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(49 * inputs, neurons), nn.ReLU()]
    layers += [nn.Linear(neurons, neurons), nn.ReLU(), nn.Linear(neurons, 2)]
    return nn.Sequential(*layers)


if __name__ == "__main__":
    main()
