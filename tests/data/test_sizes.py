"""Images that are not square, and what happens to those of another shape, from the files to the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunedge.cli.app import main
from prunedge.config import RunConfig
from prunedge.data import check, cut_patches, load, load_folder, load_manifest
from prunedge.data.cache import decode_all
from prunedge.data.transforms import Changes, augment
from prunedge.edge.image.normalise import normalise
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import Size, square
from prunedge.errors import DataError, PrunedgeError
from prunedge.runs.run import open_run

WIDE = Size(16, 40)


@pytest.fixture
def wide_data(tmp_path: Path) -> Path:
    """Class folders of light and dark bricks, 48 x 24 pixels, and a manifest of them."""
    generator = np.random.default_rng(3)
    lines = ["path,label"]
    for label in ("crack", "sound"):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(90, 200, (24, 48, 3), dtype=np.uint8)
            if label == "crack":
                pixels //= 4
            Image.fromarray(pixels).save(folder / f"{number}.png")
            lines.append(f"{label}/{number}.png,{label}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    return tmp_path / "data"


@pytest.mark.parametrize("size", [WIDE, "16x40", (16, 40)])
def test_batches_have_the_size_s_height_and_width(wide_data: Path, size: object) -> None:
    data = load(wide_data, size=size, cache_dir=wide_data.parent / "cache")  # type: ignore[arg-type]
    images, _ = next(iter(data.train.batches(4, shuffle_seed=0, augment="full")))
    assert images.shape == (4, 3, 16, 40)
    assert data.example(3).shape == (3, 3, 16, 40)
    assert data.train.pixels([0]).shape == (1, 16, 40, 3)
    assert data.size == data.train.size == WIDE
    assert "at 16x40 px" in str(data)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_every_way_into_a_dataset_resizes_alike(wide_data: Path, resize: str) -> None:
    home = wide_data.parent / "cache"
    how = {"size": "20x24", "resize": resize, "cache_dir": home}
    by_folder = load_folder(wide_data, **how)  # type: ignore[arg-type]
    by_manifest = load_manifest(wide_data.parent / "data.csv", root=wide_data, **how)  # type: ignore[arg-type]
    for data in (by_folder, by_manifest, load(wide_data, **how)):  # type: ignore[arg-type]
        sample = data.val.samples[0]
        wanted = read_image(sample.path, Size(20, 24), None, resize)  # type: ignore[arg-type]
        assert (data.val.pixels([0])[0] == wanted).all()
        assert data.resize == data.val.resize == resize


def test_without_a_cache_the_pixels_are_the_same(
    wide_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.data import cache

    kept = load(wide_data, size=WIDE, resize="pad", cache_dir=wide_data.parent / "a")
    monkeypatch.setitem(cache.decode_all.__kwdefaults__, "limit", 10)
    anew = load(wide_data, size=WIDE, resize="pad", cache_dir=wide_data.parent / "b")
    assert kept.train.cache is not None
    assert anew.train.cache is None
    indices = [0, 3]
    assert (kept.train.pixels(indices) == anew.train.pixels(indices)).all()


def test_size_and_resize_decide_the_fingerprints_and_the_cache(wide_data: Path) -> None:
    home = wide_data.parent / "cache"
    found = [
        load(wide_data, size=size, resize=resize, cache_dir=home)  # type: ignore[arg-type]
        for size, resize in (
            ("16x40", "stretch"),
            ("16x40", "pad"),
            ("16x40", "crop"),
            ("40x16", "stretch"),
        )
    ]
    for of in (
        lambda data: data.fingerprint,
        lambda data: data.train_fingerprint(),
        lambda data: data.train.cache,
    ):
        assert len({of(data) for data in found}) == len(found)


def test_a_square_size_keeps_the_names_of_what_was_cached_before(tmp_path: Path) -> None:
    """The key of an array is as it was when sizes were single numbers."""
    import hashlib

    from prunedge.data.cache import VERSION, _stamp

    file = tmp_path / "a.png"
    Image.new("RGB", (10, 20), "red").save(file)
    text = f"{VERSION} 16 None 1\n{_stamp(file)}"
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    found = decode_all([file], square(16), folder=tmp_path / "cache").cache
    assert found is not None
    assert found.stem == key


def test_the_library_refuses_what_is_no_size(wide_data: Path) -> None:
    for wrong in ("16x", "7", (16, 40, 3), (16,), 5000):
        with pytest.raises(DataError):
            load(wide_data, size=wrong)  # type: ignore[arg-type]


def test_images_that_are_not_square_are_never_turned_by_a_quarter() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 6, 3), dtype=np.uint8)
    flip = torch.tensor([False] * 4 + [True] * 4)
    turns = torch.tensor([0, 1, 2, 3] * 2)
    made = augment(pixels, Changes(flip, turns, torch.ones(8), torch.ones(8)))
    assert made.shape == (8, 3, 4, 6)
    for number, planes in enumerate(made):
        image = pixels[number].transpose(2, 0, 1)
        image = image[:, :, ::-1] if flip[number] else image
        wanted = image[:, ::-1, ::-1] if turns[number] >= 2 else image
        assert (planes == wanted).all()


def test_a_config_keeps_the_size_as_it_is_written(tmp_path: Path) -> None:
    config = RunConfig.make("test", data="d", model="m", size="128x384", resize="crop")
    assert config.data.size == Size(128, 384)
    assert 'size = "128x384"' in config.to_toml()
    assert 'resize = "crop"' in config.to_toml()
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert RunConfig.from_toml(tmp_path / "config.toml") == config
    assert config.flat()["size"] == "128x384"
    assert config.image_settings()["resize"] == "crop"

    plain = RunConfig.make("test", data="d", model="m", size="64")
    assert plain.data.size == square(64)
    assert plain.flat()["size"] == 64
    assert "size = 64" in plain.to_toml()
    with pytest.raises(PrunedgeError, match="sides from 8 to 4,096"):
        RunConfig.make("test", data="d", model="m", size="7x100")


def test_a_study_takes_sizes_and_ways_to_resize() -> None:
    from prunedge.study.grid import Grid, trials

    grid = Grid({"data": "/d", "model": "m", "size": [32, "32x96"], "resize": ["pad", "crop"]})
    found = [(trial.config.data.size, trial.config.data.resize) for trial in trials(grid)]
    assert found == [
        (square(32), "pad"),
        (square(32), "crop"),
        (Size(32, 96), "pad"),
        (Size(32, 96), "crop"),
    ]


@pytest.mark.parametrize(("resize", "enlarged"), [("stretch", 24), ("pad", 0), ("crop", 24)])
def test_a_check_counts_what_is_enlarged(wide_data: Path, resize: str, enlarged: int) -> None:
    report = check(wide_data, size="16x64", resize=resize, cache_dir=wide_data.parent / "cache")  # type: ignore[arg-type]
    assert report.sizes.enlarged == enlarged
    assert report.size == Size(16, 64)
    assert report.to_json()["size"] == "16x64"


def test_patches_need_not_be_square(tmp_path: Path) -> None:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    values = np.zeros((32, 48), np.uint8)
    values[:8, :24] = 255
    Image.fromarray(values).save(tmp_path / "masks" / "a.png")
    Image.new("RGB", (48, 32), "grey").save(tmp_path / "photos" / "a.png")
    report = cut_patches(
        tmp_path / "photos", tmp_path / "masks", tmp_path / "out", size="8x24", min_damage=0.5
    )
    assert report.counts == {"damaged": 1, "intact": 7}
    (damaged,) = (tmp_path / "out" / "patches" / "damaged").iterdir()
    assert Image.open(damaged).size == (24, 8)
    assert ",0,0,8x24,1.0" in report.manifest.read_text()


def test_train_and_prune_with_images_that_are_not_square(
    wide_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = wide_data.parent
    monkeypatch.setenv("PRUNEDGE_CACHE", str(here / "cache"))
    taught = here / "taught"
    common = ["--batch-size", "8", "--precision", "32", "--json"]
    words = ["train", str(wide_data), "--model", "tests.small_models:tiny", "--weights", "none"]
    shape = ["--size", "32x96", "--resize", "pad", "--epochs", "6"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *shape, *common, "--out", str(taught)])
    assert ended.value.code in (0, None)
    config = open_run(taught).config
    assert config.data.size == Size(32, 96)
    assert config.data.resize == "pad"

    pruned = here / "pruned"
    limits = ["--max-steps", "1", "--max-drop", "100", "--step-ratio", "0.3", "--epochs", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--from", str(taught), *limits, *common, "--out", str(pruned)])
    assert ended.value.code in (0, None)
    run = open_run(pruned)
    assert run.config.data.size == Size(32, 96)
    assert run.config.data.resize == "pad"
    first, best = run.first(), run.best()
    assert best.macs < first.macs
    data = load(wide_data, **run.config.image_settings())
    outputs = run.load().eval()(next(iter(data.test.batches(2)))[0])
    assert outputs.shape == (2, 2)
    assert normalise(data.test.pixels([0])).shape == (1, 3, 32, 96)
