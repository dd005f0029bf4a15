"""A flipped byte in any file of a run, a bundle or the cache is noticed, and the file is named; so is a file of another run."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunedge.cli.app import main
from prunedge.config import RunConfig
from prunedge.data import cached_array, load
from prunedge.data.records_cache import cached, keep_cached
from prunedge.data.webdataset import shards
from prunedge.edge import open_bundle
from prunedge.errors import DataError, PrunedgeError, RunError
from prunedge.importance.audit import AuditRequest, audit, kept_audit
from prunedge.report import write_report
from prunedge.runs import checkpoint, execute
from prunedge.runs.baselines import baseline_file
from prunedge.runs.checkpoint import NAME, RunCheckpointer
from prunedge.runs.export import write_bundle
from prunedge.runs.profile import profile_of, profiled
from prunedge.runs.run import open_run
from prunedge.train import TrainConfig, TrainExtras, fit, make_engine
from tests.data.shards import write_shards
from tests.deep_images import write_deep
from tests.runs.test_run import small
from tests.tampering import edited, flip
from tests.tiny_images import write_tiny

PLACES = (0, 0.1, 0.37, 0.5, 0.83, 0.999)  # of a file, as shares of its length
# What prunedge writes for people and other programs, and never reads again.
FOR_OTHERS = {"report.html", "audit.csv", "channels.csv", "trace.json"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that a run may have, but for what a device brings."""
    root = tmp_path_factory.mktemp("runs")
    recipe = RunConfig.make(
        "test",
        data=str(images),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=90.0,
        max_steps=1,
        epochs=1,
        polish=0,
        batch_size=8,
        seed=3,
    )
    start = execute.prune(recipe, root / "start")
    out = root / "run"
    onward = recipe.with_values(
        **{"start": str(start.path), "train_epochs": 0, "baseline": ["random"]}
    )
    with profiled(out):
        execute.prune(onward, out)
    execute.resume(out, None, {"max_steps": 2})
    opened = open_run(out)
    opened.write("bench.json", {"bundles": [], "ratios": []})
    audit(
        opened.load(),
        load(images, size=16),
        out / "audit",
        AuditRequest(("weight-l1",), 2, 8),
        model_name="small",
    )
    write_bundle(opened, out / "bundle")
    write_report(opened)
    return out


