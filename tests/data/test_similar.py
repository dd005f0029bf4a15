"""`--group-by similar`: images that look alike lie on one side of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import nn

from prunedge.config import RunConfig
from prunedge.data import load
from prunedge.data.duplicates import groups_alike, look_at, twins_in_test
from prunedge.data.groups import similar_sources
from prunedge.errors import DataError
from prunedge.report.twins_text import twins_in_words
from prunedge.runs.data_record import data_record, without_twins
from prunedge.runs.testing import on_test
from prunedge.train import evaluate, make_engine


def surface(seed: int) -> Image.Image:
    """A drawn surface, (96, 96): coarse and fine structure of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (96, 96), Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((96, 96))
    return Image.blend(coarse, fine, 0.4)


def copies(image: Image.Image, folder: Path, name: str) -> list[Path]:
    """An image, and what the web makes of it: recompressed, brighter, resized."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}-{number}.jpg" for number in range(4)]
    image.save(files[0], quality=95)
    image.save(files[1], quality=50)
    ImageEnhance.Brightness(image).enhance(1.15).save(files[2], quality=90)
    image.resize((128, 128)).save(files[3], quality=85)
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        label = "crack" if number % 2 else "sound"
        copies(surface(number), tmp_path / "images" / label, f"{number:02d}")
    return tmp_path / "images"


def test_copies_stay_on_one_side(folder: Path, tmp_path: Path) -> None:
    def torn(**settings: object) -> int:
        data = load(folder, size=64, cache_dir=tmp_path / "cache", **settings)  # type: ignore[arg-type]
        sides: dict[str, set[str]] = {}
        for side, split in data.splits().items():
            for sample in split.samples:
                sides.setdefault(sample.path.name.split("-")[0], set()).add(side)
        return sum(len(found) > 1 for found in sides.values())

    assert torn() > 10
    assert torn(group_by="similar") == 0
    assert torn(group_by="similar", folds=4, fold=1) == 0


def test_each_group_is_named_after_its_first_image(folder: Path, tmp_path: Path) -> None:
    data = load(folder, size=64, group_by="similar", cache_dir=tmp_path / "cache")
    sources = {sample.source for split in data.splits().values() for sample in split.samples}
    assert len(sources) == 24
    assert "like crack/01-0.jpg" in sources


def test_even_surfaces_are_not_all_one_group() -> None:
    rng = np.random.default_rng(0)
    walls = [
        np.clip(rng.normal(128, 2, (64, 64, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
        for _ in range(20)
    ]
    assert groups_alike(look_at(walls.__getitem__, len(walls))) == list(range(20))


def test_what_is_alike_to_one_of_a_group_belongs_to_it() -> None:
    images = [np.asarray(surface(number)) for number in (0, 1, 0, 2, 1)]
    assert groups_alike(look_at(images.__getitem__, len(images))) == [0, 1, 0, 3, 1]


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.sampled_from("abc")), st.integers(0, 6)), min_size=1, max_size=12)
)  # fmt: skip
def test_sources_and_likeness_are_merged(images: list[tuple[str | None, int]]) -> None:
    names = [f"image-{number}" for number in range(len(images))]
    merged = similar_sources(
        names, [source for source, _ in images], [group for _, group in images]
    )
    for i, (source, group) in enumerate(images):
        for j, (other_source, other_group) in enumerate(images):
            if i == j:
                continue
            if group == other_group or (source is not None and source == other_source):
                assert merged[i] == merged[j] is not None
    # As many sources as the parts of the graph that source and likeness span.
    edges = {name: {name} for name in names}
    for i, (source, group) in enumerate(images):
        for j, (other_source, other_group) in enumerate(images):
            if group == other_group or (source is not None and source == other_source):
                joined = edges[names[i]] | edges[names[j]]
                for name in joined:
                    edges[name] = joined
    parts = {frozenset(part) for part in edges.values()}
    alone = sum(source is None for source in merged)
    assert len(parts) == len({source for source in merged if source is not None}) + alone


def test_deep_greys_are_refused_with_a_remedy(tmp_path: Path) -> None:
    for number in range(12):
        label = tmp_path / "deep" / ("crack" if number % 2 else "sound")
        label.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 4096, (32, 32)).astype(np.uint16)
        Image.fromarray(pixels).save(label / f"{number}.png")
    with pytest.raises(DataError, match="eight bits"):
        load(tmp_path / "deep", size=32, group_by="similar", cache_dir=tmp_path / "cache")


def test_twins_of_the_test_split_are_told_with_the_figure_without_them(
    folder: Path, tmp_path: Path
) -> None:
    class Dark(nn.Module):
        """Finds every second image by its brightness, and is pruned of nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean((2, 3)))

    # A surface of its own for each image, four of which have copies: two on the other side.
    lines = ["path,label,split"]
    for number in range(24):
        files = copies(surface(100 + number), tmp_path / "own", f"{number:02d}")
        label = "crack" if number % 2 else "sound"
        side = ("train", "val", "test")[number % 3] if number > 3 else "test"
        lines.append(f"own/{files[0].name},{label},{side}")
        if number < 2:
            lines.append(f"own/{files[1].name},{label},train")
        if number in (2, 3):
            lines.append(f"own/{files[1].name},{label},test")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    data = load(tmp_path / "own.csv", size=64, cache_dir=tmp_path / "cache")
    twins = twins_in_test(data)
    assert [(twin.image.name, twin.like.name, twin.split) for twin in twins] == [
        ("00-0.jpg", "00-1.jpg", "train"),
        ("01-0.jpg", "01-1.jpg", "train"),
    ]
    assert [data.test.samples[twin.place].path for twin in twins] == [twin.image for twin in twins]

    model = Dark().eval()
    engine = make_engine("32")
    tested = on_test({"baseline": model, "best": model}, data, engine)
    assert tested["twins"]["count"] == 2
    others = without_twins(data, twins)
    assert len(others) == len(data.test) - 2
    rest = evaluate(model, data.test.at(others), engine)
    assert tested["twins"]["without"]["best"]["accuracy"] == rest.accuracy
    config = RunConfig.make("prune", data="own.csv", model="resnet18")
    (line,) = twins_in_words(config, tested)
    assert line.startswith(
        f"2 of {len(data.test)} test images look like one that the model learned from"
    )
    assert f"{100 * rest.accuracy:.1f}% -> {100 * rest.accuracy:.1f}%" in line
    counts = tested["twins"]["decided"]["best"]
    assert sum(counts.values()) == len(others)
    assert f"at the operating point of {counts['found'] + counts['missed']} damaged images" in line

    known = data_record(data, twins).twins
    assert known is not None
    assert (known.count, known.images, known.none) == (2, len(others), 0)
    assert known.without == data.test.at(others).counts()
    assert [(twin.image, twin.like, twin.is_identical) for twin in known.first] == [
        ("own/00-0.jpg", "own/00-1.jpg", False),
        ("own/01-0.jpg", "own/01-1.jpg", False),
    ]

    apart = load(folder, size=64, group_by="similar", cache_dir=tmp_path / "cache")
    assert on_test({"baseline": model, "best": model}, apart, engine)["twins"] is None
    assert twins_in_words(config, on_test({"baseline": model, "best": model}, apart, engine)) == []
