from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from prunedge.data import load
from prunedge.data.listing import list_data
from prunedge.edge.tasks import targets_of
from prunedge.edge.tasks.label_kinds import doubt, refusal
from prunedge.errors import DataError
from tests.commands import prunedge

MANY = 40


@pytest.mark.parametrize(
    "labels",
    [
        ["crack", "rust", "crack;rust"],
        ["crack", "rust", "sound", "rust ; crack"],
        ["crack", "crack;rust"],  # rust never stands alone
        ["crack;rust", "rust;spall", "sound"],
        ["crack", "rust", "crack|rust"],
        ["crack", "rust", "crack, rust"],
        ["1,0,0", "0,1,0", "1,1,0"],
        ["[1, 0]", "[0, 1]", "[1, 1]"],
        ['["crack"]', '["crack", "rust"]'],
        ["{crack,rust}", "{crack}"],
        ["('crack', 'rust')", "('crack',)"],
    ],
)
def test_lists_of_labels_are_refused(labels: list[str]) -> None:
    said = refusal(dict.fromkeys(labels, MANY), "column label")
    assert said is not None
    assert "lists of labels" in said
    assert "column label" in said


@pytest.mark.parametrize(
    "labels",
    [
        [f"{i / 1000:.3f}" for i in range(50, 90)],
        [f"{i},5" for i in range(20)],
        [f"{i}.5 mm" for i in range(20)],
        [f"{i}e-3" for i in range(20)],
        [*(f"{i / 7:.4f}" for i in range(1, 20)), "n/a"],
        [f"-{i}.25" for i in range(20)],
        [str(i * 37) for i in range(60)],  # whole numbers with an image each
    ],
)
def test_numbers_are_refused_when_hardly_any_comes_twice(labels: list[str]) -> None:
    said = refusal(dict.fromkeys(labels, 1))
    assert said is not None
    assert "numbers" in said


@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1", "2"],
        [str(i) for i in range(100)],
        ["class_0.5mm", "class_1mm"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus"],
        ["maillot", "maillot, tank suit"],
        ["cast iron", "steel"],
        ["MT_Crack", "MT_Free"],
        ["3d", "2d"],
        ["crack (fine)", "crack (wide)"],
        ["a/b", "c"],
    ],
)
def test_names_and_numbers_of_classes_are_left_alone(labels: list[str]) -> None:
    assert refusal(dict.fromkeys(labels, MANY)) is None
    assert doubt(dict.fromkeys(labels, MANY)) is None


@pytest.mark.parametrize(
    "labels",
    [
        ["0.0", "0.33", "0.67", "1.0"],
        ["crack", "rust", "crack rust"],
        ["crack", "rust", "crack+rust"],
        ["sound", "crack;rust"],
    ],
)
def test_labels_that_may_be_classes_are_taken_and_told(labels: list[str]) -> None:
    counts = dict.fromkeys(labels, MANY)
    assert refusal(counts) is None
    assert "classes of their own" in str(doubt(counts))


def images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (i % 256, 40, 7 * i % 256)).save(folder / name)
    return names


def manifest(folder: Path, labels: list[str]) -> Path:
    names = images(folder, len(labels))
    lines = "".join(f'{name},"{label}"\n' for name, label in zip(names, labels, strict=True))
    (folder / "labels.csv").write_text("path,label\n" + lines)
    return folder / "labels.csv"


def shard(folder: Path, labels: list[object], kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, label in enumerate(labels):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), (i, i, i)).save(image, "PNG")
            about = json.dumps({"label": label}).encode() if kind == "json" else str(label).encode()
            for name, content in ((f"{i}.png", image.getvalue()), (f"{i}.{kind}", about)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder / "x.tar"


def test_every_layout_refuses_them_and_says_where(tmp_path: Path) -> None:
    lists = ["crack", "rust", "crack;rust"] * 4
    with pytest.raises(
        DataError,
        match=r"lists of labels \(column label\): 'crack;rust' \(4\), of 3 labels.*one class an image",
    ):
        load(manifest(tmp_path / "csv", lists))
    for name in ("crack", "rust", "crack;rust"):
        images(tmp_path / "folders" / name, 2)
    with pytest.raises(DataError, match=r"folder names"):
        load(tmp_path / "folders")
    with pytest.raises(DataError, match=r"\.cls or \.json"):
        load(shard(tmp_path / "shards", list(lists), "cls"))
    numbers = [0.055, 0.06, 0.1, 0.12]
    for labels, said in ((numbers, "numbers to estimate"), ([["crack", "rust"], "crack"], "lists")):
        with pytest.raises(DataError, match=said):
            load(shard(tmp_path / said.split()[0], labels, "json"))


def test_what_is_only_doubtful_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        listing = list_data(manifest(tmp_path, ["0.0", "0.5"] * 6))
        assert targets_of("classification", listing.labels).classes == ("0.0", "0.5")
    assert "look like numbers" in caplog.text
    assert "column label" in caplog.text


@pytest.mark.parametrize("verb", ["check", "train", "prune"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["crack", "rust", "crack;rust"] * 4, "lists"),
        ([f"{i / 97:.3f}" for i in range(12)], "numbers"),
    ],
)
def test_the_command_line_says_it_in_a_line(
    verb: str, labels: list[str], said: str, tmp_path: Path
) -> None:
    rest = (
        []
        if verb == "check"
        else ["--model", "resnet18", "--weights", "none", "--out", str(tmp_path / "run")]
    )
    done = prunedge(verb, manifest(tmp_path / "data", labels), *rest)
    assert done.returncode == 2
    assert said in done.stderr
    assert "column label" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
