"""Photographs as they come: turned, deep, printed, animated, tiny, huge, cut off, hostile."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from prunedge.edge.image import photograph
from prunedge.edge.image.gps import position_of
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.png import bands, has_bands
from prunedge.edge.image.read import Greys, read_image, rgb
from prunedge.edge.image.size import square
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.session import Session
from prunedge.errors import DataError
from tests.edge.inspect.conftest import SIZE, wall


def of_mode(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An image with a gradient, in a mode."""
    grey = np.tile(np.linspace(0, 255, size[0]), (size[1], 1))
    if mode in ("I;16", "I", "F"):
        return Image.fromarray(
            (grey * 200).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    image = Image.merge(
        "RGB",
        [
            Image.fromarray(grey.astype(np.uint8)),
            Image.new("L", size, 90),
            Image.fromarray(255 - grey.astype(np.uint8)),
        ],
    )
    if mode == "transparent P":
        image = image.quantize(16)
        image.info["transparency"] = 3
        return image
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(grey.astype(np.uint8)))
        return image.convert(mode)
    return image.convert(mode)


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "1", "P", "transparent P", "RGBA", "LA", "CMYK", "I;16", "I", "F"]
)
def test_a_photograph_of_one_patch_is_read_as_in_training(
    mode: str, tmp_path: Path, session: Session
) -> None:
    file = tmp_path / ("p.tif" if mode in ("CMYK", "I", "F") else "p.png")
    of_mode(mode).save(file)
    greys = Greys(100, 50_000, mixed=True)
    pixels = read_image(file, square(SIZE), greys)
    np.testing.assert_array_equal(
        open_photo(file, 1, greys).patch((0, 0, 40, 30), square(SIZE)), pixels
    )
    found = inspect_image(file, session, Settings(patch=40, range=(100, 50_000)))
    assert found.patches == 1
    assert found.probability == pytest.approx(float(session.predict(pixels[None])[0, 0]), abs=1e-6)
    with Image.open(file) as opened:
        whole = np.asarray(rgb(opened, greys))
    np.testing.assert_array_equal(
        open_photo(file, 1, greys).patch((7, 3, 23, 19), square(SIZE)), whole[3:19, 7:23]
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_every_orientation_is_followed_crop_by_crop(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"p.{suffix}"
    wall(50, 30, ((0, 0, 9, 5), (40, 2, 48, 20))).save(file, exif=exif)
    with Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened)
    photo = open_photo(file, 1)
    assert (photo.width, photo.height) == upright.size
    for box in (
        (0, 0, *upright.size),
        (3, 5, 17, 22),
        (upright.width - 4, upright.height - 7, *upright.size),
    ):
        np.testing.assert_array_equal(np.asarray(photo.crop(box)), np.asarray(upright.crop(box)))
    shown = np.asarray(photo.resized(*upright.size), dtype=int)
    assert np.abs(shown - np.asarray(upright)).max() <= 1
    assert ("turned as its EXIF says" in photo.notes) == (orientation > 1 and suffix != "tif")


def test_a_deep_grey_has_the_range_of_the_training_and_never_one_of_its_own(tmp_path: Path) -> None:
    values = np.full((40, 80), 100, dtype=np.uint16)
    values[:, 40:] = 60000
    Image.fromarray(values).save(tmp_path / "p.png")
    photo = open_photo(tmp_path / "p.png", 1, Greys(0, 65535))
    assert photo.crop((0, 0, 10, 10)).getpixel((0, 0)) == (0, 0, 0)
    assert photo.crop((70, 0, 80, 10)).getpixel((0, 0)) == (233, 233, 233)
    assert "0 is black, 65535 white" in photo.notes[0]
    assert len(photo.notes) == 1
    assert (
        "50% of its greys lie outside that range"
        in open_photo(tmp_path / "p.png", 1, Greys(0, 4095)).notes[1]
    )
    with pytest.raises(DataError, match=r"more than eight bits.*p\.png.*range="):
        open_photo(tmp_path / "p.png", 1)
    floats = np.full((30, 30), np.nan, dtype=np.float32)
    floats[:, 15:] = 400
    Image.fromarray(floats).save(tmp_path / "p.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"450 of its 900 values are no numbers.*p\.tif"):
            open_photo(tmp_path / "p.tif", 1, Greys(0, 1000))


@pytest.mark.parametrize("side", [30, 600])
def test_eight_bits_are_refused_by_a_model_that_learned_from_deeper_ones(
    side: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "prunedge.edge.image.photograph.SPLIT_HALVED", 1e4
    )  # the larger one is kept in halves
    wall(side, side).save(tmp_path / "p.jpg")
    with pytest.raises(
        DataError, match=r"eight bits; the model learned from greys of more, 7300 \(black\)"
    ):
        open_photo(tmp_path / "p.jpg", 1, Greys(7300, 8200))
    open_photo(tmp_path / "p.jpg", 1, Greys(7300, 8200, mixed=True))


def test_large_jpegs_are_kept_apart_and_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunedge.edge.image.photograph.SPLIT_HALVED", 1e4)
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    ).resize((305, 201))
    exif = Image.Exif()
    exif[0x0112] = 6
    for more, most in (({}, 4), ({"progressive": True}, 4), ({"exif": exif}, 4)):
        noise.save(tmp_path / "p.jpg", quality=92, **more)
        with Image.open(tmp_path / "p.jpg") as opened:
            whole = ImageOps.exif_transpose(opened).convert("RGB")
        photo = open_photo(tmp_path / "p.jpg", 1)
        for box in (
            (0, 0, *whole.size),
            (1, 3, 100, 78),
            (whole.width - 55, whole.height - 77, *whole.size),
        ):
            difference = np.abs(
                np.asarray(photo.crop(box), dtype=int) - np.asarray(whole.crop(box))
            )
            assert difference.max() <= most
            assert difference.mean() < 1
    monkeypatch.setattr("prunedge.edge.image.photograph.SPLIT_OTHERS", 1e4)
    noise.save(tmp_path / "p.jpg", quality=92, subsampling=0)
    assert "half size" in open_photo(tmp_path / "p.jpg", 1).notes[0]
    noise.save(tmp_path / "p.jpg", quality=92, keep_rgb=True)
    np.testing.assert_array_equal(
        open_photo(tmp_path / "p.jpg", 1).patch((0, 0, 305, 201), square(SIZE)),
        read_image(tmp_path / "p.jpg", square(SIZE)),
    )
    noise.save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=[wall(20, 20)])
    assert open_photo(tmp_path / "p.jpg", 1).crop((0, 0, 305, 201)).size == (305, 201)
    noise.convert("CMYK").save(tmp_path / "p.jpg")
    assert "CMYK" in open_photo(tmp_path / "p.jpg", 1).notes[0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_large_pngs_are_read_in_bands_and_look_the_same(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow writes rows with every kind of filter; bands of 8 rows cut between them.
    file, image = tmp_path / "p.png", of_mode(mode, (305, 201))
    image.paste(wall(100, 90).convert(mode), (150, 60))
    image.save(file, exif=gps(turned=6))
    assert has_bands(file)
    found = Image.new(mode, image.size)
    for top, band in bands(file, 8):
        found.paste(band, (0, top))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))
    monkeypatch.setattr("prunedge.edge.image.photograph.SPLIT_OTHERS", 1e4)
    photo = open_photo(file, 1)
    assert "half size" in photo.notes[0]
    assert photo.position is not None
    upright = rgb(image).transpose(Image.Transpose.ROTATE_270)
    difference = np.abs(np.asarray(photo.crop((0, 0, 201, 305)), dtype=int) - np.asarray(upright))
    assert difference.mean() < 2
    data = file.read_bytes()
    for broken in (
        data[:-2000],
        data[:-300] + b"x" + data[-299:],
        data[:60] + bytes([data[60] ^ 1]) + data[61:],
    ):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"damaged|ends early|checksum|broken"):
            open_photo(file, 1)


