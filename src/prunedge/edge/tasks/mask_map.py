"""The map of a photograph, which the maps of its tiles are blended into. Numpy and Pillow."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np
from PIL import Image

from prunedge.edge.tasks.base import Tiles

MOST_PIXELS = 8_000_000  # of a photograph's map: a larger photograph has one of every second pixel

Box = tuple[int, int, int, int]


def map_edges(tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the rows and of the columns of a photograph's map, in pixels: the map has a
    place for each pixel, or for several of a photograph of more than `MOST_PIXELS`.
    """
    width, height = tiles.extent
    cell = cell_of(tiles)
    down = np.append(np.arange(0, height, cell), height)
    across = np.append(np.arange(0, width, cell), width)
    return down, across


def cell_of(tiles: Tiles) -> int:
    """The side of a place of the map, in pixels."""
    width, height = tiles.extent
    return max(1, ceil(sqrt(width * height / MOST_PIXELS)))


def place_of(box: Box, cell: int) -> Box:
    """Where a tile lies on a map with places of `cell` pixels: its first column and row, and the
    first after it.
    """
    left, top, right, bottom = box
    return left // cell, top // cell, -(-right // cell), -(-bottom // cell)


def blended(maps: Iterable[np.ndarray], tiles: Tiles, layers: int) -> np.ndarray:
    """The map of a photograph (layers, rows, columns) float16, of those of its tiles (layers,
    height, width) float32, row by row: each counts the less the nearer to its own edge, so that
    tiles that overlap leave no seam.
    """
    rows, columns = (len(edges) - 1 for edges in map_edges(tiles))
    canvas = np.zeros((layers, rows, columns), np.float16)
    cell = cell_of(tiles)
    boxes = list(tiles.boxes())
    down = _total_weights({(top, bottom) for _, top, _, bottom in boxes}, rows, cell)
    across = _total_weights({(left, right) for left, _, right, _ in boxes}, columns, cell)

    for tile, box in zip(maps, boxes, strict=True):
        left, top, right, bottom = place_of(box, cell)
        weights = np.outer(
            _ramp(bottom - top) / down[top:bottom], _ramp(right - left) / across[left:right]
        )
        for layer, values in zip(canvas, tile, strict=True):
            layer[top:bottom, left:right] += weights * scaled(values, weights.shape)
    return canvas


def _ramp(length: int) -> np.ndarray:
    """How much each place along a tile counts (length,) float32: the middle most."""
    places = np.arange(length)
    return np.minimum(places + 1, length - places).astype(np.float32)


def _total_weights(spans: Iterable[tuple[int, int]], length: int, cell: int) -> np.ndarray:
    """The sum of the weights of tiles with these different spans in pixels, at each of `length`
    places of `cell` pixels along a side, float32.
    """
    total = np.zeros(length, np.float32)
    for start, stop in spans:
        first, last = start // cell, -(-stop // cell)
        total[first:last] += _ramp(last - first)
    return total


def scaled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map (height, width) float32 in another size, as images are scaled."""
    if values.shape == shape:
        return values
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
