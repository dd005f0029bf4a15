"""What another version of prunedge wrote is refused in one line that says so, and is never called damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from prunedge.config import RunConfig
from prunedge.data import load
from prunedge.edge import open_bundle
from prunedge.edge.update.fetch import _manifest
from prunedge.errors import AgentError, BundleError, PrunedgeError, RunError
from prunedge.importance.audit import AuditRequest, audit, kept_audit
from prunedge.importance.fingerprint import tensors_digest
from prunedge.runs import checkpoint, execute
from prunedge.runs.checkpoint import RunCheckpointer
from prunedge.runs.export import write_bundle
from prunedge.runs.run import open_run
from prunedge.study import Grid, collect, create, open_study
from prunedge.utils import checksums, formats
from prunedge.utils.formats import FORMAT
from prunedge.utils.tensor_files import save_tensors, texts_of
from tests.commands import prunedge
from tests.small_runs import small_recipe
from tests.tampering import edited, flip, in_format, reseal_bundle, rewrite_history
from tests.tiny_images import write_tiny

OF_0_1 = r"this run was made by prunedge 0\.1, whose runs this version does not read"
NEWER = r"this run has format 7; this prunedge reads format 1 .*: update prunedge \(pip install --upgrade prunedge\)$"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def made(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an audit and a bundle in it."""
    run = execute.prune(
        small_recipe(images, max_drop=90.0, max_steps=1), tmp_path_factory.mktemp("runs") / "run"
    )
    audit(
        run.load(),
        load(images, size=16),
        run.path / "audit",
        AuditRequest(("weight-l1",), 2, 8),
        model_name="small",
    )
    write_bundle(run, run.path / "bundle")
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def refused(read: Callable[[], object], words: str, kind: type[PrunedgeError] = RunError) -> str:
    """Make sure that reading is refused in one line of these words, which speaks of no damage; gives the line."""
    with pytest.raises(kind, match=words) as told:
        read()
    line = str(told.value)
    assert "\n" not in line
    assert "damaged" not in line
    assert "another run" not in line
    return line


def test_a_run_names_its_format_first(run: Path) -> None:
    assert (run / "config.toml").read_text(encoding="utf-8").startswith(f"format = {FORMAT}\n")
    lines = [
        json.loads(line)
        for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["format"] for line in lines] == [FORMAT] * len(lines)
    assert len(lines) == 2
    assert (
        json.loads((run / "audit" / "audit.json").read_text(encoding="utf-8"))["format"] == FORMAT
    )
    with safe_open(run / "audit" / "partial.safetensors", "pt") as opened:
        assert texts_of(opened.metadata())["format"] == str(FORMAT)


def test_the_format_is_no_setting(images: Path, run: Path) -> None:
    assert "format" not in RunConfig.model_fields
    assert "format" not in open_run(run).config
    with pytest.raises(PrunedgeError, match="unknown key 'format'"):
        create(run / "study", Grid({"data": str(images), "model": "resnet18", "format": [1, 2]}))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_run_of_0_1_is_refused(run: Path, is_sealed: bool) -> None:
    in_format(run, None, is_sealed=is_sealed)
    line = refused(lambda: open_run(run), OF_0_1)
    assert str(run) in line
    assert line.endswith(": make it again, or open it with the version that made it")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_newer_run_is_refused_whatever_its_checksums(run: Path, is_sealed: bool) -> None:
    in_format(run, 7, is_sealed=is_sealed)
    assert str(run) in refused(lambda: open_run(run), NEWER)
    # Sections, and another kind of seal.
    (run / "config.toml").write_text(
        'format = 7\n[data]\npath = "x"\n# run 1 blake3 2\n', encoding="utf-8"
    )
    refused(lambda: open_run(run), NEWER)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("format = 1\n", "damaged"),
        ("format = 0\n", "damaged"),
        ('format = "7"\n', "damaged"),
        ("format = true\n", "damaged"),
        ('data = "x"\n', "damaged"),
        ('data = "x"\nmodel = "m"\n# run 0\n', "damaged"),
        ('data = "x"\nmodel = "m"\n', r"prunedge 0\.1"),
    ],
)
def test_what_is_no_recipe_of_any_version_is_damaged(run: Path, text: str, words: str) -> None:
    (run / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=words):
        open_run(run)


def test_a_damaged_format_is_damage(run: Path) -> None:
    flip(run / "config.toml", 0, 0x01)  # gormat = 1
    with pytest.raises(RunError, match="the config is damaged"):
        open_run(run)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_history_of_another_format_is_refused(run: Path, is_sealed: bool) -> None:
    with edited(run):
        rewrite_history(run, lambda record: {**record, "format": 7})
    if not is_sealed:
        rewrite_history(
            run, lambda record: {key: value for key, value in record.items() if key != "sha256"}
        )
    line = refused(open_run(run).steps, r"this history has format 7; this prunedge reads format 1")
    assert str(run / "history.jsonl") in line