@pytest.fixture(scope="module")
def other(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run of the same model on the same images, with another seed."""
    recipe = open_run(run.parent / "start").config.with_values(**{"seed": 4})
    return execute.prune(recipe, tmp_path_factory.mktemp("other") / "run").path


def read_all(path: Path) -> None:
    """Read everything that a run folder holds, as its verbs do."""
    opened = open_run(path)
    opened.summary()
    opened.resumptions()
    for step in opened.steps():
        opened.state(step.index)
    opened.load_first()
    kept_audit(path / "audit")
    profile_of(path)
    open_bundle(path / "bundle")
    if opened.config.prune.baseline:
        for name in opened.read("baselines.json"):
            baseline_file(opened, name)


def files_of(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and file.name not in FOR_OTHERS and "earlier" not in file.parts
    )


def says_the_same(file: Path, whole: bytes) -> bool:
    """Whether it holds the values that it held: the seventeenth digit of a number may stand for the
    same double.
    """
    if file.suffix != ".jsonl":
        return False
    lines = file.read_bytes().splitlines(), whole.splitlines()
    now, before = ([json.loads(line) for line in each] for each in lines)
    return now == before


def test_a_digit_beyond_what_a_double_holds_is_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"a": 0.10000000000000001}\n')
    assert says_the_same(file, b'{"a": 0.10000000000000000}\n')
    assert not says_the_same(file, b'{"a": 0.10000000000000011}\n')


def unnoticed(folder: Path, read: Callable[[], object]) -> list[str]:
    """Files and places where a flipped byte is not told in a line that names the file."""
    found = []
    for file in files_of(folder):
        whole = file.read_bytes()
        for share in PLACES:
            for mask in (0xFF, 0x01):
                place = int(share * len(whole))
                flip(file, place, mask)
                try:
                    read()
                    if not says_the_same(file, whole):
                        found.append(
                            f"{file.relative_to(folder)} at {place} of {len(whole)}: not noticed"
                        )
                except PrunedgeError as error:
                    if str(file) not in str(error):
                        found.append(
                            f"{file.relative_to(folder)} at {place} of {len(whole)}: {error}"
                        )
                except Exception as error:
                    found.append(
                        f"{file.relative_to(folder)} at {place} of {len(whole)}: {error!r}"
                    )
                finally:
                    file.write_bytes(whole)
    read()
    return found


def test_a_flipped_byte_in_any_file_of_a_run_is_noticed_and_the_file_named(run: Path) -> None:
    names = {str(file.relative_to(run)) for file in files_of(run)}
    assert {
        "config.toml",
        "history.jsonl",
        "engine.json",
        "environment.json",
        "chain.json",
        "test.json",
        "stop.json",
        "lr.json",
        "resumed.json",
        "learning.json",
        "data.json",
        "baselines.json",
        "baselines/random.safetensors",
        "first/model.safetensors",
        "checkpoints/step-000/plan.json",
        "checkpoints/step-002/scores.safetensors",
        "checkpoints/step-002/momentum.safetensors",
        "audit/audit.json",
        "profile/profile.json",
        "bundle/manifest.json",
        "bundle/model.onnx",
        "bundle/model.safetensors",
        "bundle/plan.json",
        "bundle/selftest.npz",
        "bench.json",
        "audit/partial.safetensors",
    } <= names
    asked = AuditRequest(("weight-l1",), 2, 8)
    data = load(Path(open_run(run).config.data.path), size=16)
    model = open_run(run).load()

    def read() -> None:
        read_all(run)
        audit(model, data, run / "audit", asked, model_name="small")

    assert unnoticed(run, read) == []


def test_files_of_another_run_are_refused(run: Path, other: Path, tmp_path: Path) -> None:
    names = [
        str(file.relative_to(run))
        for file in files_of(run)
        if (other / file.relative_to(run)).exists()
    ]
    assert {
        "config.toml",
        "history.jsonl",
        "engine.json",
        "test.json",
        "checkpoints/step-001/plan.json",
    } <= set(names)
    for name in names:
        if (run / name).read_bytes() == (other / name).read_bytes():
            continue  # such as a plan that keeps the same channels
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(run, copy)
        shutil.copy(other / name, copy / name)
        with pytest.raises(
            PrunedgeError, match=r"another run|another model|differs from its checksum"
        ):
            read_all(copy)
    copy = tmp_path / "whole checkpoint"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints/step-001")
    shutil.copytree(other / "checkpoints/step-001", copy / "checkpoints/step-001")
    with pytest.raises(RunError, match=r"another model.*step-001"):
        open_run(copy).state(1)


@pytest.mark.parametrize(
    "name", ["momentum.safetensors", "scores.safetensors", "model.safetensors", "plan.json"]
)
def test_a_file_of_the_last_checkpoint_that_is_gone_is_missed(
    run: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "checkpoints" / "step-002" / name).unlink()
    with pytest.raises(RunError, match=rf"missing.*{name}.*model: 0, 1$"):
        open_run(copy).state(2)


def test_a_history_that_is_gone_is_missed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "history.jsonl").unlink()
    with pytest.raises(RunError, match=r"the history is missing .*history\.jsonl.*: bring it back"):
        open_run(copy).best()


def test_every_verb_that_reads_a_model_says_it_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    best = copy / "checkpoints" / f"step-{open_run(copy).best().index:03d}" / "model.safetensors"
    flip(best, -5)
    verbs = (
        ["export", copy, "--out", tmp_path / "out"],
        ["prune", "--from", copy, "--out", tmp_path / "out"],
        ["audit", copy, "--out", tmp_path / "out"],
        ["groups", "--from", copy],
        [
            "train",
            copy,
            "--model",
            "tests.runs.test_run:small",
            "--weights",
            copy,
            "--out",
            tmp_path / "out",
        ],
        ["prune", "--resume", copy, "--max-steps", "3"],
    )
    for verb in verbs[:4] + verbs[5:]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in verb])
        said = capsys.readouterr().err
        assert ended.value.code == 2, verb
        assert said.splitlines()[-1].startswith("error: damaged, or of another model"), (verb, said)
        assert str(best) in said, (verb, said)
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


DAMAGED = {
    "config.toml": b"data = [",
    "history.jsonl": b'{"index": 0}\n',
    "engine.json": b"[]",
    "chain.json": b'{"links": 3}',
    "test.json": b"\xff\xfe",
    "stop.json": b"{}",
    "lr.json": b'{"a": ' * 100_000,
    "checkpoints/step-000/plan.json": b'{"a": 3}',
    "checkpoints/step-002/plan.json": b"[1, 2",
    "checkpoints/step-002/model.safetensors": b"",
    "checkpoints/step-002/scores.safetensors": b"12345678",
    "checkpoints/step-002/momentum.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!",
    "audit/audit.json": b"null",
    "profile/profile.json": b"{",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("is_sealed", [False, True])
def test_damaged_files_are_one_line_whether_or_not_checksums_tell(
    run: Path, tmp_path: Path, name: str, is_sealed: bool
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    if (
        is_sealed
        and not name.startswith(("recipe", "history", "profile", "audit"))
        and (found := _as_json(DAMAGED[name])) is not None
    ):
        # With a checksum to match: what somebody with bad intentions would send.
        with edited(copy):
            (copy / name).write_text(json.dumps(found))
    elif is_sealed and name.startswith("checkpoints/"):
        with edited(copy):
            (copy / name).write_bytes(DAMAGED[name])
    else:
        (copy / name).write_bytes(DAMAGED[name])
    with pytest.raises(PrunedgeError) as told:
        read_all(copy)
    assert str(copy / name) in str(told.value), told.value
    assert "\n" not in str(told.value), told.value


def _as_json(text: bytes) -> object:
    """The value of JSON that checksums could be given to; None for what is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


@pytest.mark.parametrize("name", ["environment.json", "chain.json"])
def test_a_record_that_every_such_run_has_is_missed(run: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / name).unlink()
    with pytest.raises(
        RunError, match=rf"a file of the run is missing \(.*{name}\): bring it back from a copy"
    ):
        open_run(copy).summary()


def test_a_checkpoint_without_its_line_is_no_model(run: Path, tmp_path: Path) -> None:
    """It was cut off before it was kept: nothing says whether it is whole."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.copytree(copy / "checkpoints" / "step-002", copy / "checkpoints" / "step-003")
    with pytest.raises(
        RunError, match=r"no model is kept of step 3 .*: steps with a model: 0, 1, 2"
    ):
        open_run(copy).load(3)


def test_a_damaged_training_is_said_and_begun_anew(
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    data = load(images, size=16)
    keeper = RunCheckpointer(tmp_path, "x", "sign")
    config, extras = TrainConfig(batch_size=8), TrainExtras(checkpointer=keeper)
    fit(
        small(2),
        data.train,
        epochs=2,
        config=config,
        engine=make_engine("32"),
        seed=0,
        val=data.val,
        extras=extras,
    )
    assert RunCheckpointer(tmp_path, "x", "sign").kept() is not None
    assert RunCheckpointer(tmp_path, "x", "another run").kept() is None
    for share in PLACES:
        whole = (tmp_path / NAME).read_bytes()
        flip(tmp_path / NAME, int(share * len(whole)))
        caplog.clear()
        assert RunCheckpointer(tmp_path, "x", "sign").kept() is None
        assert f"{tmp_path / NAME} is damaged" in caplog.text
        assert "begins anew" in caplog.text
        (tmp_path / NAME).write_bytes(whole)


def forget() -> None:
    for array in cached_array._open.values():
        array.file.close()
    cached_array._open.clear()


def test_a_flipped_byte_in_any_file_of_the_cache_is_noticed_and_the_file_made_anew(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "cache"))
    packed, deep = write_shards(tmp_path / "shards"), write_deep(tmp_path / "deep")

    def read() -> list[torch.Tensor]:
        forget()
        shards._open.clear()
        found = []
        for source in (images, packed, deep):
            data = load(source, size=16)
            found += [
                batch
                for split in (data.train, data.val, data.test)
                for batch, _ in split.batches(16)
            ]
        return found

    wanted = read()
    files = [
        file
        for file in (tmp_path / "cache").rglob("*")
        if file.is_file() and file.suffix != ".lock"
    ]
    assert {file.suffix for file in files} >= {".npy", ".json", ".survey"}
    for file in files:
        whole = file.read_bytes()
        for broken in (
            b"",
            whole[: len(whole) // 2],
            *(_flipped(whole, int(share * len(whole))) for share in PLACES),
        ):
            file.write_bytes(broken)
            caplog.clear()
            try:
                found = read()
            except DataError as error:
                assert str(file) in str(error)
                assert "--resume" in str(error)
                found = read()
            else:
                assert str(file) in caplog.text, f"{file.name}: not noticed"
            assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
            assert len(file.read_bytes()) == len(whole)
    forget()


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def test_small_records_of_the_cache_know_their_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    keep_cached(tmp_path / "one.json", {"a": 1})
    os.rename(tmp_path / "one.json", tmp_path / "two.json")
    assert cached(tmp_path / "two.json") is None
    assert "two.json" in caplog.text
    assert cached(tmp_path / "none.json") is None
