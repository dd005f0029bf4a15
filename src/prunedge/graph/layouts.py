"""What was seen while tracing, with groups and channels in place of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from prunedge.graph.components import Components
from prunedge.graph.groups import Homes
from prunedge.graph.label_tensors import Labels
from prunedge.graph.ledger import Mixing, Sized
from prunedge.graph.observations import Layout, Operation, Read, Resize, Statistic

Sites = Mapping[str, Collection[str]]  # module -> sites in its code


@dataclass(frozen=True)
class Layouts:
    """Which channel of which group each label stands for, when all is known."""

    component: Components
    homes: Homes

    def of(self, labels: Labels) -> Layout:
        """Which channel of which group stands at each position."""
        roots, where = np.unique(self.component[labels.numpy()], return_inverse=True)
        homes = [self.homes.get(root) for root in roots.tolist()]
        names = sorted({home[0] for home in homes if home is not None})

        numbers = np.full(len(homes), -1, dtype=np.int64)
        channels = np.zeros(len(homes), dtype=np.int64)
        for index, home in enumerate(homes):
            if home is not None:
                group, channel = home
                numbers[index] = names.index(group)
                channels[index] = channel

        where = where.reshape(labels.shape)
        return Layout(tuple(names), numbers[where], channels[where])

    def operation(self, operation: Operation | tuple[int, Labels]) -> Operation:
        """A contraction and its cost."""
        if isinstance(operation, Operation):
            return operation
        positions, labels = operation
        return Operation(None, positions, self.of(labels))

    def statistic(self, mixing: Mixing) -> Statistic:
        """A call that mixes channels."""
        layouts = []
        for dim, labels in zip(mixing.dims, mixing.labels, strict=True):
            layouts.append((dim, self.of(labels)))
        return Statistic(mixing.op, mixing.call, mixing.dims, tuple(layouts))

    def resize(self, sized: Sized, *, off_path: bool) -> Resize:
        """A call that names sizes; `off_path`: evaluation at the traced size does not reach it."""
        layouts: dict[int, Layout] = {}  # by the labels' id: the same ones may stand there twice
        sizes = []
        for index, labels, dim in sized.sizes:
            if id(labels) not in layouts:
                layouts[id(labels)] = self.of(labels)
            sizes.append((index, layouts[id(labels)], dim))
        return Resize(sized.module, sized.call, tuple(sizes), off_path, sized.picked)

    def read(self, sized: Sized, evaluated: Sites) -> Read | None:
        """A site that reads sizes; None where no channel that can leave is among them."""
        sizes = []
        for index, labels, dim in sized.sizes:
            layout = self.of(labels)
            if layout.names:
                sizes.append((index, layout, dim))
        if not sizes:
            return None
        off_path = sized.call.site not in evaluated.get(sized.module, ())
        return Read(sized.module, sized.call.site, tuple(sizes), off_path)

    def holds_channels(self, atoms: np.ndarray) -> bool:
        """Whether any of these atoms is a channel that can leave."""
        roots = np.unique(self.component[atoms])
        return any(int(root) in self.homes for root in roots)
