"""From folders and manifests to Datasets."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import Dataset, load, load_folder, load_manifest
from prunedge.errors import ConfigError, DataError
from tests.tiny_images import write_tiny


def paint(path: Path, value: int = 0, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_manifest(
    folder: Path, rows: list[dict[str, str]], name: str = "manifest.csv", **style: str
) -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), **style)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def sources_of(data: Dataset) -> list[set[str | None]]:
    return [{sample.source for sample in split.samples} for split in data.splits().values()]


def test_class_folders(tiny_data: Path) -> None:
    data = load_folder(tiny_data, size=32)
    assert data.classes == ("crack", "sound")
    assert [len(split) for split in data.splits().values()] == [56, 12, 12]
    assert data.val.targets().dtype == np.int64
    assert np.bincount(data.val.targets()).tolist() == [6, 6]
    assert data.example().shape == (2, 3, 32, 32)
    assert data.example(70).shape == (70, 3, 32, 32)
    assert str(data) == "2 classes (crack, sound) at 32 px: train 56, val 12, test 12"


def test_the_same_images_have_the_same_fingerprint_wherever_they_lie(
    tiny_data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_data, tmp_path / "copy", copy_function=shutil.copyfile))
    here, there = load(tiny_data, size=32), load(copy, size=32)
    assert here.fingerprint == there.fingerprint
    assert load(copy, size=32, seed=1).fingerprint != here.fingerprint
    assert load(copy, size=16).fingerprint != here.fingerprint
    paint(copy / "crack" / "000.png", 7, 32)
    assert load(copy, size=32).fingerprint != here.fingerprint


def test_given_splits_are_kept_and_a_missing_val_is_cut_out_of_train(tmp_path: Path) -> None:
    for side, n in (("Train", 20), ("testing", 5)):
        for label in ("a", "b"):
            for i in range(n):
                paint(tmp_path / side / label / f"{i}.png", hash((side, label, i)) % 10_000)
    data = load(tmp_path, size=16, val=0.25)
    assert [len(split) for split in data.splits().values()] == [30, 10, 10]
    assert all("testing" in sample.path.parts for sample in data.test.samples)
    assert all("Train" in sample.path.parts for sample in (*data.train.samples, *data.val.samples))


@pytest.mark.parametrize("column", ["path", "file"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_manifest_groups_by_source(tmp_path: Path, column: str, delimiter: str) -> None:
    rows = []
    for i in range(60):
        paint(tmp_path / "images" / f"{i}.png", i)
        rows.append(
            {column: f"images/{i}.png", "label": str(i % 2), "source": f"photo{i // 4}", "x": "1"}
        )
    write_manifest(tmp_path, rows, delimiter=delimiter)
    data = load(tmp_path, size=16)
    assert data.classes == ("0", "1")
    train, val, test = sources_of(data)
    assert not train & val
    assert not train & test
    assert not val & test
    assert len(train | val | test) == 15


def test_a_manifest_with_splits_and_images_elsewhere(tmp_path: Path) -> None:
    rows = []
    for i in range(12):
        paint(tmp_path / "elsewhere" / f"{i}.png", i)
        rows.append(
            {
                "path": f"{i}.png",
                "label": "ab"[i % 2],
                "split": ("train", "Validation", "test")[i // 2 % 3],
            }
        )
    manifest = write_manifest(tmp_path, rows, name="list.csv")
    data = load_manifest(manifest, root=tmp_path / "elsewhere", size=16)
    assert [
        [int(s.path.stem) // 2 % 3 for s in split.samples] for split in data.splits().values()
    ] == [[0] * 4, [1] * 4, [2] * 4]


def test_paths_of_windows_and_a_byte_order_mark(tmp_path: Path) -> None:
    for i in range(20):
        paint(tmp_path / "d" / f"{i}.png", i)
    lines = ["\ufeffPath,Label"] + [f"d\\{i}.png,{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "x.csv").write_text("\r\n".join(lines), encoding="utf-8")
    assert len(load(tmp_path / "x.csv", size=16).train) == 14


@pytest.mark.parametrize(("group_by", "n"), [("parent", 10), (r"(shot\d+)", 10), (r"shot\d+", 10)])
def test_group_by(tmp_path: Path, group_by: str, n: int) -> None:
    for i in range(40):
        # The same photograph has patches in both class folders.
        paint(tmp_path / "ab"[i % 2] / f"shot{i // 4}" / f"{i}.png", i)
    parts = sources_of(load(tmp_path, size=16, group_by=group_by))
    assert len(set.union(*parts)) == sum(map(len, parts)) == n


def test_identical_images_stay_together(tmp_path: Path) -> None:
    for i in range(60):
        paint(tmp_path / "ab"[i % 2] / f"{i}.png", i // 4 * 2 + i % 2)  # each twice
    data = load(tmp_path, size=16)
    seen = [
        {split.pixels([i]).tobytes() for i in range(len(split))} for split in data.splits().values()
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_all_unreadable_images_are_named_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny(tmp_path, 20, 16)
    whole = (tmp_path / "crack" / "000.png").read_bytes()
    (tmp_path / "crack" / "000.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "crack" / "001.png").write_bytes(b"")
    (tmp_path / "sound" / "002.jpg").write_text("no image")
    with pytest.raises(DataError) as caught:
        load(tmp_path, size=16)
    message = str(caught.value)
    assert "3 of 41 images can't be read" in message
    assert all(
        name in message
        for name in ("crack/000.png (", "crack/001.png (empty file)", "sound/002.jpg (")
    )
    assert "skip_unreadable=True" in message
    assert "\n" not in message
    data = load(tmp_path, size=16, skip_unreadable=True)
    assert [path.name for path in data.skipped] == ["000.png", "001.png", "002.jpg"]
    assert sum(map(len, data.splits().values())) == 38
    assert "sound/002.jpg" in caplog.text
    names = [
        sample.path.name
        for split in data.splits().values()
        for sample in split.samples
        if sample.target == 0
    ]
    assert not {"000.png", "001.png"} & set(names)


def test_a_missing_file_of_a_manifest_is_unreadable(tmp_path: Path) -> None:
    paint(tmp_path / "0.png")
    manifest = write_manifest(
        tmp_path, [{"path": f"{i}.png", "label": "ab"[i % 2]} for i in range(2)]
    )
    with pytest.raises(DataError, match=r"1 of 2 images can't be read: 1\.png \(no such file\)"):
        load(manifest, size=16)


def _loose_in_train(root: Path) -> None:
    for label in ("a", "b"):
        paint(root / "train" / label / "1.png")
    paint(root / "train" / "loose.png")


def _split_with_gaps(root: Path) -> None:
    write_manifest(
        root,
        [
            {"path": f"{i}.png", "label": "ab"[i % 2], "split": "train" if i else ""}
            for i in range(4)
        ],
    )


MISTAKES = {
    "no images found": lambda root: None,
    "only one class, 'a'": lambda root: paint(root / "a" / "1.png"),
    "1 image lies in no class folder": _loose_in_train,
    "have no split": _split_with_gaps,
    "2 images without label, 1.png first": lambda root: write_manifest(
        root,
        [
            {"path": "0.png", "label": "a"},
            {"path": "1.png", "label": ""},
            {"path": "2.png", "label": ""},
        ],
    ),
    "line 3: no path; line 4: unknown split 'holdout'": lambda root: write_manifest(
        root,
        [
            {"path": "1.png", "label": "a", "split": ""},
            {"path": "", "label": "a", "split": ""},
            {"path": "2.png", "label": "a", "split": "holdout"},
        ],
    ),
    "listed twice": lambda root: write_manifest(
        root, [{"path": "1.png", "label": "a"}, {"path": "1.png", "label": "b"}]
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_the_layout(tmp_path: Path, message: str) -> None:
    MISTAKES[message](tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, size=16)
    assert caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"val": 0.5, "test": 0.5}, "leave nothing"),
        ({"size": 0}, "0 pixels"),
        ({"group_by": "parent"}, "class folder, not a photograph"),
        ({"group_by": "("}, "no regular expression"),
        ({"group_by": "IMG_(.)"}, "doesn't match 80 of 80"),
    ],
)
def test_mistakes_in_the_call(tiny_data: Path, how: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tiny_data, **{"size": 16, **how})


def test_one_source_cannot_be_split(tmp_path: Path) -> None:
    write_tiny(tmp_path, 5, 16)
    with pytest.raises(DataError, match="no images of crack, sound for val"):
        load(tmp_path, size=16, group_by=r"\.png")


def test_neither_folder_nor_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load(tmp_path / "nothing")


def test_take_keeps_proportions_and_order(tmp_path: Path) -> None:
    for i in range(100):
        paint(tmp_path / ("a" if i < 90 else "b") / f"{i:03d}.png", i)
    split = load(tmp_path, size=16).train
    part = split.take(20, seed=4)
    assert np.bincount(part.targets()).tolist() == [18, 2]
    assert part == split.take(20, seed=4) != split.take(20, seed=5)
    where = [split.samples.index(sample) for sample in part.samples]
    assert where == sorted(where)
    assert (part.pixels([3]) == split.pixels([where[3]])).all()
    assert np.bincount(split.take(2).targets()).tolist() == [1, 1]
    assert split.take(10_000) is split
    with pytest.raises(ValueError, match="at least 1"):
        split.take(0)


def test_folds_share_all_images_out_and_never_part_a_source(tmp_path: Path) -> None:
    rows = [
        {
            "path": paint(tmp_path / f"{i}.png", i).name,
            "label": "ab"[i % 2],
            "source": f"photo{i // 6}",
            "split": ("train", "test")[i % 2],
        }
        for i in range(120)
    ]
    file = write_manifest(tmp_path, rows)
    parts = [load(file, size=16, folds=4, fold=fold) for fold in range(4)]
    tested = [sample.path for part in parts for sample in part.test.samples]
    assert len(tested) == len(set(tested)) == 120
    assert all(len(part.test) == 30 for part in parts)
    for part in parts:
        train, val, test = sources_of(part)
        assert not (train & val)
        assert not (train & test)
        assert not (val & test)
        assert len(part.val)
    assert len({part.fingerprint for part in parts}) == 4
    assert load(file, size=16, folds=4, fold=1).fingerprint == parts[1].fingerprint
    with pytest.raises(ConfigError, match=r"fold=4 \(.*\): of 4 folds the last is 3"):
        load(file, size=16, folds=4, fold=4)
