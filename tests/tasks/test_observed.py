"""What meters keep of batches: in the order in which they were shown, and finite."""

from __future__ import annotations

import pytest
import torch

from prunedge.errors import TrainError
from prunedge.tasks.observed import Observed


def test_batches_are_kept_in_their_order() -> None:
    observed = Observed()
    for start in (0, 2):
        outputs = torch.tensor([[start + 0.5], [start + 1.5]])
        observed.update(Observed.observation(outputs, torch.tensor([start, start + 1])))
    assert observed.outputs().tolist() == [[0.5], [1.5], [2.5], [3.5]]
    assert observed.targets().tolist() == [0, 1, 2, 3]
    assert torch.equal(observed.finite_outputs(), observed.outputs())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_are_refused(wrong: float) -> None:
    observed = Observed()
    observed.update(Observed.observation(torch.tensor([[0.0], [wrong]]), torch.tensor([0, 1])))
    with pytest.raises(TrainError, match="aren't finite"):
        observed.finite_outputs()
