"""Sizes in millimetres and how sure they are, by the law of propagation of uncertainty.

Source: Evaluation of measurement data, Guide to the expression of uncertainty in measurement (GUM),
JCGM 100:2008: 5.1.2, equation 10 (inputs that don't depend on each other), and 4.3.7 (what is known
to lie within ± a has a standard uncertainty of a / sqrt(3)).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any

from prunedge.edge.inspect.scale.quantity import COVERAGE

METHOD = 0.03  # of a length, by which drawn cracks were measured too long or short at most


@dataclass(frozen=True)
class Scale:
    """How many millimetres a pixel of the upright photograph shows. `standard` is the standard
    uncertainty of that, `source` says in words where it is from.
    """

    mm_per_pixel: float
    standard: float = 0.0
    source: str = "given"

    @property
    def uncertainty(self) -> float:
        """The expanded uncertainty (k = 2) of `mm_per_pixel`."""
        return COVERAGE * self.standard

    def length(self, pixels: float, standard: float) -> tuple[float, float]:
        """A length in millimetres and its expanded uncertainty, from one in pixels and its standard
        uncertainty: u(s p)² = (p u(s))² + (s u(p))².
        """
        combined = hypot(pixels * self.standard, self.mm_per_pixel * standard)
        return pixels * self.mm_per_pixel, COVERAGE * combined

    def area(self, pixels: float, standard: float) -> tuple[float, float]:
        """An area in mm² and its expanded uncertainty, from one in pixels and its standard
        uncertainty: u(s² p)² = (2 s p u(s))² + (s² u(p))².
        """
        squared = self.mm_per_pixel**2
        combined = hypot(2 * self.mm_per_pixel * pixels * self.standard, squared * standard)
        return pixels * squared, COVERAGE * combined

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "mm_per_pixel": self.mm_per_pixel,
            "uncertainty": self.uncertainty,
            "source": self.source,
        }


def width_uncertainty(resolution: float) -> float:
    """The standard uncertainty of a width, in pixels of the photograph, of which a pixel of the
    model has `resolution`: each of its two edges is known to half a pixel of the model,
    sqrt(2) (resolution / 2) / sqrt(3).
    """
    return sqrt(2) * (resolution / 2) / sqrt(3)


def length_uncertainty(length: float, resolution: float) -> float:
    """The standard uncertainty of a length along a centreline in pixels: that of its two ends, and
    that of the way in which it is measured.
    """
    return hypot(width_uncertainty(resolution), METHOD * length / sqrt(3))
