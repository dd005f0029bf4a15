"""In-place writes to slices of a tensor: the memory written to has labels of its own.

An in-place write into a view must reach the tensor, and whatever else looks at its memory. From the
first such write on each element of that memory has a label, and every tensor in it reads them
there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from prunedge.graph.label_tensors import Labels, compact

FILL = -1  # in a memory: nothing but a number that the code has filled it with


@dataclass
class Memory:
    """Labels of each element, (elements,) int64, of a memory that code has written to in slices.

    An element that holds `FILL` was not written to since the memory was filled with one number
    (zeros, or nothing at all). What it holds is the same in each channel, so that it may belong to
    any: along places it is part of the channel around it. Where no channel is around it, it is no
    channel.
    """

    elements: torch.Tensor
    _read: dict[int, Labels] = field(default_factory=dict)

    def read(self, tensor: torch.Tensor) -> Labels:
        """The labels of a tensor that lies in this memory, compact.

        They hold `FILL` where nothing but that is around.
        """
        if id(tensor) not in self._read:
            labels = self._view(tensor)
            has_fill = bool((labels == FILL).any())
            self._read[id(tensor)] = _around(labels) if has_fill else compact(labels)
        return self._read[id(tensor)]

    def is_filled(self, tensor: torch.Tensor) -> bool:
        """Whether nothing was written where the tensor lies."""
        return bool((self._view(tensor) == FILL).all())

    def has_filled(self, tensor: torch.Tensor) -> bool:
        """Whether somewhere nothing was written where the tensor lies."""
        return bool((self._view(tensor) == FILL).any())

    def write(self, tensor: torch.Tensor, labels: Labels) -> None:
        """These labels now stand where the tensor lies."""
        self._view(tensor).copy_(labels)
        self._read.clear()

    def _view(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.elements.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _around(labels: Labels) -> Labels:
    """Compact labels, where filled elements belong to the channel whose places they are among."""
    for dim in range(labels.dim()):
        most = labels.amax(dim, keepdim=True)
        if bool(((labels == most) | (labels == FILL)).all()):
            labels = most
    return labels


class Memories:
    """The memories that were filled, drawn at random, or written to in slices, by address."""

    def __init__(self, labels_of: Callable[[torch.Tensor], Labels | None]) -> None:
        self._labels_of = labels_of
        self._written: dict[int, Memory] = {}
        self._filled: set[int] = set()
        self._random: set[int] = set()
        # The tensor that each written memory was made for.
        self.owners: dict[int, torch.Tensor] = {}
        # Python and torch reuse the addresses of the dead: keep all alive until the end.
        self._alive: list[torch.Tensor] = []

    def at(self, tensor: torch.Tensor) -> Memory | None:
        """The memory that the tensor lies in, if it was written to in slices."""
        return self._written.get(address(tensor)) if self._written else None

    def fill(self, tensor: torch.Tensor) -> None:
        """This new tensor holds one number throughout, or nothing yet."""
        self._alive.append(tensor)
        self._filled.add(address(tensor))

    def is_filled(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor holds nothing but what its memory was filled with."""
        memory = self.at(tensor)
        return address(tensor) in self._filled if memory is None else memory.is_filled(tensor)

    def randomise(self, tensor: torch.Tensor) -> None:
        """This tensor holds random values, drawn for each element by itself."""
        self._alive.append(tensor)
        self._random.add(address(tensor))

    def is_random(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor holds random values."""
        return bool(self._random) and address(tensor) in self._random

    def write(self, tensor: torch.Tensor, labels: Labels | None) -> None:
        """The tensor was written to: it has these labels, or none, as has what else lies there."""
        where = address(tensor)
        self._random.discard(where)
        if where not in self._written:
            if labels is None:
                self._filled.discard(where)
                return
            self._remember(tensor)
        no_channel = torch.zeros(1, dtype=torch.int64)
        self._written[where].write(tensor, no_channel if labels is None else labels)

    def rewrite(self, tensor: torch.Tensor, labels: Labels | None) -> None:
        """Values with labels were added to what the tensor held, which had these.

        What was filled is so no more.
        """
        memory = self.at(tensor)
        if memory is not None and memory.has_filled(tensor):
            self.write(tensor, labels)

    def _remember(self, tensor: torch.Tensor) -> None:
        """Give the memory of this tensor labels of its own, those that its owner has now."""
        where = address(tensor)
        owner = tensor if tensor._base is None else tensor._base
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        memory = Memory(torch.full((size,), FILL if where in self._filled else 0))
        labels = self._labels_of(owner)
        if labels is not None:
            memory.write(owner, labels)
        self._alive += [tensor, owner]
        self._written[where] = memory
        self.owners[where] = owner


def address(tensor: torch.Tensor) -> int:
    """What tells memories apart; views of one tensor share theirs."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # sparse tensors have several
        return -id(tensor)
