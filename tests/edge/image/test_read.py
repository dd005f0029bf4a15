"""Files of every depth become the numbers that they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.read import (
    COLOURS,
    TURN,
    DeepGreys,
    Greys,
    depth_of,
    eight_bits,
    parse_range,
    read_image,
    rgb,
    settled,
    upright,
    upright_size,
)
from prunedge.edge.image.size import square
from prunedge.errors import DataError
from tests.deep_images import colour_png, save, tiff

SIDE = 12
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)  # 0 to 143


def wanted(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round((values - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "tif", "big-endian", "int32", "float"])
def test_every_level_of_twelve_bits_in_sixteen_is_kept(kind: str, tmp_path: Path) -> None:
    values = RAMP + 1000
    file = save(tmp_path / f"p.{'png' if kind == 'png' else 'tif'}", values, kind)
    found = read_image(file, square(SIDE), Greys(1000, 1143))
    np.testing.assert_array_equal(found[..., 0], wanted(values, 1000, 1143))
    assert len(np.unique(found)) == 144


@pytest.mark.parametrize(
    ("dtype", "sample_format", "endian"),
    [
        ("<i2", 2, "<"),
        (">i2", 2, ">"),
        ("<u2", 1, "<"),
        (">u2", 1, ">"),
        ("<u4", 1, "<"),
        (">f4", 3, ">"),
        ("<i4", 2, "<"),
        ("i1", 2, "<"),
    ],
)
def test_signed_and_unsigned_numbers_of_both_byte_orders(
    dtype: str, sample_format: int, endian: str, tmp_path: Path
) -> None:
    low = -70 if sample_format != 1 else 5
    values = (RAMP + low).clip(-128, 100)
    file = tiff(tmp_path / "p.tif", values.astype(dtype), sample_format, endian)
    np.testing.assert_array_equal(
        read_image(file, square(SIDE), Greys(low, low + 160))[..., 1],
        wanted(values, low, low + 160),
    )


def test_a_pgm_of_sixteen_bits_is_deep(tmp_path: Path) -> None:
    (tmp_path / "p.pgm").write_bytes(b"P5\n12 12\n65535\n" + RAMP.astype(">u2").tobytes())
    with Image.open(tmp_path / "p.pgm") as opened:
        assert depth_of(opened) == "16 bits"
    np.testing.assert_array_equal(
        read_image(tmp_path / "p.pgm", square(SIDE), Greys(0, 143))[..., 0], wanted(RAMP, 0, 143)
    )


def test_counts_that_no_mode_of_pillow_s_holds_are_refused(tmp_path: Path) -> None:
    file = tiff(tmp_path / "p.tif", (RAMP + 3_000_000_000).astype("<u4"), 1)
    with pytest.raises(DataError, match=r"above 2,147,483,647.*p\.tif"):
        read_image(file, square(SIDE), Greys(0, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_one_line(value: float, tmp_path: Path) -> None:
    values = RAMP.astype(np.float64)
    values[3, 4] = value
    with pytest.raises(DataError, match=r"1 of its 144 values are no numbers .*p\.tif"):
        read_image(save(tmp_path / "p.tif", values, "float"), square(SIDE), Greys(0, 1))


def test_without_a_range_deep_greys_are_refused_and_with_one_eight_bits_are(tmp_path: Path) -> None:
    deep, shallow = save(tmp_path / "p.png", RAMP, "png"), tmp_path / "q.png"
    Image.fromarray(RAMP.astype(np.uint8)).save(shallow)
    with pytest.raises(DeepGreys, match=r"p\.png.*range='LOW:HIGH'"):
        read_image(deep, square(SIDE))
    with pytest.raises(
        DataError, match=r"eight bits; the model learned from greys of more.*q\.png"
    ):
        read_image(shallow, square(SIDE), Greys(0, 4095))
    plain = read_image(shallow, square(SIDE))
    np.testing.assert_array_equal(plain[..., 0], RAMP)
    np.testing.assert_array_equal(
        read_image(shallow, square(SIDE), Greys(0, 4095, mixed=True)), plain
    )


def test_colours_of_sixteen_bits_are_known_as_such(tmp_path: Path) -> None:
    file = colour_png(tmp_path / "p.png", np.stack([RAMP * 100] * 3, axis=2))
    with Image.open(file) as opened:
        assert depth_of(opened) == COLOURS


def test_what_lies_outside_the_range_is_clipped() -> None:
    assert eight_bits(np.array([-1e9, 10, 15, 20, 1e9]), Greys(10, 20)).tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [("0:4095", (0, 4095)), ("-20:120.5", (-20, 120.5)), ("1e3:2e3", (1000, 2000))],
)
def test_ranges_that_are_some(text: str, found: tuple[float, float]) -> None:
    assert parse_range(text) == found == parse_range(str(Greys(*found)))


@pytest.mark.parametrize(
    "text", ["", "5", "5:", ":5", "a:b", "9:5", "5:5", "nan:1", "0:inf", "0:1:2"]
)
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(DataError, match="range="):
        parse_range(text)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_a_turned_tiff_of_every_mode_is_upright(
    mode: str, orientation: int, tmp_path: Path
) -> None:
    values = np.arange(12 * 20).reshape(12, 20)
    if mode in ("I;16", "I", "F"):
        stored = Image.fromarray(
            values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    else:
        stored = Image.fromarray(values.astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.tif", exif=exif)
    greys = Greys(0, 255, mixed=True)
    wanted = rgb(stored if orientation == 1 else stored.transpose(TURN[orientation]), greys)
    with Image.open(tmp_path / "p.tif") as opened:
        assert upright_size(opened) == wanted.size
        np.testing.assert_array_equal(
            np.asarray(rgb(upright(settled(opened)), greys)), np.asarray(wanted)
        )


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "sample_format", "said"),
    [
        ("f2", 3, "floats of 16 bits"),
        ("f8", 3, "floats of 64 bits"),
        ("u8", 1, "whole numbers of 64 bits"),
        ("c8", 6, "complex numbers of 64 bits"),
    ],
)
def test_numbers_of_a_tiff_that_nothing_reads_are_named(
    dtype: str, sample_format: int, said: str, endian: str, tmp_path: Path
) -> None:
    file = tiff(
        tmp_path / "x.tif",
        np.linspace(0, 1, 64).reshape(8, 8).astype(endian + dtype),
        sample_format,
        endian,
    )
    for read in (
        lambda: read_image(file, square(8), Greys(0, 1)),
        lambda: open_photo(file, 1, Greys(0, 1)),
    ):
        with pytest.raises(
            DataError, match=f"{said}, which can't be read .*: save it with floats of 32 bits"
        ):
            read()
    file.write_bytes(file.read_bytes()[:12])  # cut off before it tells
    with pytest.raises(DataError, match="can't be decoded: not an image of a known format"):
        read_image(file, square(8), Greys(0, 1))