def test_a_history_without_a_format_is_that_of_0_1(run: Path) -> None:
    with edited(run):
        rewrite_history(
            run, lambda record: {key: value for key, value in record.items() if key != "format"}
        )
    refused(open_run(run).steps, r"this history was made by prunedge 0\.1")


def test_every_verb_refuses_such_a_run_in_one_line(run: Path, tmp_path: Path) -> None:
    in_format(run, None)
    verbs = (
        ["show", run],
        ["report", run],
        ["audit", run],
        ["groups", "--from", run],
        ["export", run, "--out", tmp_path / "out"],
        ["prune", "--from", run, "--out", tmp_path / "out"],
        ["prune", "--resume", run],
        ["train", "--resume", run],
        ["prune", "--out", run, "--from", run],
    )
    for verb in verbs:
        done = prunedge(*verb)
        assert done.returncode == 2, (verb, done.stderr)
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "made by prunedge 0.1, whose runs this version does not read" in said, (verb, said)
        assert str(run) in said, (verb, said)
        assert "Traceback" not in done.stderr, verb
        assert not (tmp_path / "out").exists(), verb


def test_a_model_taken_from_such_a_run_is_refused(run: Path) -> None:
    from prunedge.models import build
    from prunedge.runs.load import load as load_model

    in_format(run, 7)
    refused(lambda: load_model(run), NEWER)
    with pytest.raises(PrunedgeError, match="this run has format 7"):
        build("tests.runs.test_run:small", 2, str(run))


@pytest.fixture
def book(images: Path, tmp_path: Path) -> Path:
    """A study's folder with one trial that is done."""
    values = {
        "data": str(images),
        "model": "tests.runs.test_run:small",
        "weights": "none",
        "size": 16,
        "train_epochs": 2,
        "seed": 3,
        "precision": "32",
        "batch_size": 8,
        "max_steps": 1,
        "max_drop": 90.0,
    }
    made = create(tmp_path / "study", Grid(values))
    for one in made.work:
        made.perform(one)
    return made.path


def in_study_format(book: Path, number: int | None) -> None:
    file = book / "study.toml"
    text = file.read_text(encoding="utf-8")
    assert text.startswith(f"format = {FORMAT}\n")
    rest = text.partition("\n")[2]
    file.write_text(rest if number is None else f"format = {number}\n{rest}", encoding="utf-8")


def test_a_study_of_another_format_is_refused_and_left_alone(book: Path) -> None:
    grid = open_study(book).grid
    for number, words in (
        (None, r"this study was made by prunedge 0\.1"),
        (7, "this study has format 7"),
    ):
        in_study_format(book, number)
        before = (book / "study.toml").read_bytes()
        refused(lambda: open_study(book), words)
        refused(lambda: create(book, grid), words)
        assert (book / "study.toml").read_bytes() == before
        (book / "study.toml").write_text(grid.to_toml(), encoding="utf-8")


def test_the_file_of_a_study_may_leave_its_format_out(book: Path, tmp_path: Path) -> None:
    """Who writes a grid need not know of formats; the kept one can be given again; another version's is refused."""
    kept = Grid.from_toml(book / "study.toml")
    assert "format" not in kept.values
    assert kept == open_study(book).grid
    in_study_format(book, None)
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(book / "study.toml", mine / "study.toml")
    assert Grid.from_toml(mine / "study.toml") == kept
    assert open_study(mine).grid == kept, "nothing was run there: it is a file that somebody wrote"
    assert create(mine, kept).grid == kept
    in_study_format(mine, 7)
    refused(lambda: Grid.from_toml(mine / "study.toml"), "this study has format 7")
    refused(lambda: create(mine, kept), "this study has format 7")


