"""What the values of masks mean, and what is refused since it can't be told."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prunedge as pe
from prunedge.data.dataset import Dataset
from prunedge.data.judged import Sight, read_judged
from prunedge.data.mask_array import masks_of
from prunedge.data.mask_look import look_at_mask
from prunedge.data.mask_reading import MaskReading
from prunedge.data.mask_values import mask_values
from prunedge.data.masks import Pair, damage
from prunedge.data.records import Masked
from prunedge.edge.image.size import Size
from prunedge.edge.tasks.mask_targets import IGNORE, MaskTargets
from prunedge.errors import DataError
from tests.masked_images import numbers_with, write_kinds, write_lines, write_pair

SIDE = 32


def loaded(root: Path, **settings: object) -> Dataset:
    return pe.load_folder(root / "photos", masks=root / "masks", **{"size": SIDE, **settings})


def mask_of(data: Dataset, name: str) -> np.ndarray:
    for split in data.splits().values():
        for place, sample in enumerate(split.samples):
            if sample.path.stem == name:
                return split.targets([place])[0]
    raise LookupError(name)


def rewrite(root: Path, change: object, *, suffix: str = ".png", only: int | None = None) -> Path:
    """Give every mask, or one, other pixels: what `change` makes of its own."""
    for index, file in enumerate(sorted((root / "masks").glob("*.png"))):
        if only in (None, index):
            image = Image.fromarray(change(np.asarray(Image.open(file))))  # type: ignore[operator]
            file.unlink()
            image.save(file.with_suffix(suffix))
    return root


@pytest.mark.parametrize("corner", [(300, 65535), (32767, 32768)])
def test_deep_greys_are_damage_above_half_of_their_range(
    tmp_path: Path, corner: tuple[int, int]
) -> None:
    """A grey of 300 is nearly black where white is 65,535, and no number 1."""
    write_lines(tmp_path, 12)

    def deep(values: np.ndarray) -> np.ndarray:
        greys = np.where(values > 0, 65535, 300).astype(np.uint16)
        greys[0, :2] = corner
        return greys if values.any() else values.astype(np.uint16)

    data = loaded(rewrite(tmp_path, deep))
    assert data.classes == ("background", "damage")
    wanted = numbers_with(1)
    wanted[0, :2] = (0, 1)
    np.testing.assert_array_equal(mask_of(data, "001"), wanted)
    masks = tmp_path / "masks"
    photo = tmp_path / "photos" / "001.png"
    np.testing.assert_array_equal(damage(masks / "001.png", photo, None), wanted)


@pytest.mark.parametrize(
    ("dtype", "most"), [(np.uint16, 4095), (np.uint16, 300), (np.int32, 70000), (np.float32, 300)]
)
def test_deep_values_that_are_neither_numbers_nor_white_are_refused(
    tmp_path: Path, dtype: type, most: int
) -> None:
    write_lines(tmp_path, 12)
    rewrite(tmp_path, lambda values: (values > 0).astype(dtype) * dtype(most), suffix=".tif")
    with pytest.raises(DataError, match=rf"001 \(its mask has values up to {most:,}.*255"):
        loaded(tmp_path)


def test_what_is_no_whole_number_and_what_is_below_0_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "a", 12)
    rewrite(tmp_path / "a", lambda values: np.float32(values / 510), suffix=".tif")
    with pytest.raises(DataError, match=r"001 \(its mask has fractions"):
        loaded(tmp_path / "a")
    write_lines(tmp_path / "b", 12)
    rewrite(tmp_path / "b", lambda values: -(values > 0).astype(np.int32), suffix=".tif")
    with pytest.raises(DataError, match=r"001 \(its mask has values below 0"):
        loaded(tmp_path / "b")


def test_numbers_of_classes_may_have_sixteen_bits(tmp_path: Path) -> None:
    write_kinds(tmp_path, 12)
    data = loaded(rewrite(tmp_path, lambda values: values.astype(np.uint16)))
    np.testing.assert_array_equal(mask_of(data, "001"), numbers_with(1, line=True, blot=True))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_that_is_partly_transparent_is_refused(tmp_path: Path, mode: str) -> None:
    """Damage may be white, or what is opaque: nobody knows."""

    def transparent(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(np.full_like(values, 255)).convert(mode)
        image.putalpha(Image.fromarray(values))
        return np.asarray(image)

    def opaque(values: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(values).convert(mode))

    rewrite(write_lines(tmp_path / "a", 12), transparent)
    with pytest.raises(DataError, match=r"001 \(its mask is partly transparent"):
        loaded(tmp_path / "a")
    with pytest.raises(ValueError, match="partly transparent"):
        damage(tmp_path / "a" / "masks" / "001.png", tmp_path / "a" / "photos" / "001.png", None)
    data = loaded(rewrite(write_lines(tmp_path / "b", 12), opaque))
    np.testing.assert_array_equal(mask_of(data, "001"), numbers_with(1))


@pytest.mark.parametrize(
    ("suffix", "how"), [(".png", "is black and white"), (".jpg", "has no exact values")]
)
def test_white_beside_numbers_is_refused_with_both_files(
    tmp_path: Path, suffix: str, how: str
) -> None:
    write_lines(tmp_path, 12)
    rewrite(tmp_path, lambda values: values // 255)
    rewrite(tmp_path, lambda values: values * 255, suffix=suffix, only=3)
    with pytest.raises(DataError, match=rf"001.png holds numbers.*003{suffix} {how}"):
        loaded(tmp_path)
    (tmp_path / "masks" / "classes.txt").write_text("sound\ncrack\n")
    with pytest.raises(DataError, match=rf"001.png holds numbers.*003{suffix} {how}"):
        loaded(tmp_path)


def test_pixels_of_255_are_ignored_where_names_say_that_masks_hold_numbers(tmp_path: Path) -> None:
    write_kinds(tmp_path, 12)
    ignored = np.zeros((SIDE, SIDE), np.uint8)
    ignored[:4] = 255
    Image.fromarray(ignored).save(tmp_path / "masks" / "003.png")
    mask = mask_of(loaded(tmp_path), "003")
    np.testing.assert_array_equal(mask, np.where(ignored, IGNORE, 0))


def test_a_tile_that_shows_a_faint_edge_alone_is_no_mask_of_numbers(tmp_path: Path) -> None:
    write_lines(tmp_path, 12)

    def with_edge(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[:, 7] = 9
        values[:, 8] = 130
        return values

    data = loaded(rewrite(tmp_path, with_edge), tile=8, size=8)
    assert data.classes == ("background", "damage")


def test_high_numbers_of_classes_need_names(tmp_path: Path) -> None:
    """Such as those of ADE20K: 5 and 100 are no greys."""
    for index in range(12):
        numbers = numbers_with(index, line=True, blot=True)
        write_pair(tmp_path, f"{index}", numbers, values=(0, 5, 100), seed=index)
    with pytest.raises(DataError, match=r"0.png has values such as 100.*name the classes in class"):
        loaded(tmp_path)
    rewrite(tmp_path, lambda values: np.where(values == 5, 255, values).astype(np.uint8))
    with pytest.raises(DataError, match=r"0.png has values such as 100"):
        loaded(tmp_path)
    names = [f"kind {number}" for number in range(150)]
    (tmp_path / "masks" / "classes.txt").write_text("\n".join(names))
    rewrite(tmp_path, lambda values: np.where(values == 255, 5, values).astype(np.uint8))
    sight = Sight(MaskTargets(tuple(names)), Size(SIDE, SIDE))
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks")
    assert set(np.unique(judged.split.targets())) == {0, 5, 100}


def test_grey_edges_are_parted_in_their_middle(tmp_path: Path) -> None:
    """Those of a mask that was drawn large and made smaller."""
    write_lines(tmp_path, 12)

    def smooth(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values).resize((SIDE * 4, SIDE * 4), Image.Resampling.NEAREST)
        image = image.rotate(1.5, Image.Resampling.BILINEAR)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))

    rewrite(tmp_path, smooth)
    grey = np.asarray(Image.open(tmp_path / "masks" / "001.png"))
    assert len(np.unique(grey)) > 5
    np.testing.assert_array_equal(mask_of(loaded(tmp_path), "001"), grey > 127)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sound\n\ncrack\nspalling\n", "line 2 is empty"),
        ("\nsound\ncrack\nspalling\n", "line 1 is empty"),
        ("background\n", "'background' alone"),
        ("sound\nsound\n", "one twice"),
    ],
)
def test_names_that_would_be_other_numbers_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    write_kinds(tmp_path, 12)
    (tmp_path / "masks" / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        loaded(tmp_path)


def test_empty_lines_after_the_names_are_none(tmp_path: Path) -> None:
    write_kinds(tmp_path, 12)
    (tmp_path / "masks" / "classes.txt").write_text("sound\ncrack\nspalling\n\n  \n")
    assert loaded(tmp_path).classes == ("sound", "crack", "spalling")


def test_classes_that_nobody_named_are_matched_by_their_numbers(tmp_path: Path) -> None:
    for index in range(12):
        numbers = numbers_with(index, line=True, blot=True)
        write_pair(tmp_path, f"{index}", numbers, values=(0, 3, 5), seed=index)
    sight = Sight(MaskTargets(("background", "class 2", "class 3")), Size(SIDE, SIDE))
    rewrite(tmp_path, lambda values: np.where(values == 5, 0, values).astype(np.uint8))
    judged = read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks", side="all")
    place = [sample.path.stem for sample in judged.split.samples].index("1")
    was = np.asarray(Image.open(tmp_path / "masks" / "1.png"))
    np.testing.assert_array_equal(judged.split.targets([place])[0] == 2, was == 3)

    # A model of 2 and 3 knows no 1, and one of named classes goes by their order.
    rewrite(tmp_path, lambda values: values // 3)
    with pytest.raises(DataError, match=r"nothing can be compared.*class 1"):
        read_judged(tmp_path / "photos", sight, masks=tmp_path / "masks")
    named = Sight(MaskTargets(("sound", "crack", "rust")), Size(SIDE, SIDE))
    judged = read_judged(tmp_path / "photos", named, masks=tmp_path / "masks")
    np.testing.assert_array_equal(judged.split.targets([place])[0], was == 3)
    two = Sight(MaskTargets(("background", "class 1", "class 2")), Size(SIDE, SIDE))
    judged = read_judged(tmp_path / "photos", two, masks=tmp_path / "masks")
    np.testing.assert_array_equal(judged.split.targets([place])[0], was == 3)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_large_mask_is_kept_in_a_byte_a_pixel(tmp_path: Path, mode: str) -> None:
    side = 3000
    photo = tmp_path / "photo.png"
    mask = tmp_path / "mask.png"
    Image.new("L", (side, side)).save(photo)
    Image.new(mode, (side, side), 1).save(mask)
    pair = Pair("photo", photo, mask)
    masked = Masked((pair,), MaskReading({0: "sound", 1: "crack"}, ("sound", "crack")))
    assert mask_values(mask, photo).values.dtype == np.uint8
    tracemalloc.start()
    assert look_at_mask(pair).values == (1,)
    masks = masks_of(masked, ("sound", "crack"), Size(8, 8), "stretch", folder=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert masks.shown == ((1,),)
    assert peak < 4 * side**2


def test_photographs_and_masks_may_be_larger_than_pillow_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path, 12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE * SIDE // 3)
    data = loaded(tmp_path, tile=16, size=16)
    assert sum(len(split) for split in data.splits().values()) == 12 * 4
    assert SIDE * SIDE // 3 == Image.MAX_IMAGE_PIXELS
    assert damage(tmp_path / "masks" / "001.png", tmp_path / "photos" / "001.png", None).any()


def test_there_is_a_limit_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path, 12)
    monkeypatch.setattr("prunedge.data.mask_values.MOST_MEGAPIXELS", SIDE * SIDE / 2e6)
    with pytest.raises(DataError, match=r"32 x 32 pixels are more than 0\.000512 megapixels"):
        loaded(tmp_path, tile=16, size=16)


def test_it_is_said_how_masks_were_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loaded(write_lines(tmp_path / "lines", 20))
    assert "masks: black and white; 16 of 20 hold damage" in caplog.text
    write_kinds(tmp_path / "kinds", 12)
    ignored = np.full((SIDE, SIDE), 255, np.uint8)
    Image.fromarray(ignored).save(tmp_path / "kinds" / "masks" / "000.png")
    loaded(tmp_path / "kinds")
    said = (
        "masks: numbers of 3 classes (sound, crack, spalling); 10 of 12 hold more than sound; "
        "255 ignored in 1"
    )
    assert said in caplog.text
