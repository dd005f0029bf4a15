"""Boxes, ellipses and circles as polygons (n, 2) of x and y in pixels."""

from __future__ import annotations

import numpy as np

CORNERS = 180  # of the polygon that stands for an ellipse: two degrees from one to the next


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A box by its sides."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """An ellipse by its centre and its half axes. ValueError where these are none."""
    if across <= 0 or down <= 0:
        raise ValueError(f"an ellipse with half axes of {across:g} and {down:g}")
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1)


def turned(points: np.ndarray, degrees: float, x: float, y: float) -> np.ndarray:
    """Points that are turned clockwise, as images show it, around a place."""
    if not degrees:
        return points
    angle = np.deg2rad(degrees)
    across, down = (points - (x, y)).T
    return np.stack(
        [
            x + across * np.cos(angle) - down * np.sin(angle),
            y + across * np.sin(angle) + down * np.cos(angle),
        ],
        1,
    )
