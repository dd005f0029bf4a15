"""What a channel's activation tells about what images show, as mutual information."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from prunedge.errors import PrunedgeError
from prunedge.importance.activation import ActivationCollector, add
from prunedge.importance.criteria import collected
from prunedge.importance.reading import ConsumerKey
from prunedge.tasks import Categories, Task

# Cells of the fine histogram: 8 an octave from 2^-16 to 2^16 on each side of zero, and one for zero
# itself.
_OCTAVE = 8
_REACH = 16
_SIDE = 2 * _REACH * _OCTAVE
CELLS = 2 * _SIDE + 1
BINS = 16
PART = 2**22  # numbers of contingency tables at a time: 32 MB


@collected("activations", "mutual-information")
class MutualInformation(ActivationCollector):
    """theta = I(q(a); y), in nats, of a channel's mean, quantised, and the class.

    q(a) is the spatial mean (Molchanov et al. 2017, section 2.2). Of a task that asks several
    questions of an image (multilabel: is this class there?) it is the sum over the questions.

    The means (over all of a consumer's calls, where it is called several times) are counted, with
    the class, in a fine histogram whose cells are fixed beforehand, so that neither the order nor
    the number of the images matters; at the end its cells are joined to at most `BINS` bins of
    about equal counts (`joined`).
    """

    criterion = "mutual-information"
    by_example = True

    def drop_batch(self) -> None:
        """Forget the batch that has just gone through."""
        super().drop_batch()
        self._categories: Categories | None = None

    def observe(self, targets: Any, outputs: Any, task: Task) -> None:
        """The categories that the batch is counted under.

        PrunedgeError when there is not one for each example.
        """
        self._categories = self._truth(targets, outputs, task)

    def _truth(self, targets: Any, outputs: Any, task: Task) -> Categories:
        if targets is None:
            remedy = f"yield (inputs, labels), or use {PredictionInformation.criterion}"
            raise PrunedgeError(
                f"the criterion '{self.criterion}' needs labels, and the batches have none",
                remedy=remedy,
            )
        return task.categories(targets, outputs)

    def _gather(self, key: ConsumerKey, values: torch.Tensor) -> None:
        sums = values.sum(2, dtype=torch.float64)  # (examples, channels)
        self._wait(key, sums, values.shape[2])

    def _settle(self) -> None:
        if self._categories is None:
            raise PrunedgeError(
                f"the criterion '{self.criterion}' was not told the classes of a batch",
                remedy="call observe",
            )
        chosen = self._categories.chosen.cpu()  # (examples, questions)
        questions = chosen.shape[1]
        for key, total in self._pending.items():
            cells = cell(total / self._pending_counts[key]).cpu()
            shape = (len(cells), cells.shape[1], questions)
            places = (
                torch.arange(cells.shape[1])[:, None].expand(shape),
                cells[:, :, None].expand(shape),
                torch.arange(questions).expand(shape),
                chosen[:, None, :].expand(shape),
            )
            indices = torch.stack(places).flatten(1)
            ones = torch.ones(indices.shape[1], dtype=torch.int64)
            # Sparse, since most cells stay empty in most classes: whole, a model for ImageNet would
            # take gigabytes.
            sizes = (cells.shape[1], CELLS, questions, self._categories.choices)
            add(self._sums, key, _sparse(indices, ones, sizes))
            self._sums[key] = self._sums[key].coalesce()
            self._counts[key] = self._counts.get(key, 0) + len(cells)

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        score = torch.zeros(len(total), dtype=torch.float64)
        for question in range(total.shape[2]):
            counts = _of_question(total, question)
            parts = _in_parts(_without_absent_classes(counts))
            score += torch.cat([information(joined(part)) for part in parts])
        return score


@collected("activations", "mutual-information-prediction")
class PredictionInformation(MutualInformation):
    """As `mutual-information`, with what the model itself answers: needs no labels."""

    criterion = "mutual-information-prediction"

    def _truth(self, targets: Any, outputs: Any, task: Task) -> Categories:
        return task.predicted_categories(outputs, targets)


def cell(values: torch.Tensor) -> torch.Tensor:
    """The cell (0 to CELLS - 1) of the fine histogram that each value falls in, int64."""
    octaves = values.abs().log2().add(_REACH).mul(_OCTAVE).floor().add(1).clamp(0, _SIDE)
    from_zero = octaves.nan_to_num(0.0, neginf=0.0)
    return (_SIDE + values.sign() * from_zero).long()


def _sparse(indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


def _of_question(counts: torch.Tensor, question: int) -> torch.Tensor:
    """Sparse (channels, cells, classes) counts of a question of (channels, cells, questions,
    choices) counts.
    """
    indices = counts.indices()
    is_asked = indices[2] == question
    shape = (counts.shape[0], counts.shape[1], counts.shape[3])
    return _sparse(indices[:, is_asked][[0, 1, 3]], counts.values()[is_asked], shape)


def _without_absent_classes(counts: torch.Tensor) -> torch.Tensor:
    """Sparse (channels, cells, classes) counts of the classes that occur, which say as much."""
    channel, cells, classes = counts.indices()
    present, place = classes.unique(return_inverse=True)
    shape = (*counts.shape[:2], len(present))
    return _sparse(torch.stack((channel, cells, place)), counts.values(), shape)


def _in_parts(counts: torch.Tensor) -> Iterator[torch.Tensor]:
    """Sparse (channels, cells, classes) counts, a few channels at a time.

    So many that their bins hold `PART` numbers.
    """
    step = max(1, PART // (BINS * counts.shape[2]))
    indices = counts.indices()
    values = counts.values()
    for start in range(0, len(counts), step):
        stop = min(start + step, len(counts))
        here = (indices[0] >= start) & (indices[0] < stop)
        moved = indices[:, here] - torch.tensor([[start], [0], [0]])
        yield _sparse(moved, values[here], (stop - start, *counts.shape[1:]))


def joined(counts: torch.Tensor, bins: int = BINS) -> torch.Tensor:
    """Join neighbouring cells of (channels, cells, classes) counts to bins of about equal counts.

    Gives (channels, bins, classes). The counts may be sparse; the bins are not.
    """
    if not counts.is_sparse:
        counts = counts.to_sparse()
    counts = counts.coalesce()
    of_cell = torch.sparse.sum(counts, 2).to_dense()
    # Where the middle of each cell lies in the order of the examples.
    middle = of_cell.cumsum(1) - of_cell / 2
    place = (middle * bins / of_cell.sum(1, keepdim=True)).floor().clamp(0, bins - 1).long()
    binned = torch.zeros(len(counts), bins, counts.shape[2], dtype=counts.dtype)
    channel, cells, classes = counts.indices()
    places = (channel, place[channel, cells], classes)
    return binned.index_put_(places, counts.values(), accumulate=True)


def information(counts: torch.Tensor) -> torch.Tensor:
    """Mutual information in nats of each contingency table: (channels,) float64.

    The tables are (channels, bins, classes).
    sum p(b, y) log(p(b, y) / (p(b) p(y))): Cover and Thomas, equation 2.28.
    """
    share = counts.double() / counts.sum((1, 2), keepdim=True)
    alone = share.sum(2, keepdim=True) * share.sum(1, keepdim=True)
    return torch.where(share > 0, share * (share / alone).log(), 0.0).sum((1, 2)).clamp_min(0)
