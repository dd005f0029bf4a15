"""A target of latency without a device: which machine is timed is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from prunedge.cli.settings import steered
from prunedge.latency import Steering
from prunedge.runs.session import timed_on


def test_that_this_machine_is_timed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert steered({"target_latency": "5ms"}) == {"target_latency": "5ms", "device": "local"}
    assert caplog.messages == ["--target-latency without --device: this machine is timed"]


@pytest.mark.parametrize("values", [{}, {"target_latency": "5ms", "device": "ssh://pi@camera"}])
def test_where_a_device_is_named_or_none_is_needed_nothing_is_said(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert steered(values) == values
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("address", "place"), [("local", "this machine"), ("ssh://pi@camera", "ssh://pi@camera")]
)
def test_whose_milliseconds_steer_is_said(address: str, place: str) -> None:
    table = SimpleNamespace(device={"processor": "Xeon"}, runtime="onnxruntime 1", threads=2)
    steering = SimpleNamespace(timer=SimpleNamespace(address=address), table=table)
    said = timed_on(cast(Steering, steering))
    assert said == f"milliseconds are those of {place} (Xeon), onnxruntime 1, 2 threads"
