"""Whole commands on shards, and runs that are resumed on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from prunedge.config import RunConfig
from prunedge.data.webdataset import shards
from prunedge.pruning.steps import Step
from prunedge.report.run.gallery import thumbnails
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import write_bundle
from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.data.shards import tar_bytes, write_shard, write_shards
from tests.tiny_images import write_tiny


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """Four shards of tiny images behind a URL."""
    system = fsspec.filesystem("memory")
    files = sorted(
        write_tiny(tmp_path / "tiny").rglob("*.png"), key=lambda file: (file.name, file.parent)
    )
    for i in range(4):
        members = []
        for file in files[i::4]:
            key = f"{file.parent.name}-{file.stem}"
            members += [
                (f"{key}.png", file.read_bytes()),
                (f"{key}.json", json.dumps({"label": file.parent.name}).encode()),
            ]
        system.pipe(f"/bucket/t-{i}.tar", tar_bytes(members))
    yield "memory://bucket/t-{0..3}.tar"
    system.store.clear()


def test_check_from_a_relative_pattern_and_what_it_refuses(tmp_path: Path) -> None:
    write_shards(tmp_path / "s")
    pattern = os.path.relpath(tmp_path / "s") + "/{000..003}.tar"
    done = prunedge("check", pattern, "--size", 16, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["classes"] == ["0", "1"]
    assert told["formats"] == {"PNG": 40}
    done = prunedge("check", pattern.replace("003", "004"), "--size", 16)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 1 of 5 shards can't be found")
    assert done.stderr.count("\n") == 1
    shard = tmp_path / "s" / "002.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    done = prunedge("check", tmp_path / "s", "--size", 16)
    assert done.returncode == 2
    assert "002.tar" in done.stderr
    assert "damaged or was cut short" in done.stderr
    assert done.stderr.count("\n") == 1


def test_train_from_a_relative_pattern_then_prune_from_the_run(tmp_path: Path) -> None:
    write_shards(tmp_path / "s", each=20)
    pattern = os.path.relpath(tmp_path / "s") + "/{000..003}.tar"
    common = (
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--epochs",
        2,
        "--batch-size",
        8,
        "--seed",
        3,
        "--precision",
        "32",
    )
    done = prunedge("train", pattern, *common, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert open_run(tmp_path / "a").config.data.path == f"{tmp_path}/s/{{000..003}}.tar"
    done = prunedge(
        "prune",
        "--from",
        tmp_path / "a",
        "--step-ratio",
        0.3,
        "--max-drop",
        99,
        "--max-steps",
        1,
        "--out",
        tmp_path / "b",
    )
    assert done.returncode == 0, done.stderr
    done = prunedge("report", tmp_path / "b")
    assert done.returncode == 0, done.stderr


def test_a_run_on_a_url_is_resumed_to_the_same_end(memory: str, tmp_path: Path) -> None:
    recipe = RunConfig.make(
        "test",
        data=memory,
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=2,
        precision="32",
        step_ratio=0.3,
        max_drop=60.0,
        max_steps=2,
        epochs=1,
        polish=0,
        batch_size=8,
        seed=3,
    )

    def cut(step: Step) -> None:
        if step.index == 1:
            raise KeyboardInterrupt

    whole = execute.prune(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        execute.prune(recipe, tmp_path / "cut", Callbacks(on_step=cut))
    shards._open.clear()  # as another process
    execute.resume(tmp_path / "cut")
    resumed = open_run(tmp_path / "cut")
    assert resumed.config.data.path == memory
    assert resumed.test() == whole.test()
    for name, value in whole.load().state_dict().items():
        assert torch.equal(resumed.load().state_dict()[name], value), name
    assert write_bundle(whole, tmp_path / "bundle").manifest.view.width == 32
    mistakes: list[dict[str, Any]] = [
        {"path": f"memory://bucket/t-{i}.tar/{name}.png", "p_best": 0.9}
        for i, name in ((0, "crack-000"), (0, "none"), (7, "gone"))
    ]
    shown = thumbnails(mistakes)
    assert [one["name"] for one in shown["shown"]] == ["crack-000.png"]
    assert shown["gone"] == 2


def test_a_shard_that_lies_in_a_hub_of_links(tmp_path: Path) -> None:
    blob = write_shards(tmp_path / "s", 1, 80) / "000.tar"
    (tmp_path / "blob").write_bytes(blob.read_bytes())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "x.tar").symlink_to(tmp_path / "blob")
    write_shard(tmp_path / "linked" / "y.txt", [])
    told = json.loads(
        prunedge("check", tmp_path / "linked" / "x.tar", "--size", 16, "--json").stdout
    )
    assert told["data"] == f"{tmp_path}/linked/x.tar"
    assert told["counts"]["train"] == {
        "0": 28,
        "1": 28,
    }
