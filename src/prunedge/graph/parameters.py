"""Parameters on their way to a layer: which of its own positions each element of a view is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunedge.graph.label_tensors import compact, lying_along


@dataclass(frozen=True)
class ParamView:
    """A parameter, or a view of one.

    `coordinates` holds for each of the parameter's dimensions a tensor of the view's shape: where
    along that dimension each element comes from.
    """

    name: str
    coordinates: tuple[torch.Tensor, ...]

    @classmethod
    def whole(cls, name: str, tensor: torch.Tensor) -> ParamView:
        """The parameter as it is."""
        coordinates = []
        for dim, size in enumerate(tensor.shape):
            line = lying_along(torch.arange(size), dim, tensor.dim())
            coordinates.append(line.expand(tensor.shape))
        return cls(name, tuple(coordinates))

    def along(self, dim: int) -> tuple[int, torch.Tensor] | None:
        """(the parameter's dimension, its index for each position along the view's `dim`).

        None when `dim` mixes several of the parameter's dimensions, or has size 1.
        """
        small = [compact(coordinate) for coordinate in self.coordinates]
        varying = [axis for axis, coordinate in enumerate(small) if coordinate.shape[dim] > 1]
        if len(varying) != 1:
            return None
        coordinate = small[varying[0]]
        if coordinate.numel() != coordinate.shape[dim]:
            return None
        # Values that were padded on come from nowhere in the parameter: -1.
        line = coordinate.reshape(-1)
        return None if bool((line < 0).any()) else (varying[0], line)
