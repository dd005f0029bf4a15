"""Two commands on one run, and a reader beside a writer: one writes, the other is told so in a line, and reading changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.config import RunConfig
from prunedge.data import load
from prunedge.importance.audit import AuditRequest, audit
from prunedge.pruning.steps import Step
from prunedge.report import write_report
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import write_bundle
from prunedge.runs.new import create
from prunedge.runs.run import open_run
from prunedge.study import create as create_study
from prunedge.study.grid import Grid
from prunedge.utils.files import WRITER, InUse, is_ours

HOLDER = """
import sys
from pathlib import Path
from prunedge.runs.new import writing
with writing(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def recipe(tiny_data: Path) -> RunConfig:
    return RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=60.0,
        max_steps=2,
        epochs=1,
        polish=0,
        batch_size=8,
    )


@pytest.fixture
def writer(recipe: RunConfig, tmp_path: Path):
    """A run, and another process that writes it."""
    path = execute.train(recipe, tmp_path / "run").path
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process, path
        process.kill()


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


def test_a_second_writer_is_told_who_the_first_is_until_that_is_killed(
    writer: tuple[subprocess.Popen[str], Path],
    capsys: pytest.CaptureFixture[str],
    recipe: RunConfig,
) -> None:
    process, path = writer
    before = tree(path)
    for arguments in (
        ["train", "--resume", str(path)],
        ["train", "--resume", str(path), recipe.data.path],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2
        assert said.startswith(f"error: process {process.pid} (since ")
        assert f"is writing this run ({path}): wait until it has ended" in said
    with pytest.raises(InUse):
        execute.resume(path)
    assert tree(path) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (path / WRITER).exists()
    execute.resume_training(path)
    assert not (path / WRITER).exists()


def test_reading_changes_nothing_beside_a_writer(
    writer: tuple[subprocess.Popen[str], Path], recipe: RunConfig, tmp_path: Path
) -> None:
    process, path = writer
    (path / "checkpoints" / ".writing-abc").mkdir()  # whoever put it there
    (path / "checkpoints" / ".writing-abc" / "model.safetensors").write_bytes(b"half")
    before = tree(path)
    opened = open_run(path)
    opened.summary()
    write_bundle(opened, tmp_path / "bundle")
    audit(
        opened.load(),
        load(recipe.data.path, size=16),
        tmp_path / "audit",
        AuditRequest(("weight-l1",), 2, 8),
        model_name="small",
    )
    pruned = execute.prune(
        recipe.with_values(**{"start": str(path), "train_epochs": 0, "max_steps": 1}),
        tmp_path / "pruned",
    )
    assert len(pruned.steps()) == 2
    assert tree(path) == before
    write_report(opened)
    after = tree(path)
    assert {name for name in after if after[name] != before.get(name)} == {"report.html"}
    process.kill()


def test_every_reading_verb_while_checkpoints_are_written(
    recipe: RunConfig, tmp_path: Path
) -> None:
    """A reader that comes between any two writes of a run finds it whole, and the run ends as it would have."""
    seen: list[int] = []

    def on_step(step: Step) -> None:
        opened = open_run(tmp_path / "run")
        opened.summary()
        opened.load()
        write_report(opened)
        seen.append(step.index)

    run = execute.prune(recipe, tmp_path / "run", Callbacks(on_step=on_step))
    alone = execute.prune(recipe, tmp_path / "alone")
    assert seen == [0, 1, 2]
    for step in (0, 1, 2):
        assert (run.model_file(step)).read_bytes() == alone.model_file(step).read_bytes()


def test_one_target_of_an_export_and_of_patches_and_one_study(
    writer: tuple[subprocess.Popen[str], Path],
    tmp_path: Path,
    recipe: RunConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = """
import sys
from pathlib import Path
from prunedge.utils.files import held, written_folder
root = Path(sys.argv[1])
(root / "study").mkdir()
with written_folder(root / "bundle", "bundle"), held(root / "study", "study"):
    print("ready", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InUse, match=f"process {other.pid}.* is writing this bundle"):
            write_bundle(open_run(writer[1]), tmp_path / "bundle")
        grid = Grid({"data": recipe.data.path, "model": recipe.model.name})
        with pytest.raises(InUse, match=f"process {other.pid}.* is writing this study"):
            create_study(tmp_path / "study", grid)
        assert not (tmp_path / "study" / "study.toml").exists()
        other.kill()
        other.wait()
    write_bundle(open_run(writer[1]), tmp_path / "bundle")
    book = create_study(tmp_path / "study", grid)
    assert (book.path / "study.toml").is_file()
    assert not [name for name in os.listdir(tmp_path) if is_ours(name)]


def test_two_that_begin_the_same_run(recipe: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / ".prunedge-0123456789ab.lock").write_bytes(b"")
    (path / ".prunedge-0123456789ab.new").mkdir()
    (path / "environment.json").write_text("{}")  # begun, and killed before it was a run
    create(path, recipe)
    assert sorted(os.listdir(path)) == ["config.toml", "environment.json"]
    with pytest.raises(Exception, match="not empty"):
        create(path, recipe)


@pytest.mark.slow
def test_two_resume_one_run_at_once(recipe: RunConfig, tmp_path: Path, run: Path) -> None:
    """Whichever is first ends it; the others are refused or find it done: six tries."""
    for number in range(6):
        out = tmp_path / str(number)
        started = execute.train(
            recipe.with_values(**{"max_steps": 2}), tmp_path / f"{number}-trained"
        ).path
        shutil.copytree(started, out)
        create_again = [
            sys.executable,
            "-m",
            "prunedge",
            "prune",
            "--from",
            str(started),
            "--out",
            str(out / "pruned"),
            "--max-steps",
            "2",
        ]
        both = [
            subprocess.Popen(
                create_again, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        time.sleep(0.2)
        ends = [(one.communicate()[1], one.returncode) for one in both]
        assert sorted(code for _, code in ends) in ([0, 2], [0, 0]), ends
        assert "Traceback" not in ends[0][0] + ends[1][0]
        again = [
            sys.executable,
            "-m",
            "prunedge",
            "prune",
            "--resume",
            str(out / "pruned"),
            "--max-steps",
            "3",
        ]
        both = [
            subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        ends = [(one.communicate()[1], one.returncode) for one in both]
        assert 0 in [code for _, code in ends], ends
        assert {code for _, code in ends} <= {0, 2}, ends
        assert [step.index for step in open_run(out / "pruned").steps()] == list(
            range(len(open_run(out / "pruned").steps()))
        )