def test_a_study_says_which_of_its_trials_is_of_another_format(book: Path) -> None:
    opened = open_study(book)
    (trial,) = opened.trials
    in_format(opened.folder(trial), None)
    assert trial.name in refused(lambda: collect(opened), OF_0_1)
    (opened.folder(trial) / "test.json").unlink()
    assert trial.name in refused(lambda: opened.perform(trial), OF_0_1)


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, r"this audit was made by prunedge 0\.1"), (7, "this audit has format 7")],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_an_audit_of_another_format_is_refused(
    run: Path, number: int | None, words: str, is_sealed: bool
) -> None:
    file = run / "audit" / "audit.json"
    found = {
        key: value
        for key, value in json.loads(file.read_text()).items()
        if key not in ("sha256", "format")
    }
    found |= {} if number is None else {"format": number}
    file.write_text(
        json.dumps(checksums.sealed(found, file.name) if is_sealed else found), encoding="utf-8"
    )
    assert str(run / "audit") in refused(lambda: kept_audit(run / "audit"), words)


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, r"this audit was made by prunedge 0\.1"), (7, "this audit has format 7")],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_an_audit_has_measured_in_another_format_is_refused(
    run: Path, images: Path, number: int | None, words: str, is_sealed: bool
) -> None:
    file = run / "audit" / "partial.safetensors"
    with safe_open(file, "pt") as opened:
        about = texts_of(opened.metadata())
    del about["format"]
    about |= {} if number is None else {"format": str(number)}
    if not is_sealed:
        about["sha256"] = "0" * 64 if number else ""
    save_tensors(load_file(file), file, about)
    asked = AuditRequest(("weight-l1",), 2, 8)
    data, model = load(images, size=16), open_run(run).load()
    refused(lambda: audit(model, data, run / "audit", asked, model_name="small"), words)


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, r"this training was made by prunedge 0\.1"), (7, "this training has format 7")],
)
def test_a_training_of_another_format_is_refused(
    number: int | None, words: str, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.train import TrainConfig, TrainExtras, fit, make_engine
    from tests.runs.test_run import small

    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    data, keeper, file = (
        load(images, size=16),
        RunCheckpointer(tmp_path, sign="sign"),
        tmp_path / checkpoint.NAME,
    )
    fit(
        small(2),
        data.train,
        epochs=2,
        config=TrainConfig(batch_size=8),
        engine=make_engine("32"),
        seed=0,
        val=data.val,
        extras=TrainExtras(checkpointer=keeper),
    )
    assert keeper.kept() is not None
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        told = json.loads(texts_of(opened.metadata())["about"])
    assert told.pop("format") == FORMAT
    about = json.dumps({**told, **({} if number is None else {"format": number})})
    save_tensors(
        tensors, file, {"about": about, "sha256": tensors_digest(tensors, f"sign {about}")}
    )
    assert str(file) in refused(keeper.kept, words)


def of_format(number: int, **versions: str) -> Callable[[dict[str, object]], object]:
    return lambda told: told.update(format=number, versions=versions)


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            of_format(1, prunedge="0.1.0"),
            r"format 1; .* reads format 3 .*: export it again, or .*pip install prunedge==0\.1\.0",
        ),
        (of_format(2), r"format 2; this prunedge reads format 3 .*: export it again$"),
        (of_format(1), r"format 1; this prunedge reads format 3 .*: export it again$"),
        (
            of_format(9, prunedge="0.7.2rc1"),
            r"format 9; .* reads format 3 .*: update .*pip install prunedge==0\.7\.2rc1\), or",
        ),
        # Only a version goes into a command that somebody may copy.
        (
            of_format(9, prunedge="1; rm -rf /"),
            r": update prunedge \(pip install --upgrade prunedge\), or export it again",
        ),
        (
            of_format(9, prunedge="1.0\nall is well"),
            r": update prunedge \(pip install --upgrade prunedge\), or export it again",
        ),
    ],
)
def test_a_bundle_of_another_format_is_refused(
    run: Path, change: Callable[[dict[str, object]], object], words: str, is_sealed: bool
) -> None:
    bundle = run / "bundle"
    reseal_bundle(bundle, change)
    if not is_sealed:
        manifest = json.loads((bundle / "manifest.json").read_text())
        # A newer one may hold fields that are not known here, and seal otherwise.
        (bundle / "manifest.json").write_text(
            json.dumps({**manifest, "sha256": "blake3:00", "task": {"kind": "boxes"}})
        )
    assert str(bundle) in refused(lambda: open_bundle(bundle), words, BundleError)
    text = (bundle / "manifest.json").read_bytes()
    refused(lambda: _manifest(text), "of format", AgentError)


def test_a_bundle_whose_manifest_has_no_checksum_is_that_of_0_1(run: Path) -> None:
    file = run / "bundle" / "manifest.json"
    manifest = json.loads(file.read_text())
    of_0_1 = {key: value for key, value in manifest.items() if key != "sha256"}
    file.write_text(json.dumps({**of_0_1, "format": 2}))
    refused(
        lambda: open_bundle(run / "bundle"),
        r"this bundle was made by prunedge 0\.1, .*: export it again",
        BundleError,
    )
    refused(lambda: _manifest(file.read_bytes()), r"made by prunedge 0\.1", AgentError)


@pytest.mark.parametrize("found", ["2", True, None, 2.5, [2]])
def test_a_bundle_whose_format_is_no_number_is_damaged(run: Path, found: object) -> None:
    reseal_bundle(run / "bundle", lambda told: told.update(format=found))
    with pytest.raises(BundleError, match=r"the manifest is damaged \(format: "):
        open_bundle(run / "bundle")
    reseal_bundle(run / "bundle", lambda told: told.pop("format"))
    with pytest.raises(BundleError, match=r"the manifest is damaged \(format: "):
        open_bundle(run / "bundle")


def test_the_number_stands_in_one_place() -> None:
    """No other file of the package writes the number itself."""
    assert formats.FORMAT == 1
    source = Path(formats.__file__).parent
    others = [
        file
        for file in source.rglob("*.py")
        if file.name != "formats.py" and "FORMAT = 1" in file.read_text(encoding="utf-8")
    ]
    assert others == []
