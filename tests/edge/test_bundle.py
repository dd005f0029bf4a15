"""Bundles: what a device refuses, measures, and sees in images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge import Candidate, bench, open_bundle
from prunedge.edge.image.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from prunedge.edge.image.read import Greys, read_image
from prunedge.edge.image.size import square
from prunedge.errors import BundleError, DataError
from tests.edge.made_bundles import write_convolutional


def _break(bundle: Path, how: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    if how == "flip":
        data = bytearray((bundle / "model.onnx").read_bytes())
        data[100] ^= 1
        (bundle / "model.onnx").write_bytes(data)
    elif how == "missing":
        (bundle / "selftest.npz").unlink()
    elif how == "outside":
        manifest["files"]["../secret"] = manifest["files"]["plan.json"]
    elif how == "absolute":
        manifest["files"]["/etc/passwd"] = manifest["files"]["plan.json"]
    elif how == "unknown":
        manifest["surprise"] = 1
    elif how == "truncated":
        (bundle / "manifest.json").write_text("{")
        return
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("flip", "checksum"),
        ("missing", "missing"),
        ("outside", "outside"),
        ("absolute", "outside"),
        ("unknown", "surprise"),
        ("truncated", "damaged"),
    ],
)
def test_damaged_and_hostile_bundles_are_refused(
    bundle: Path, tmp_path: Path, how: str, words: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    _break(broken, how)
    with pytest.raises(BundleError, match=words):
        open_bundle(broken)


def test_bench_measures_each_bundle_and_their_ratios(bundle: Path, tmp_path: Path) -> None:
    whole = write_convolutional(tmp_path / "whole", model="whole", classes=["a", "b", "c"], seed=1)
    result = bench(
        [Candidate(open_bundle(whole)), Candidate(open_bundle(bundle))],
        patches=30,
        batch=4,
        batches=[2, 8],
        threads=1,
    ).to_json()
    assert [b["bundle"] for b in result["bundles"]] == [str(whole), str(bundle)]
    for found in result["bundles"]:
        assert found["seconds_total"] > 0
        assert (
            0
            < found["latency_ms"]["median"]
            <= found["latency_ms"]["p95"]
            <= found["latency_ms"]["p99"]
        )
        assert set(found["throughput"]) == {2, 8}
        assert min(found["throughput"].values()) > 0
        assert found["self_test"]["agreement"] == 1
        assert found["self_test"]["relative_difference"] < 1e-3
        assert found["peak_rss_mb"] > 10
        assert found["size_mb"] == pytest.approx(
            Path(found["bundle"], "model.onnx").stat().st_size / 1e6
        )
    (ratio,) = result["ratios"]
    speed = ratio["speedup"]
    assert speed["low"] <= speed["median"] <= speed["high"]
    assert (result["patches"], result["batch"], result["threads"]) == (30, 4, 1)
    json.dumps(result)


def test_bench_on_images(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    assert (
        bench([Candidate(open_bundle(bundle))], patches=4, images=tiny_data).bundles[0][
            "seconds_total"
        ]
        > 0
    )
    with pytest.raises(DataError, match="no images"):
        bench([Candidate(open_bundle(bundle))], patches=4, images=tmp_path)


def test_the_device_part_runs_without_torch(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'scipy', 'sklearn', 'safetensors', 'onnx'): sys.modules[name] = None\n"
        "import prunedge as pe\n"
        f"print(pe.bench([pe.Candidate(pe.open_bundle({str(bundle)!r}))], patches=2).patches)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "2"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "I;16", "1", "LA"])
def test_images_of_every_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    values = np.tile(np.linspace(0, 65535, 20), (10, 1)).astype(np.uint16)
    image = (
        Image.fromarray(values)
        if mode == "I;16"
        else Image.fromarray((values // 257).astype(np.uint8)).convert(mode)
    )
    image.save(tmp_path / f"p.{suffix}")
    found = read_image(tmp_path / f"p.{suffix}", square(8), Greys(0, 65535, mixed=True))
    assert found.shape == (8, 8, 3)
    assert found.dtype == np.uint8
    if mode not in ("1", "CMYK", "P"):
        assert found[0, 0, 0] < 40
        assert found[0, -1, 0] > 215


def test_exif_rotation_is_followed(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 10))
    image.paste((255, 255, 255), (0, 0, 10, 5))
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(tmp_path / "p.png", exif=exif)
    assert read_image(tmp_path / "p.png", square(10))[0].max() == 0


def test_broken_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"p\.png"):
        read_image(tmp_path / "p.png", square(8))


def test_normalise_is_the_published_formula() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    wanted = (
        pixels.transpose(0, 3, 1, 2) / 255 - np.reshape(IMAGENET_MEAN, (1, 3, 1, 1))
    ) / np.reshape(IMAGENET_STD, (1, 3, 1, 1))
    np.testing.assert_allclose(normalise(pixels), wanted, atol=1e-6)
