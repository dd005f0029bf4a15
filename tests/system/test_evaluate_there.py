"""A bundle is judged by the answers of another machine, a real sshd on this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.errors import PrunedgeError
from prunedge.runs.evaluation import evaluate_on
from tests.edge.bench.test_ssh import port, there  # noqa: F401  fixtures
from tests.edge.made_bundles import write_convolutional
from tests.tiny_images import write_tiny


def test_a_bundle_is_judged_on_another_machine_as_on_this_one(
    there: Path,  # noqa: F811
    port: int,  # noqa: F811
    tmp_path: Path,
) -> None:
    bundle = write_convolutional(tmp_path / "bundle", model="m", classes=["a", "b", "c"])
    data = write_tiny(tmp_path / "images", count=8, labels=("a", "b"))
    here = evaluate_on(bundle, data, resamples=20)
    device = f"ssh://127.0.0.1:{port}{there}"
    judged = evaluate_on(bundle, data, resamples=20, device=device)
    assert judged.form == "onnx on 127.0.0.1"
    assert judged.intervals == here.intervals
    assert judged.loss == pytest.approx(here.loss)
    with pytest.raises(PrunedgeError, match="can't copy to the device"):
        evaluate_on(bundle, data, device="ssh://127.0.0.1:1/no/prunedge")
