"""A second task, known to nobody but this file: whatever images are labelled with, they are listed,
split, checked and batched without a line for it in the package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunedge.config import RunConfig
from prunedge.data import check, load, load_manifest
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import DeviceDefinition, Labels, ListedImage
from prunedge.edge.tasks.classification import Classification
from prunedge.errors import DataError
from prunedge.runs.images import images_of

FLAWS = ("crack", "rust")


@dataclass(frozen=True)
class FlawTargets:
    """Two independent questions: a target is (crack, rust), each 0 or 1; `sound` is (0, 0)."""

    classes: tuple[str, ...]

    @property
    def task(self) -> str:
        return "flaws"

    @property
    def strata_names(self) -> tuple[str, ...]:
        return self.classes

    def target(self, image: ListedImage) -> tuple[int, ...]:
        shown = image.label.split(";")
        return tuple(int(name in shown) for name in self.classes)

    def collate(self, targets: Sequence[tuple[int, ...]]) -> np.ndarray:
        return np.array(targets, np.float32).reshape(len(targets), len(self.classes))

    def strata(self, targets: Sequence[tuple[int, ...]]) -> np.ndarray:
        return self.collate(targets).astype(np.int64)

    def missing(self, targets: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        counts = self.strata(targets).sum(0)
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if not count)

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        return "hardly any rust" if counts["rust"] < 5 else None


def flaws_of(labels: Labels) -> tuple[str, ...]:
    named = {name for image in labels.images for name in image.label.split(";")}
    strange = named - {*FLAWS, "sound"}
    if strange:
        raise DataError(f"{strange} in the {labels.held}", where=labels.where, remedy="mend it")
    return FLAWS


@pytest.fixture(autouse=True)
def _flaws(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = DeviceDefinition("flaws", Classification, flaws_of, FlawTargets)
    monkeypatch.setitem(DEFINITIONS, "flaws", definition)


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
    return write_flaws(tmp_path, ["crack", "rust;crack", "sound", "rust", "crack"] * 20)


def test_labels_that_are_no_classes_are_the_task_s_to_understand(manifest: Path) -> None:
    with pytest.raises(DataError, match="lists of labels"):
        load(manifest, size=16)
    data = load(manifest, task="flaws", size=16)
    assert data.classes == FLAWS
    assert data.spec.name == "flaws"
    assert {sample.target for sample in data.train.samples} == {(1, 0), (1, 1), (0, 0), (0, 1)}
    assert load_manifest(manifest, task="flaws", size=16) == data


def test_every_split_has_its_share_of_each_stratum(manifest: Path) -> None:
    data = load(manifest, task="flaws", size=16)
    sizes = [len(split) for split in data.splits().values()]
    assert sizes == pytest.approx([70, 15, 15], abs=2)
    assert data.train.counts() == {"crack": 42, "rust": 28}
    assert data.val.counts() == {"crack": 9, "rust": 6}
    assert data.test.counts() == {"crack": 9, "rust": 6}


def test_folds_part_all_images_once(manifest: Path) -> None:
    tested = []
    for fold in range(4):
        data = load(manifest, task="flaws", size=16, folds=4, fold=fold)
        tested += [sample.path for sample in data.test.samples]
        assert not data.labelling.missing([sample.target for sample in data.test.samples])
    assert len(tested) == len(set(tested)) == 100


def test_batches_hold_what_the_task_makes_of_targets(manifest: Path) -> None:
    split = load(manifest, task="flaws", size=16).train
    images, targets = next(iter(split.batches(8)))
    assert images.shape == (8, 3, 16, 16)
    assert targets.shape == (8, 2)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [list(sample.target) for sample in split.samples[:8]]

    shuffled = torch.cat([targets for _, targets in split.batches(8, shuffle_seed=1)])
    assert Counter(map(tuple, shuffled.int().tolist())) == Counter(
        sample.target for sample in split.samples
    )


def test_a_part_of_a_split_has_its_strata(manifest: Path) -> None:
    split = load(manifest, task="flaws", size=16).train
    part = split.take(35)
    assert len(part) == 35
    # Half of the 28 images with rust, which is rarer, and half of those with nothing; of the others
    # half as well.
    assert part.counts()["rust"] == 14
    assert sum(sample.target == (0, 0) for sample in part.samples) == 7
    assert split.take(35) == part


def test_check_counts_strata_and_passes_the_task_s_doubt_on(tmp_path: Path) -> None:
    few = write_flaws(tmp_path, ["crack", "sound", "sound"] * 10 + ["crack;rust"] * 4)
    report = check(few, task="flaws", size=16)
    assert report.classes == FLAWS
    assert sum(counts["rust"] for counts in report.counts.values()) == 4
    assert report.problems[0] == "hardly any rust"


def test_a_flaw_that_no_training_image_shows_is_refused_by_name(tmp_path: Path) -> None:
    lonely = write_flaws(tmp_path, ["crack", "sound"] * 10)
    with pytest.raises(DataError, match="no images of rust for train"):
        load(lonely, task="flaws", size=16)


def test_the_range_of_deep_greys_is_what_every_stratum_needs(tmp_path: Path) -> None:
    deep = write_flaws(tmp_path, ["crack", "rust", "sound", "crack;rust"] * 5, greys=4095)
    data = load(deep, task="flaws", size=16)
    assert data.greys is not None
    assert data.greys.high > 4000


def test_other_labels_are_other_training_images(manifest: Path) -> None:
    data = load(manifest, task="flaws", size=16)
    first = data.train_fingerprint()
    text = manifest.read_text()
    manifest.write_text(text.replace("0.png,crack", "0.png,sound"))
    again = load(manifest, task="flaws", size=16)
    assert again.fingerprint != data.fingerprint
    assert again.train_fingerprint() != first


def test_a_run_s_config_says_which_task_its_images_are_for(manifest: Path) -> None:
    config = RunConfig.make(
        "test", data=str(manifest), model="resnet18", task="flaws", size=16, seed=3
    )
    assert images_of(config) == load(manifest, task="flaws", size=16, seed=3)


def test_a_task_that_nobody_knows_is_refused_before_any_image_is_opened(manifest: Path) -> None:
    (manifest.parent / "0.png").unlink()
    with pytest.raises(DataError, match="'palmistry' is not known") as refused:
        load(manifest, task="palmistry", size=16)
    assert "flaws" in str(refused.value)