def test_other_pngs_are_read_whole(tmp_path: Path) -> None:
    for mode in ("L", "P", "1", "I;16", "LA"):
        of_mode(mode).save(tmp_path / "p.png")
        assert not has_bands(tmp_path / "p.png")


def bomb(file: Path, width: int, height: int) -> None:
    """A PNG of a few bytes that says it is huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


def hostile(folder: Path) -> dict[str, str]:
    """Files that can't be inspected, and words of the line that says why."""
    bomb(folder / "bomb.png", 60_000, 60_000)
    wall(64, 64).save(folder / "whole.jpg")
    for name, keep in (("truncated.jpg", 0.5), ("headless.jpg", 0.02)):
        data = (folder / "whole.jpg").read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])
    (folder / "whole.jpg").unlink()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    return {
        "bomb.png": "more than 200 megapixels",
        "truncated.jpg": "truncated",
        "headless.jpg": "not an image",
        "empty.png": "not an image",
        "text.jpg": "not an image",
        "script.png": "not an image",
        "link.png": "not a file",
    }


def test_hostile_files_give_one_clear_error_and_no_warning(tmp_path: Path) -> None:
    for name, words in hostile(tmp_path).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=words) as raised:
                open_photo(tmp_path / name, 200)
        assert str(raised.value).count("\n") == 0
        assert name in str(raised.value)


