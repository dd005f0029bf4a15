"""How long each layer takes on a device at every width that it may get: measured on a grid, read
off in between.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prunedge.errors import PrunedgeError
from prunedge.latency.layer_files import write_probe
from prunedge.latency.layers import Shape
from prunedge.latency.staircase import step_of
from prunedge.latency.timer import Timer

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)
COSTLIEST = 3  # kinds of layers whose staircase is measured
WINDOW = 16  # channels on each side of the middle
FEW = 4  # inputs that no plan changes: the colours of an image

Axis = Literal["outputs", "inputs"]


@dataclass(frozen=True)
class TimeGrid:
    """Milliseconds of one kind of layer: `ms[i][j]` with `inputs[i]` and `outputs[j]` channels
    (depthwise: one column).
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def at(self, inputs: float, outputs: float) -> float:
        """The time at these widths: linear between the measured ones, that of the nearest beyond
        them.
        """
        rows = [float(np.interp(outputs, self.outputs, row)) for row in self.ms]
        return float(np.interp(inputs, self.inputs, rows))


@dataclass(frozen=True)
class Staircase:
    """Milliseconds of one layer against its number of channels, one by one, and the step that was
    found in them.
    """

    layer: Shape
    axis: Axis
    channels: tuple[int, ...]
    ms: tuple[float, ...]
    step: int


