"""How the examples of a batch are folded into the dimensions of a layer's input.

The first dimension is not always the examples: windows are folded into the batch, the batch stands
behind the sequence or among the positions, tokens are shared by all examples. Sizes alone can't
tell (a batch of four and four windows have the same), so the model is asked
(`prunedge.importance.probing`): a few examples go through it, then the same with one of them
exchanged, one after the other. The rows that change are that example's. With three examples 0, 1, 2
and two windows each, a layer's rows may be

    0 0 1 1 2 2    (batch, windows):    Fold(dim=0, outer=1, inner=2)
    0 1 2 0 1 2    (windows, batch):    Fold(dim=0, outer=2, inner=1)

Where exactly one way to fold agrees with every row that changed, it is the answer, and holds for
any number of examples. Otherwise the examples can't be told apart, and have to go through one by
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

NOISE = 4.0  # times what the same examples differ by when they come again, as they may on a GPU


@dataclass(frozen=True)
class Fold:
    """Where the examples are in what a layer reads.

    Dimension `dim` counts (outer, examples, inner), from outside in. `others` are the sizes of all
    dimensions, with 0 for `dim`.
    """

    dim: int
    outer: int
    inner: int
    others: tuple[int, ...]

    def fits(self, z: torch.Tensor, examples: int) -> bool:
        """Whether `z` can be so many examples, folded like this."""
        sizes = list(z.shape)
        if len(sizes) != len(self.others):
            return False
        if sizes[self.dim] != self.outer * examples * self.inner:
            return False
        sizes[self.dim] = 0
        return tuple(sizes) == self.others

    def apart(self, z: torch.Tensor, examples: int) -> torch.Tensor:
        """A view of `z` with the examples along a dimension of their own, the first.

        `features` says where the features are in it.
        """
        if self.is_plain:
            return z
        unfolded = z.unflatten(self.dim, (self.outer, examples, self.inner))
        return unfolded.movedim(self.dim + 1, 0)

    def features(self, features: int) -> int:
        """Where the dimension `features` of what is read lies in `apart`."""
        if self.is_plain:
            return features
        return features + (1 if features < self.dim else 2)

    @property
    def is_plain(self) -> bool:
        """Whether the first dimension is the examples."""
        return self.dim == 0 and self.outer == self.inner == 1


def find_fold(passes: Sequence[torch.Tensor], base: int, features: int) -> Fold | None:
    """How the examples are folded in a layer's input, from what it read in each pass.

    `base` passes are of the same examples, in each of the others one of them is exchanged. None
    when the rows that changed agree with no way to fold, or with more than one.
    """
    first = passes[0]
    changed = _changed_rows(first, passes[1:base], passes[base:], features)
    if bool((changed.sum(0) > 1).any()):
        return None  # a row that depends on two examples
    known = changed.any(0)
    if not bool(known.any()):
        return None

    owner = changed.to(torch.uint8).argmax(0).unsqueeze(features)
    known = known.unsqueeze(features)
    fitting = []
    for fold in _ways_to_fold(tuple(first.shape), len(passes) - base, features):
        expected = _owners(fold, first, len(passes) - base)
        if bool(((owner == expected) | ~known).all()):
            fitting.append(fold)
    return fitting[0] if len(fitting) == 1 else None


def _changed_rows(
    first: torch.Tensor,
    repeated: Sequence[torch.Tensor],
    exchanged: Sequence[torch.Tensor],
    features: int,
) -> torch.Tensor:
    """Which rows changed with each example: (examples, every dimension but the features)."""
    noise = 0.0
    for z in repeated:
        if z.numel():
            noise = max(noise, NOISE * float((first - z).abs().nan_to_num().max()))
    changed = []
    for z in exchanged:
        differs = first != z if noise == 0 else (first - z).abs() > noise
        changed.append(differs.any(features))
    return torch.stack(changed)


def _ways_to_fold(shape: tuple[int, ...], count: int, features: int) -> Iterator[Fold]:
    """Every way that so many examples can lie in a tensor of this shape."""
    for dim, size in enumerate(shape):
        if dim == features or size % count:
            continue
        others = (*shape[:dim], 0, *shape[dim + 1 :])
        each = size // count
        for inner in range(1, each + 1):
            if each % inner == 0:
                yield Fold(dim, each // inner, inner, others)


def _owners(fold: Fold, z: torch.Tensor, count: int) -> torch.Tensor:
    """The example of each position along the fold's dimension, broadcastable to `z`."""
    positions = torch.arange(z.shape[fold.dim], device=z.device)
    shape = [1] * z.dim()
    shape[fold.dim] = -1
    return (positions // fold.inner % count).reshape(shape)
