"""What was seen while tracing, with groups and channels in place of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from prunedge.graph.channels import Layout, Operation, Read, Resize, Statistic
from prunedge.graph.components import Components
from prunedge.graph.groups import Homes
from prunedge.graph.label_tensors import Labels
from prunedge.graph.ledger import Mixing, Sized

Places = Mapping[str, Collection[str]]  # module -> places in its code


@dataclass(frozen=True)
class Layouts:
    """Which channel of which group each label stands for, when all is known."""

    component: Components
    homes: Homes

    def of(self, labels: Labels) -> Layout:
        """Who lives where."""
        roots, where = np.unique(self.component[labels.numpy()], return_inverse=True)
        homes = [self.homes.get(root) for root in roots.tolist()]
        names = sorted({home[0] for home in homes if home is not None})
        number = [-1 if home is None else names.index(home[0]) for home in homes]
        channel = [0 if home is None else home[1] for home in homes]
        where = where.reshape(labels.shape)
        return Layout(
            tuple(names),
            np.array(number, dtype=np.int64)[where],
            np.array(channel, dtype=np.int64)[where],
        )

    def operation(self, operation: Operation | tuple[int, Labels]) -> Operation:
        """A contraction and its cost."""
        if isinstance(operation, Operation):
            return operation
        positions, labels = operation
        return Operation(None, positions, self.of(labels))

    def statistic(self, mixing: Mixing) -> Statistic:
        """A call that mixes channels."""
        pairs = zip(mixing.dims, mixing.labels, strict=True)
        layouts = tuple((dim, self.of(labels)) for dim, labels in pairs)
        return Statistic(mixing.op, mixing.call, mixing.dims, layouts)

    def resize(self, sized: Sized, *, aside: bool) -> Resize:
        """A call that names sizes; `aside`: evaluation at the traced size does not come there."""
        layouts = {id(labels): self.of(labels) for _, labels, _ in sized.sizes}
        sizes = tuple((place, layouts[id(labels)], dim) for place, labels, dim in sized.sizes)
        return Resize(sized.module, sized.call, sizes, aside, sized.picked)

    def read(self, sized: Sized, evaluated: Places) -> Read | None:
        """A place that reads sizes; None where no channel that can leave is among them."""
        sizes = [(place, self.of(labels), dim) for place, labels, dim in sized.sizes]
        sizes = [size for size in sizes if size[1].names]
        aside = sized.call.site not in evaluated.get(sized.module, ())
        return Read(sized.module, sized.call.site, tuple(sizes), aside) if sizes else None

    def holds_channels(self, atoms: np.ndarray) -> bool:
        """Whether any of these atoms is a channel that can leave."""
        return any(int(root) in self.homes for root in np.unique(self.component[atoms]))
