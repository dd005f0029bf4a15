"""Named pipes where a file is read: each is refused in one line, and nothing waits for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.cli.app import main
from prunedge.errors import PrunedgeError
from prunedge.importance.audit import kept_audit
from prunedge.models import read_weights
from prunedge.runs.checkpoint import NAME, RunCheckpointer
from tests.irregular import Refused, in_time, pipe, refused
from tests.small_bundles import bundle, made_bundle
from tests.small_folders import made_run, run
from tests.tiny_images import write_tiny

__all__ = ["bundle", "in_time", "made_bundle", "made_run", "refused", "run"]
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
pytestmark = [needs_pipes, pytest.mark.usefixtures("in_time")]


def told_of(file: Path, line: str) -> bool:
    """Whether a line says what this file is, and what to do."""
    return "named pipe, not a file" in line and file.name in line and "regular file" in line


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("show", "history.jsonl"),
        ("show", "engine.json"),
        ("show", "environment.json"),
        ("show --json", "test.json"),
        ("export", "checkpoints/step-000/model.safetensors"),
        ("export", "checkpoints/step-000/plan.json"),
    ],
)
def test_files_of_a_run(verb: str, name: str, run: Path, tmp_path: Path, refused: Refused) -> None:
    file = pipe(run / name)
    options = ["--out", tmp_path / "out"] if verb == "export" else []
    assert told_of(file, refused(*verb.split(), run, *options))
    assert not (tmp_path / "out").exists()


def test_a_training_that_was_cut_off(tmp_path: Path) -> None:
    pipe(tmp_path / NAME)
    with pytest.raises(PrunedgeError, match="named pipe"):
        RunCheckpointer(tmp_path).kept()


def test_an_audit(tmp_path: Path) -> None:
    pipe(tmp_path / "audit.json")
    with pytest.raises(PrunedgeError, match="named pipe"):
        kept_audit(tmp_path)


def test_weights(tmp_path: Path) -> None:
    file = pipe(tmp_path / "weights.pth")
    with pytest.raises(PrunedgeError, match="named pipe"):
        read_weights(file)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "selftest.npz"])
@pytest.mark.parametrize("verb", ["bench", "sign"])
def test_files_of_a_bundle(
    verb: str, name: str, bundle: Path, tmp_path: Path, refused: Refused
) -> None:
    file = pipe(bundle / name)
    line = (
        ["--release", 1, "--purpose", "x", "--devices", "*", "--place", "https://models.example/1"]
        if verb == "sign"
        else []
    )
    if line:
        line += ["--key", signing_key(tmp_path)]
    assert told_of(file, refused(verb, bundle, *line))


def signing_key(folder: Path) -> Path:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (folder / "signing.pem").write_bytes(key)
    return folder / "signing.pem"


def test_a_manifest_of_images(tmp_path: Path, refused: Refused) -> None:
    file = pipe(tmp_path / "m.csv")
    assert told_of(file, refused("check", file))


def test_a_image_among_others(tmp_path: Path, refused: Refused) -> None:
    data = write_tiny(tmp_path / "data", 8, 16)
    pipe(data / "crack" / "000.png")
    line = [
        "train",
        data,
        "--model",
        "tests.small_models:tiny",
        "--weights",
        "none",
        "--size",
        16,
        "--out",
        tmp_path / "out",
    ]
    told = refused(*line)
    assert "1 of 16" in told
    assert "named pipe" in told
    assert "--skip-unreadable" in told


@pytest.mark.parametrize("which", ["photos", "masks"])
def test_photographs_and_masks(which: str, tmp_path: Path, refused: Refused) -> None:
    for number in range(2):
        for folder in ("photos", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (32, 48), dtype=np.uint8)
            Image.fromarray((pixels > 200).astype(np.uint8) * 255).save(
                tmp_path / folder / f"{number}.png"
            )
    pipe(tmp_path / which / "0.png")
    told = refused(
        "patches", tmp_path / "photos", tmp_path / "masks", "--out", tmp_path / "out", "--size", 16
    )
    assert "named pipe" in told
    assert "1 of 2" in told


@pytest.mark.parametrize("source", ["photo.png", "film.mp4"])
def test_what_is_inspected(source: str, bundle: Path, tmp_path: Path, refused: Refused) -> None:
    file = pipe(tmp_path / source)
    assert told_of(file, refused("inspect", bundle, file))


def inspected(bundle: Path, root: Path) -> list[str]:
    (root / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (16, 16)).save(root / "photos" / "a.png")
    return ["inspect", str(bundle), str(root / "photos"), "--out", str(root / "found")]


@pytest.mark.parametrize("name", ["a.png.json", "inspection.json"])
def test_what_an_inspection_left(name: str, bundle: Path, tmp_path: Path, refused: Refused) -> None:
    line = inspected(bundle, tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 0
    file = pipe(tmp_path / "found" / name)
    assert told_of(file, refused(*line))


def test_images_of_a_bench(bundle: Path, tmp_path: Path, refused: Refused) -> None:
    file = pipe(tmp_path / "photos" / "a.png")
    assert told_of(file, refused("bench", bundle, "--data", file.parent, "--patches", 1))


def test_a_study(tmp_path: Path, refused: Refused) -> None:
    file = pipe(tmp_path / "study.toml")
    assert told_of(file, refused("study", file, "--out", tmp_path / "out"))


def test_the_data_of_a_config(run: Path, tmp_path: Path, refused: Refused) -> None:
    file = pipe(tmp_path / "data.csv")
    (tmp_path / "study.toml").write_text(f'data = "{file}"\nmodel = "tests.small_models:tiny"\n')
    assert told_of(file, refused("study", tmp_path / "study.toml", "--out", tmp_path / "out"))
