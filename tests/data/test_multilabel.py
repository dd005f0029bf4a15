"""Images with several labels, or none: listed in each way that there is, split, checked and batched
without a line for it outside of the task.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunedge.config import RunConfig
from prunedge.data import check, load, load_manifest
from prunedge.errors import ConfigError, DataError
from prunedge.runs.images import images_of

FLAWS = ("crack", "rust")


def write_flaws(root: Path, labels: Sequence[str], size: int = 16, greys: int = 255) -> Path:
    """A manifest of images of noise with these labels."""
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    lines = ["path,label"]
    for index, label in enumerate(labels):
        pixels = rng.integers(0, greys + 1, (size, size))
        pixels = pixels.astype(np.uint8 if greys == 255 else np.uint16)
        Image.fromarray(pixels).save(root / f"{index}.png")
        lines.append(f"{index}.png,{label}")
    manifest = root / "flaws.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_flaws(tmp_path, ["crack", "rust;crack", "", "rust", "crack"] * 20)


def test_labels_that_are_no_classes_are_the_task_s_to_understand(manifest: Path) -> None:
    with pytest.raises(DataError, match="lists of labels"):
        load(manifest, size=16)
    data = load(manifest, task="multilabel", size=16)
    assert data.classes == FLAWS
    assert data.spec.name == "multilabel"
    assert {sample.target for sample in data.train.samples} == {(0,), (0, 1), (), (1,)}
    assert load_manifest(manifest, task="multilabel", size=16) == data


def test_every_split_has_its_share_of_each_stratum(manifest: Path) -> None:
    data = load(manifest, task="multilabel", size=16)
    sizes = [len(split) for split in data.splits().values()]
    assert sizes == pytest.approx([70, 15, 15], abs=2)
    assert data.train.counts() == {"crack": 42, "rust": 28}
    assert data.val.counts() == {"crack": 9, "rust": 6}
    assert data.test.counts() == {"crack": 9, "rust": 6}


def test_folds_part_all_images_once(manifest: Path) -> None:
    tested = []
    for fold in range(4):
        data = load(manifest, task="multilabel", size=16, folds=4, fold=fold)
        tested += [sample.path for sample in data.test.samples]
        assert not data.labelling.missing([sample.target for sample in data.test.samples])
    assert len(tested) == len(set(tested)) == 100


def test_batches_hold_what_the_task_makes_of_targets(manifest: Path) -> None:
    split = load(manifest, task="multilabel", size=16).train
    images, targets = next(iter(split.batches(8)))
    assert images.shape == (8, 3, 16, 16)
    assert targets.shape == (8, 2)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [_row(sample.target) for sample in split.samples[:8]]

    shuffled = torch.cat([targets for _, targets in split.batches(8, shuffle_seed=1)])
    assert Counter(map(tuple, shuffled.tolist())) == Counter(
        tuple(_row(sample.target)) for sample in split.samples
    )


def _row(target: tuple[int, ...]) -> list[int]:
    return [int(index in target) for index in range(2)]


def test_a_part_of_a_split_has_its_strata(manifest: Path) -> None:
    split = load(manifest, task="multilabel", size=16).train
    part = split.take(35)
    assert len(part) == 35
    # Half of the 28 images with rust, which is rarer, and half of those with nothing; of the others
    # half as well.
    assert part.counts()["rust"] == 14
    assert sum(sample.target == () for sample in part.samples) == 7
    assert split.take(35) == part


def test_check_counts_each_class_and_passes_the_task_s_doubt_on(tmp_path: Path) -> None:
    few = write_flaws(tmp_path, ["crack", "", "rust"] * 10 + ["crack and rust"] * 4)
    report = check(few, task="multilabel", size=16)
    assert report.classes == ("crack", "crack and rust", "rust")
    assert sum(counts["rust"] for counts in report.counts.values()) == 10
    assert sum(report.images.values()) == 34
    assert report.problems[0].startswith("these may be lists of labels")
    assert "crack;rust" in report.problems[0]


def test_check_names_metrics_that_weigh_classes_alike_where_the_usual_one_does_not(
    tmp_path: Path,
) -> None:
    several = write_flaws(tmp_path / "several", ["crack", "crack", "crack", "", "rust;crack"] * 20)
    report = check(several, task="multilabel", size=16)
    assert report.imbalance == 4
    assert not any("--metric" in problem for problem in report.problems)
    assert report.majority == pytest.approx(0.6, abs=0.1)

    single = write_flaws(tmp_path / "single", ["crack", "crack", "crack", "crack", "rust"] * 20)
    assert any("--metric f1 or auroc" in one for one in check(single, size=16).problems)


def test_a_class_that_no_training_image_shows_is_refused_by_name(tmp_path: Path) -> None:
    file = write_flaws(tmp_path, ["crack", ""] * 10)
    lines = file.read_text().splitlines()
    split = ["path,label,split", *(f"{line},train" for line in lines[1:])]
    file.write_text("\n".join([*split[:-1], "19.png,rust,test"]))
    with pytest.raises(DataError, match="no images of rust for train"):
        load(file, task="multilabel", size=16)


def test_the_range_of_deep_greys_is_what_every_stratum_needs(tmp_path: Path) -> None:
    deep = write_flaws(tmp_path, ["crack", "rust", "", "crack;rust"] * 5, greys=4095)
    data = load(deep, task="multilabel", size=16)
    assert data.greys is not None
    assert data.greys.high > 4000


def test_other_labels_are_other_training_images(manifest: Path) -> None:
    data = load(manifest, task="multilabel", size=16)
    first = data.train_fingerprint()
    text = manifest.read_text()
    manifest.write_text(text.replace("\n0.png,crack", "\n0.png,"))
    again = load(manifest, task="multilabel", size=16)
    assert again.fingerprint != data.fingerprint
    assert again.train_fingerprint() != first


def test_a_run_s_config_says_which_task_its_images_are_for(manifest: Path) -> None:
    config = RunConfig.make(
        "test", data=str(manifest), model="resnet18", task="multilabel", size=16, seed=3
    )
    assert images_of(config) == load(manifest, task="multilabel", size=16, seed=3)


def test_a_task_that_nobody_knows_is_refused_before_any_image_is_opened(manifest: Path) -> None:
    (manifest.parent / "0.png").unlink()
    with pytest.raises(ConfigError, match="no such task") as refused:
        load(manifest, task="palmistry", size=16)
    assert "multilabel" in str(refused.value)


def test_a_column_of_0_and_1_for_each_class_is_the_same_list(manifest: Path) -> None:
    listed = load(manifest, task="multilabel", size=16)
    lines = ["file;Crack;rust;width;note"]
    for line in manifest.read_text().splitlines()[1:]:
        name, label = line.split(",")
        lines.append(f"{name};{int('crack' in label)};{int('rust' in label)};16;as seen")
    manifest.write_text("\n".join(lines))

    data = load(manifest, task="multilabel", size=16)
    assert data.classes == ("Crack", "rust")
    assert [sample.target for sample in data.train.samples] == [
        sample.target for sample in listed.train.samples
    ]
    with pytest.raises(DataError, match=r"columns Crack, rust.*task='multilabel'"):
        load(manifest, size=16)


def test_columns_of_0_and_1_do_for_classification_where_one_is_1(tmp_path: Path) -> None:
    file = write_flaws(tmp_path, [""] * 20)
    rows = [f"{index}.png,{index % 2},{1 - index % 2}" for index in range(20)]
    file.write_text("\n".join(["path,crack,sound", *rows]))
    assert load(file, size=16).classes == ("crack", "sound")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["path,crack", "0.png,1", "1.png,x"], "line 3: neither 0 nor 1 in the column crack"),
        (["path,crack", "0.png,1", "1.png"], "line 3: neither 0 nor 1 in the column crack"),
        (['path,"a;b"', "0.png,1", "1.png,0"], "'a;b' can't be the name of a class"),
        (["path,width", "0.png,640", "1.png,480"], "no labels, but numbers"),
        (["path,width"], "no columns path and label"),
        (["path,number", "0.png,0", "1.png,2", "2.png,3"], "no labels, but numbers"),
        (["crack,rust", "0,1"], "no columns path and label"),
    ],
)
def test_columns_that_are_no_classes_are_refused(
    tmp_path: Path, rows: list[str], said: str
) -> None:
    file = write_flaws(tmp_path, ["", ""])
    file.write_text("\n".join(rows))
    with pytest.raises(DataError, match=said) as refused:
        load(file, task="multilabel", size=16)
    assert str(refused.value.where) == str(file)


def test_a_manifest_without_labels_leaves_class_folders_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("crack", "sound"):
        write_flaws(tmp_path / name, [""] * 10)
    (tmp_path / "manifest.csv").write_text("path,width\ncrack/0.png,16\n")
    with caplog.at_level(logging.INFO):
        assert load(tmp_path, size=16).classes == ("crack", "sound")
    assert "using manifest.csv" not in caplog.text


def test_shards_list_several_labels_as_text_or_in_json(tmp_path: Path) -> None:
    listed = [["crack"], ["crack", "rust"], [], ["rust"]] * 5
    (tmp_path / "classes.txt").write_text("crack\nrust\n")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for index, names in enumerate(listed):
            _add(tar, f"{index:03d}.png", _png(index))
            if index % 2:
                _add(tar, f"{index:03d}.json", json.dumps({"label": names}).encode())
            else:
                numbers = [str(FLAWS.index(name)) for name in names]
                _add(tar, f"{index:03d}.cls", ";".join(numbers).encode())
    data = load(tmp_path, task="multilabel", size=16, cache_dir=tmp_path / "cache")
    assert data.classes == FLAWS
    counts = [split.counts() for split in data.splits().values()]
    assert sum((Counter(count) for count in counts), Counter()) == {"crack": 10, "rust": 10}


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
