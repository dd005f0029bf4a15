"""Latency on a device as what a plan costs: predicted from the table for every plan, measured for
every model that is kept.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.data.paths import cache_folder
from prunedge.data.records_cache import cached, keep_cached
from prunedge.errors import PrunedgeError
from prunedge.export.onnx import write_onnx
from prunedge.graph import ChannelGraph, copied, trace
from prunedge.graph.plan import Plan
from prunedge.latency.layers import Shape, layers_of, shapes_after
from prunedge.latency.table import LatencyTable, measure_table
from prunedge.latency.timer import Timed, Timer
from prunedge.models.build import require_model
from prunedge.surgery import remove
from prunedge.utils.arguments import require
from prunedge.utils.files import make_folder
from prunedge.utils.tracing import traced

# Shares of their channels that the first and the second half of the groups lose in the models
# which calibrate the prediction. Unequal ones tell the time of computing, which lies in the first
# layers, from that of fetching weights, which lie in the last.
CALIBRATED = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (0.75, 0.0), (0.0, 0.5), (0.25, 0.75))
# MB of weights that may stay in the processor from one image to the next.
CACHES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Fit:
    """Whole models from their layers: ms = `layers` * (sum of the layers' ms) + `megabyte` * (MB
    of weights over `cache`) + `rest`.

    A layer that is timed alone has its weights in the cache, and its images in an order that
    suits it alone; a whole model fetches its weights anew for every image where they exceed the
    cache. `points` are (predicted, measured) ms of the models that it was fitted to.
    """

    layers: float
    megabyte: float
    rest: float
    cache: float = 0.0
    points: tuple[tuple[float, float], ...] = ()

    @property
    def error(self) -> float:
        """The largest relative error on the points."""
        return max(
            (abs(predicted - measured) / measured for predicted, measured in self.points),
            default=0.0,
        )

    def ms(self, layers_ms: float, megabytes: float) -> float:
        """Milliseconds of a whole model."""
        return (
            self.layers * layers_ms + self.megabyte * max(0.0, megabytes - self.cache) + self.rest
        )

    @classmethod
    def to(
        cls, layers_ms: Sequence[float], megabytes: Sequence[float], measured: Sequence[float]
    ) -> Fit:
        """Least squares of the relative errors, none of the numbers being negative, with whichever
        of the `CACHES` suits best.
        """
        from scipy.optimize import nnls  # half a second, which only steering needs

        times = np.asarray(measured)
        ones = np.ones_like(times)
        best = np.inf
        for cache in CACHES:
            fetched = np.maximum(0.0, np.asarray(megabytes) - cache)
            design = np.stack([np.asarray(layers_ms), fetched, ones], 1)
            weights, residual = nnls(design / times[:, None], ones)
            if residual < best:
                best = residual
                fit = cls(float(weights[0]), float(weights[1]), float(weights[2]), cache)

        points = []
        for alone_ms, size_mb, measured_ms in zip(layers_ms, megabytes, measured, strict=True):
            points.append((fit.ms(alone_ms, size_mb), measured_ms))
        return replace(fit, points=tuple(points))


@dataclass(frozen=True)
class Steering:
    """What the loop asks about a device: what each channel costs there, what a plan would give,
    what a model takes.
    """

    timer: Timer
    table: LatencyTable
    fit: Fit

    @property
    def multiple(self) -> int:
        """The step in the numbers of channels that the runtime likes."""
        return self.table.step

    def cost(self, model: nn.Module, graph: ChannelGraph) -> LatencyCost:
        """What a model, and a channel of it, is predicted to take."""
        return LatencyCost(self, tuple(layers_of(model, _tensor(graph))), graph)

    @traced("device")
    def measure(self, model: nn.Module, example: torch.Tensor) -> float:
        """Milliseconds that a model takes for one image, on the device."""
        return time_models([model], example, self.timer).ms["model-0.onnx"]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return {
            "address": self.timer.address,
            "target": self.timer.target,
            "table": self.table.to_json(),
            "fit": asdict(self.fit),
            "error": self.fit.error,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Steering:
        """The steering that `to_json` gave."""
        table = LatencyTable.from_json(record["table"])
        fit = dict(record["fit"])
        fit["points"] = tuple((float(a), float(b)) for a, b in fit["points"])
        timer = Timer(record["address"], record["target"], table.threads)
        return cls(timer, table, Fit(**fit))


@dataclass(frozen=True)
class LatencyCost:
    """Milliseconds for one image on a device, as its table of `layers` predicts them of the model
    with this graph.
    """

    steering: Steering
    layers: tuple[tuple[str, Shape], ...]
    graph: ChannelGraph

    def total(self, plan: Plan | None = None) -> float:
        """Milliseconds after the plan."""
        shapes = shapes_after(self.layers, self.graph.sizes(plan))
        return self.steering.fit.ms(*_sums(self.steering.table, shapes))


def steer(
    model: nn.Module, example: torch.Tensor, timer: Timer, cache: Path | None = None
) -> Steering:
    """Get to know a device: measure the layers' table (or take it from the cache) and fit the
    prediction to a few whole models.

    The table of a device, a runtime and a set of layers is measured once and kept in the cache
    folder (`PRUNEDGE_CACHE`).
    """
    require_model(model)
    require("example", example, torch.Tensor, "a batch of images (N, 3, H, W)")
    if not hasattr(timer, "time"):
        raise TypeError(f"timer is a prunedge.Timer, not {type(timer).__name__}")
    shapes = [shape for _, shape in layers_of(model, example)]
    whole = time_models([model], example, timer)
    file = _cached(shapes, timer, whole, cache)
    table = _read(file, shapes)
    if table is None:
        table = measure_table(shapes, timer)
        make_folder(file.parent)
        keep_cached(file, table.to_json())
    graph = trace(model, example)
    smaller = [remove(model, graph, _halves(graph, shares, table.step)) for shares in CALIBRATED]
    timed = time_models(smaller, example, timer)
    measured = [*whole.ms.values(), *(timed.ms[name] for name in sorted(timed.ms))]
    layers_ms = []
    megabytes = []
    for each in (model, *smaller):
        its_shapes = [shape for _, shape in layers_of(each, example)]
        its_ms, its_megabytes = _sums(table, its_shapes)
        layers_ms.append(its_ms)
        megabytes.append(its_megabytes)
    return Steering(timer, table, Fit.to(layers_ms, megabytes, measured))


def _halves(graph: ChannelGraph, shares: tuple[float, float], step: int) -> Plan:
    """The first and the second half of the groups lose these shares of their channels, rounded to
    the step that the runtime likes.
    """
    keep = {}
    for index, group in enumerate(graph.groups):
        is_second_half = 2 * index >= len(graph.groups)
        rounded = round(group.size * (1 - shares[is_second_half]) / step) * step
        kept = max(min(step, group.size), rounded)
        if kept < group.size:
            keep[group.name] = tuple(range(kept))
    return Plan(keep)


def _sums(table: LatencyTable, layers: Sequence[Shape]) -> tuple[float, float]:
    """Milliseconds of all layers, each alone, and megabytes (10^6) of their float32 weights."""
    return sum(map(table.ms, layers)), sum(layer.weights for layer in layers) * 4 / 1e6


def time_models(models: Sequence[nn.Module], example: torch.Tensor, timer: Timer) -> Timed:
    """Milliseconds of whole models on the device, as model-0.onnx and so on."""
    with tempfile.TemporaryDirectory() as folder:
        return timer.time(write_models(models, example, Path(folder)))


def write_models(
    models: Sequence[nn.Module], example: torch.Tensor, folder: Path
) -> dict[str, Path]:
    """Write whole models as model-0.onnx and so on; gives the files by their names."""
    files = {}
    for number, model in enumerate(models):
        name = f"model-{number}.onnx"
        files[name] = folder / name
        # The loop's own model stays where it is, and in its mode.
        write_onnx(copied(model).cpu().eval(), files[name], tuple(example.shape[1:]))
    return files


def _tensor(graph: ChannelGraph) -> torch.Tensor:
    assert isinstance(graph.example, torch.Tensor)
    return graph.example


def _cached(shapes: Sequence[Shape], timer: Timer, timed: Timed, cache: Path | None) -> Path:
    about = [
        timer.address,
        timer.target,
        timer.threads,
        timed.runtime,
        timed.device,
        sorted(set(map(str, shapes))),
    ]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder(cache) / "latency" / f"{key}.json"


def _read(file: Path, shapes: Sequence[Shape]) -> LatencyTable | None:
    try:
        record = cached(file)
        if record is None:
            return None
        table = LatencyTable.from_json(record)
    except (ValueError, KeyError, TypeError, PrunedgeError):
        return None
    return table if table.knows(shapes) else None
