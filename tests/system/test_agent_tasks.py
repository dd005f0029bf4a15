"""The agent with pruned models in eight-bit integers, of tasks beside classification, beside a real Mosquitto."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prunedge.edge.bundle import open_bundle
from prunedge.runs import execute
from prunedge.runs.export import write_bundle
from tests.edge.agent.conftest import broker, subscriber  # noqa: F401  fixtures
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for
from tests.edge.agent.test_kill import command
from tests.graded import DEGREES, write_degrees
from tests.several_labels import write_several
from tests.small_runs import small_recipe

SHOWN = 12  # images


@pytest.mark.parametrize("task", ["multilabel", "ordinal"])
def test_a_pruned_model_in_integers_reports_from_its_own_threshold_on(
    task: str,
    broker: Mosquitto,  # noqa: F811
    subscriber: Subscriber,  # noqa: F811
    tmp_path: Path,
) -> None:
    changes: dict[str, Any] = {"task": task, "model": "test_resnet", "size": 32}
    if task == "ordinal":
        data = write_degrees(tmp_path / "data")
        changes["order"] = ",".join(DEGREES)
    else:
        data = write_several(tmp_path / "data")
    run = execute.prune(small_recipe(data, operate="recall >= 0.7", **changes), tmp_path / "run")
    assert run.best().macs < run.first().macs
    bundle = write_bundle(run, tmp_path / "bundle", formats=["onnx-int8"], max_int8_drop="90%")
    decision = open_bundle(bundle.path).seen_as().manifest.task.decision
    assert decision is not None
    assert decision.threshold is not None

    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((tmp_path / "data").rglob("*.png"))[::5][:SHOWN]:
        shutil.copy(image, images / image.name)
    asked = command(bundle.path, images, tmp_path / "state", broker.url, "--once", damage=())
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = len(list(images.iterdir()))
    wait_for(lambda: len(subscriber.findings()) == shown, "the findings")

    for finding in subscriber.findings().values():
        assert finding["is_damaged"] == (finding["probability"] >= decision.threshold)
        assert {region["label"] for region in finding["regions"]} <= set(decision.damage)
    verdicts = {finding["is_damaged"] for finding in subscriber.findings().values()}
    assert verdicts == {True, False}
