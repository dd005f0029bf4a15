"""What a training that went astray advises."""

from __future__ import annotations

import pytest

from prunedge.train import TrainConfig
from prunedge.train.fit import _diverged


@pytest.mark.parametrize(("lr", "advised"), [(0.05, "lr=0.01"), (0.4, "lr=0.02"), (1e9, "lr=0.02")])
def test_a_rate_far_off_is_not_brought_back_by_fifths(lr: float, advised: str) -> None:
    error = _diverged(float("nan"), epoch=0, batch=3, config=TrainConfig(lr=lr))
    assert error.remedy is not None
    assert error.remedy.endswith(f"try {advised}")