def test_the_limit_of_pixels_is_pillows_again_afterwards(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    Image.new("1", (12_000, 9_000)).save(tmp_path / "p.png")
    with pytest.raises(DataError, match="12000 x 9000 pixels are more than 100"):
        open_photo(tmp_path / "p.png", 100)
    assert open_photo(tmp_path / "p.png", 120).width == 12_000
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_first_frame_of_an_animation(tmp_path: Path, session: Session) -> None:
    still, cracked = wall(40, 40), wall(40, 40, ((5, 5, 30, 30),))
    for name in ("p.gif", "p.png", "p.tif", "p.webp"):
        still.save(tmp_path / name, save_all=True, append_images=[cracked, cracked])
        found = inspect_image(tmp_path / name, session, Settings(patch=40))
        assert found.probability < 0.1, name
        assert any("only the first" in note for note in found.notes), name


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (5, 3)])
def test_tiny_and_thin_photographs(size: tuple[int, int], session: Session) -> None:
    found = inspect_image(Image.new("RGB", size), session, Settings(patch=32))
    assert found.regions[0].area == size[0] * size[1] == found.width * found.height
    assert found.damaged_share == 1
    assert "smaller than a patch" in found.notes[-1]


def test_damage_is_found_where_it_is(session: Session, tmp_path: Path) -> None:
    boxes = ((300, 40, 308, 200), (20, 300, 60, 310))
    wall(500, 330, boxes).save(tmp_path / "p.png")
    steps = []
    found = inspect_image(
        tmp_path / "p.png",
        session,
        Settings(patch=40, mm_per_pixel=0.5, batch=7),
        progress=lambda *done: steps.append(done),
    )
    assert len(found.regions) == 2
    assert found.cell == 5
    assert found.name == "p.png"
    for region, (left, top, right, bottom) in zip(found.regions, boxes, strict=True):
        # A cell is damaged when half of the patches over it are, so a region reaches at most a patch beyond the damage.
        assert left - 40 <= region.left <= left < right <= region.right <= right + 40
        assert top - 40 <= region.top <= top < bottom <= region.bottom <= bottom + 40
        assert region.probability > 0.99
        assert region.probability >= region.mean_probability > 0.5
        assert region.label == "crack"
    told = found.to_json()
    assert told["regions"][0]["area_mm2"] == found.regions[0].area / 4
    assert told["map"] == {
        "cell": 5,
        "rows": 66,
        "columns": 100,
    }
    assert steps[-1] == (found.patches, found.patches)
    assert len(steps) == -(-found.patches // 7)
    by_default = inspect_image(tmp_path / "p.png", session, Settings())
    assert by_default.patch == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"overlap": 1.0}, "overlap"),
        ({"patch": 0}, "patch"),
        ({"mm_per_pixel": float("nan")}, "mm"),
    ],
)
def test_settings_that_can_not_be(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Settings(**wrong)  # type: ignore[arg-type]


def gps(turned: int = 1, **entries: object) -> Image.Exif:
    """EXIF with an orientation and a position in Rotterdam, some of it replaced."""
    known = {
        "ref": "N",
        "lat": (51.0, 55.0, 12.5),
        "east": "E",
        "lon": (4.0, 28.0, 30.0),
        "below": b"\x00",
        "alt": TiffImagePlugin.IFDRational(125, 10),
        "status": "A",
    }
    tags = {"ref": 1, "lat": 2, "east": 3, "lon": 4, "below": 5, "alt": 6, "status": 9}
    exif = Image.Exif()
    exif[0x0112] = turned
    exif.get_ifd(0x8825).update(
        {tags[name]: value for name, value in {**known, **entries}.items() if value is not None}
    )
    return exif


def test_positions_from_exif(tmp_path: Path) -> None:
    place = (51 + 55 / 60 + 12.5 / 3600, 4 + 28 / 60 + 30 / 3600)
    wall(20, 20).save(tmp_path / "p.jpg", exif=gps())
    assert open_photo(tmp_path / "p.jpg", 1).position == pytest.approx((*place, 12.5))
    south = position_of(gps(ref="S\0", east="W", below=b"\x01"))
    assert south == pytest.approx((-place[0], -place[1], -12.5))
    assert position_of(gps(alt=None)) == pytest.approx((*place, None))
    nothing = TiffImagePlugin.IFDRational(0, 0)
    for broken in (
        {"lat": (91.0, 0.0, 0.0)},
        {"ref": None},
        {"lon": (nothing, nothing, nothing)},
        {"lat": "x"},
        {"status": "V"},
    ):
        assert position_of(gps(**broken)) is None
    assert position_of(gps(lat=(0.0, 0.0, 0.0), lon=(0.0, 0.0, 0.0))) is None
    assert position_of(Image.Exif()) is None
    (tmp_path / "q.jpg").write_bytes(
        (tmp_path / "p.jpg").read_bytes().replace(b"Exif\0\0MM", b"Exif\0\0??")
    )
    assert open_photo(tmp_path / "q.jpg", 1).position is None


MEMORY = """
import sys
from prunedge.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
    print(ended.code, int(peak.split()[1]) * 1024 / 1e6)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)
@pytest.mark.parametrize(
    ("name", "side", "most"),
    [
        ("p.jpg", 5_000, 200),
        ("p.jpg", 10_000, 500),
        pytest.param("p.png", 10_000, 500, marks=pytest.mark.slow),
    ],
)
def test_memory_of_large_photographs(
    name: str, side: int, most: int, bundle: Path, tmp_path: Path
) -> None:
    # Not the resource module: its peak is the starting process's when that was larger.
    photo = tmp_path / name
    wall(side // 8, side // 8, ((500, 500, 560, 504),)).resize((side, side)).save(
        photo, quality=85, compress_level=1
    )
    command = [
        sys.executable,
        "-c",
        MEMORY,
        "inspect",
        bundle,
        photo,
        "--patch",
        "800",
        "--overlap",
        "0",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    code, peak = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    print(f"{side * side / 1e6:.0f} megapixels: {float(peak):.0f} MB")
    assert float(peak) < most


@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_progressive_jpeg_in_a_process_of_its_own_gives_the_same_pixels(
    subsampling: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.jpg"
    wall(301, 203, ((20, 20, 90, 61),)).save(file, progressive=True, subsampling=subsampling)
    monkeypatch.setattr(photograph, "SPLIT_HALVED", 0)
    monkeypatch.setattr(photograph, "SPLIT_OTHERS", 0)
    box = (7, 11, 255, 203)
    wanted = np.asarray(open_photo(file, 1).crop(box))
    monkeypatch.setattr(photograph, "APART", 0)
    photo = open_photo(file, 1)
    np.testing.assert_array_equal(np.asarray(photo.crop(box)), wanted)
    assert (photo.width, photo.height) == (301, 203)
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(DataError, match="can't be decoded"):
        open_photo(file, 1)
