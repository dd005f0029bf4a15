"""Which example each row of what a layer reads belongs to.

The rows are not always the examples: windows are folded into the batch, the batch stands behind the
sequence or among the positions, tokens are shared by all examples. Sizes alone can't tell (a batch
of four and four windows have the same), so the model is asked (`prunedge.importance.observe`): a
few examples go through it, then the same with one of them exchanged for another, one after the
other. The rows that change are that example's. With three examples 0, 1, 2 and two windows each,
one layer's rows may be

    0 0 1 1 2 2    (batch, windows):    Fold(dim=0, outer=1, inner=2)
    0 1 2 0 1 2    (windows, batch):    Fold(dim=0, outer=2, inner=1)

Exactly one way to fold that agrees with every row that changed is an answer, and holds for any
number of examples. Anything else is none: then the examples can't be told apart, and have to go
through one by one, where all that is read is the one example's.
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

    def fits(self, z: torch.Tensor, rows: int) -> bool:
        """Whether `z` can be so many examples, folded like this."""
        sizes = list(z.shape)
        if len(sizes) != len(self.others) or sizes[self.dim] != self.outer * rows * self.inner:
            return False
        sizes[self.dim] = 0
        return tuple(sizes) == self.others

    def apart(self, z: torch.Tensor, rows: int) -> torch.Tensor:
        """A view of `z` with the examples along a dimension of their own, the first.

        `features` says where the features are in it.
        """
        if self.is_plain:
            return z
        return z.unflatten(self.dim, (self.outer, rows, self.inner)).movedim(self.dim + 1, 0)

    def features(self, features: int) -> int:
        """Where the dimension `features` of what is read lies in `apart`."""
        if self.is_plain:
            return features
        return features + (1 if features < self.dim else 2)

    @property
    def is_plain(self) -> bool:
        """Whether the rows are the examples."""
        return self.dim == 0 and self.outer == self.inner == 1


def find_fold(passes: Sequence[torch.Tensor], base: int, features: int) -> Fold | None:
    """How the examples are folded in what a layer read in several passes.

    Of the same examples `base` times, then with each of them exchanged. None when the rows that
    changed agree with no way to fold, or with several.
    """
    first = passes[0]
    changed = _changed_rows(first, passes[1:base], passes[base:], features)
    if bool((changed.sum(0) > 1).any()):
        return None  # a row that hangs on two examples
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
    """The example that each place along the fold's dimension belongs to, broadcastable to `z`."""
    places = torch.arange(z.shape[fold.dim], device=z.device)
    shape = [1] * z.dim()
    shape[fold.dim] = -1
    return (places // fold.inner % count).reshape(shape)
