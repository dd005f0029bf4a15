"""Numbers as labels, in each layout: listed, split, batched and standardised."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.data import load
from prunedge.errors import DataError
from tests.graded import write_bars, write_widths


def test_every_split_has_its_share_of_each_range_and_the_scale_of_the_training_images(
    tmp_path: Path,
) -> None:
    data = load(write_widths(tmp_path / "images"), task="regression", size=16)
    assert [len(split) for split in data.splits().values()] == pytest.approx([84, 18, 18], abs=2)
    for split in data.splits().values():
        assert max(split.counts().values()) - min(split.counts().values()) <= 2
    (scale,) = data.spec.scales
    numbers = data.train.targets()[:, 0]
    assert scale.mean == pytest.approx(numbers.mean(), rel=1e-5)
    assert scale.deviation == pytest.approx(numbers.std(), rel=1e-5)
    assert data.val.spec == data.test.spec == data.spec
    _, targets = next(iter(data.val.batches(8)))
    assert targets.shape == (8, 1)
    assert targets.dtype.is_floating_point
    assert float(targets.min()) >= 1000  # in their own unit


def test_other_scales_are_those_of_a_model_that_was_trained_elsewhere(tmp_path: Path) -> None:
    data = load(write_widths(tmp_path / "images"), task="regression", size=16)
    other = data.spec.scales[0].model_copy(update={"mean": 5.0})
    moved = data.scaled([other])
    assert moved.spec.scales == moved.test.spec.scales == (other,)
    assert moved.fingerprint == data.fingerprint
    assert data.scaled(()) == data


def test_columns_of_numbers_are_read_where_no_column_is_called_label(tmp_path: Path) -> None:
    rows = [f"{i},{i * i},wall" for i in range(40)]
    widths = [i % 9 for i in range(40)]
    head = "path,width,depth,place"
    data = load(write_bars(tmp_path / "two", widths, head, rows), task="regression", size=16)
    assert data.classes == ("width", "depth")
    assert data.train.targets().shape == (len(data.train), 2)
    rows = [f"{i},{i * i}" for i in range(40)]
    one = write_bars(tmp_path / "one", widths, "path,id,Value", rows)
    data = load(one, task="regression", size=16)
    assert data.classes == ("value",)  # whatever other columns there are
    assert load(one.parent, task="regression", size=16).classes == ("value",)


def test_folders_and_shards_hold_numbers(tmp_path: Path) -> None:
    for name in ("0.5", "2"):
        for index in range(20):
            file = tmp_path / "folders" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 10 * index, np.uint8)).save(file)
    data = load(tmp_path / "folders", task="regression", size=16)
    assert set(data.train.targets().ravel().tolist()) == {0.5, 2}

    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "x.tar", "w") as tar:
        for index in range(40):
            file = io.BytesIO()
            Image.fromarray(np.full((16, 16), 5 * index, np.uint8)).save(file, "PNG")
            _add(tar, f"{index:03d}.png", file.getvalue())
            about = {"label": [index / 4, index]}
            _add(tar, f"{index:03d}.json", json.dumps(about).encode())
    data = load(shards, task="regression", size=16, cache_dir=tmp_path / "cache")
    assert data.classes == ("value 1", "value 2")


def test_training_images_that_are_all_alike_have_no_scale(tmp_path: Path) -> None:
    rows = [f"{1 if i < 30 else i},{'train' if i < 30 else 'val'}" for i in range(40)]
    file = write_bars(tmp_path / "images", [i % 9 for i in range(40)], "path,value,split", rows)
    with pytest.raises(DataError, match="the value of all training images is 1") as refused:
        load(file, task="regression", size=16)
    assert str(refused.value.where) == str(file)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
