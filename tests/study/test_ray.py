"""Studies on a real Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunedge.errors import PrunedgeError
from prunedge.study import Grid, StudyStore, collect, create
from prunedge.study.engines.ray import run_ray

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of three nodes with one CPU each, and a head that runs nothing."""
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).parents[2])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (root, before))
    )  # the trials' model is one of the tests'
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20}
    )
    for _ in range(3):
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield cluster.address
    cluster.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def without_seconds(study: StudyStore) -> list[dict[str, object]]:
    return [
        {key: value for key, value in row.items() if not key.startswith("seconds")}
        for row in collect(study)
    ]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_of_the_table(
    address: str, values: dict[str, object], tmp_path: Path
) -> None:
    grid = Grid(
        {
            **values,
            "criterion": ["weight-l2", "random", "fpgm"],
            "max_steps": 4,
            "max_drop": 100,
            "step_ratio": 0.15,
        }
    )
    study, told = create(tmp_path / "ray", grid), list[str]()
    killed: list[int] = []
    killer = threading.Thread(target=_kill_in_mid_trial, args=(study, killed))
    killer.start()
    run_ray(study, address=address, workers=None, threads=1, gpus=0.0, on_line=told.append)
    killer.join()
    assert killed, "no worker was seen in mid-trial"
    assert sorted(told) == sorted(f"{trial.name}: done" for trial in study.trials)
    alone = create(tmp_path / "local", grid)
    for one in alone.work:
        alone.perform(one)
    assert without_seconds(study) == without_seconds(alone)
    # Three trials of the unpruned model and up to four steps.
    assert 9 <= len(without_seconds(alone)) <= 15


def _kill_in_mid_trial(study: StudyStore, killed: list[int]) -> None:
    """Kill the first worker whose trial has a step, but has not ended."""
    limit = time.monotonic() + 600
    while time.monotonic() < limit and not killed:
        for trial in study.trials:
            history = study.folder(trial) / "history.jsonl"
            if (
                history.exists()
                and not (study.folder(trial) / "test.json").exists()
                and (worker := _holder(study.folder(trial)))
            ):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
        time.sleep(0.01)


def _holder(folder: Path) -> int | None:
    """The process that has the trial's lock open."""
    lock = folder.parents[1] / "locks" / f"{folder.name}.lock"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) == str(lock) for handle in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


def test_what_is_wrong_is_told_and_trials_do_not_wait_for_a_start_that_failed(
    address: str, values: dict[str, object], tmp_path: Path
) -> None:
    study, told = create(tmp_path / "out", Grid({**values, "model": "nowhere:build"})), list[str]()
    run_ray(study, address=address, workers=None, threads=1, gpus=0.0, on_line=told.append)
    assert any("can't import nowhere:build" in line for line in told)
    assert len(study.counts().failed) == 2
    assert "starting model failed" in study.counts().failed[study.trials[0].name]


def test_a_cluster_that_is_not_there_is_a_clear_error(
    values: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(
        PrunedgeError, match=r"no Ray cluster at 127\.0\.0\.1:1: .*ray start --head"
    ):
        run_ray(
            create(tmp_path / "out", Grid(values)),
            address="127.0.0.1:1",
            workers=None,
            threads=1,
            gpus=0.0,
            on_line=print,
        )


def test_a_running_cluster_takes_no_number_of_workers(
    values: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(PrunedgeError, match="--workers and --address"):
        run_ray(
            create(tmp_path / "out", Grid(values)),
            address="auto",
            workers=2,
            threads=1,
            gpus=0.0,
            on_line=print,
        )


def test_ray_on_this_machine_runs_so_many_trials_at_a_time(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def init(**given: object) -> None:
        asked.update(given)
        raise ValueError("far enough")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(PrunedgeError, match="far enough"):
        run_ray(
            create(tmp_path / "out", Grid(values)),
            address=None,
            workers=3,
            threads=2,
            gpus=0.0,
            on_line=print,
        )
    assert asked["num_cpus"] == 6