@dataclass(frozen=True)
class LatencyTable:
    """The layers of a model on one device: `grids` by kind of layer, the `staircases` of the
    costliest, and what was measured with.
    """

    grids: Mapping[Shape, TimeGrid]
    staircases: tuple[Staircase, ...]
    runtime: str
    device: Mapping[str, Any]
    threads: int

    @property
    def step(self) -> int:
        """The numbers of channels that this runtime likes are multiples of this: the largest step
        found.
        """
        return max((staircase.step for staircase in self.staircases), default=1)

    def ms(self, layer: Shape) -> float:
        """Milliseconds of a layer of a kind in the table; widths between two steps cost as much as
        the next one.
        """
        grid = self.grids[layer.kind]
        inputs = layer.inputs if len(grid.inputs) == 1 else self._up(layer.inputs)
        return grid.at(inputs, inputs if layer.is_depthwise else self._up(layer.outputs))

    def knows(self, layers: Iterable[Shape]) -> bool:
        """Whether all these layers can be read off."""
        return all(map(self._knows, layers))

    def _knows(self, layer: Shape) -> bool:
        grid = self.grids.get(layer.kind)
        if grid is None or layer.inputs > grid.inputs[-1]:
            return False
        return layer.is_depthwise or layer.outputs <= grid.outputs[-1]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return {
            "grids": [{"kind": asdict(kind), **asdict(grid)} for kind, grid in self.grids.items()],
            "staircases": [asdict(staircase) for staircase in self.staircases],
            "step": self.step,
            "runtime": self.runtime,
            "device": dict(self.device),
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LatencyTable:
        """The table that `to_json` gave; KeyError, TypeError or ValueError when it is none."""
        grids = {}
        for about in record["grids"]:
            ms = tuple(map(tuple, about["ms"]))
            grid = TimeGrid(tuple(about["inputs"]), tuple(about["outputs"]), ms)
            grids[_shape(about["kind"])] = grid

        staircases = []
        for about in record["staircases"]:
            staircase = Staircase(
                _shape(about["layer"]),
                about["axis"],
                tuple(about["channels"]),
                tuple(about["ms"]),
                int(about["step"]),
            )
            staircases.append(staircase)
        threads = int(record["threads"])
        return cls(grids, tuple(staircases), record["runtime"], record["device"], threads)

    def _up(self, channels: int) -> int:
        return ceil(channels / self.step) * self.step


def measure_table(layers: Sequence[Shape], timer: Timer) -> LatencyTable:
    """Measure every kind of these layers from their full width down, and the staircases of the
    costliest, on the timer's device.
    """
    widest: dict[Shape, Shape] = {}
    for layer in layers:
        known = widest.get(layer.kind, layer)
        widest[layer.kind] = layer.wide(
            max(known.inputs, layer.inputs), max(known.outputs, layer.outputs)
        )
    stairs = _stairs(widest.values())
    grids = {kind: _widths(layer) for kind, layer in widest.items()}
    wanted: set[Shape] = set()
    for _, _, layers_of_one_stair in stairs:
        wanted.update(layers_of_one_stair)
    for kind, (inputs, outputs) in grids.items():
        wanted.update(widest[kind].wide(*widths) for widths in product(inputs, outputs))
    names = {
        layer: f"layer-{number:04d}.onnx" for number, layer in enumerate(sorted(wanted, key=str))
    }
    with tempfile.TemporaryDirectory() as folder:
        for layer, name in names.items():
            write_probe(layer, Path(folder) / name)
        timed = timer.time({name: Path(folder) / name for name in names.values()})
    ms = {layer: timed.ms[name] for layer, name in names.items()}
    measured = {}
    for kind, (inputs, outputs) in grids.items():
        rows = []
        for width in inputs:
            rows.append(tuple(ms[widest[kind].wide(width, other)] for other in outputs))
        measured[kind] = TimeGrid(inputs, outputs, tuple(rows))
    return LatencyTable(
        measured,
        tuple(_staircase(layer, axis, shapes, ms) for layer, axis, shapes in stairs),
        timed.runtime,
        timed.device,
        timer.threads,
    )


def _staircase(
    layer: Shape, axis: Axis, shapes: Sequence[Shape], ms: Mapping[Shape, float]
) -> Staircase:
    channels = tuple(getattr(shape, axis) for shape in shapes)
    times = tuple(ms[shape] for shape in shapes)
    return Staircase(layer, axis, channels, times, step_of(channels, times))


def _stairs(layers: Iterable[Shape]) -> list[tuple[Shape, Axis, list[Shape]]]:
    """The layers to time one channel after the other: the costliest convolutions, around half of
    their width.
    """
    wide = []
    for layer in layers:
        is_convolution = layer.kernel != (0, 0)
        if is_convolution and min(layer.inputs, layer.outputs) >= 2 * WINDOW:
            wide.append(layer)

    stairs: list[tuple[Shape, Axis, list[Shape]]] = []
    for layer in sorted(wide, key=_macs, reverse=True)[:COSTLIEST]:
        half = layer.wide(layer.inputs // 2, layer.outputs // 2)
        axes: tuple[Axis, ...] = ("inputs",) if layer.is_depthwise else ("outputs", "inputs")
        for axis in axes:
            middle = getattr(half, axis)
            first = max(1, middle - WINDOW)
            last = min(getattr(layer, axis), middle + WINDOW)
            shapes = []
            for n in range(first, last + 1):
                if layer.groups > 1 and not layer.is_depthwise and n % layer.groups:
                    continue
                inputs = n if axis == "inputs" else half.inputs
                outputs = n if axis == "outputs" else half.outputs
                shapes.append(half.wide(inputs, outputs))
            stairs.append((half, axis, shapes))
    return stairs


def _macs(layer: Shape) -> float:
    rows, columns = layer.size
    return rows * max(1, columns) / prod(layer.stride) * layer.weights


def _widths(layer: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths to measure a layer at."""
    inputs = (layer.inputs,) if layer.inputs <= FEW else _shares(layer.inputs, layer)
    return inputs, (layer.outputs,) if layer.is_depthwise else _shares(layer.outputs, layer)


def _shares(width: int, layer: Shape) -> tuple[int, ...]:
    blocks = 1 if layer.is_depthwise else layer.groups
    # Between the steps of any runtime that we know nothing is lost.
    unit = max(blocks, 16 if width >= 64 else 1)
    unit = ceil(unit / blocks) * blocks
    widths = {min(width, blocks)}
    for share in SHARES:
        widths.add(min(width, max(unit, round(width * share / unit) * unit)))
    return tuple(sorted(widths))


def _shape(values: Mapping[str, Any]) -> Shape:
    known = Shape(0, 0, (0, 0))
    if set(values) != set(asdict(known)):
        raise PrunedgeError("a table of another prunedge", remedy="delete it")
    plain: dict[str, Any] = {}
    for key, value in values.items():
        plain[key] = tuple(value) if isinstance(value, list) else value
    return replace(known, **plain)
