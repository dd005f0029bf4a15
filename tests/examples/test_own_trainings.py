"""The scripts that prune with the libraries and the losses that people have, on tiny images."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CONFIG = tempfile.gettempdir()  # where ultralytics writes its settings


# ultralytics changes functions of torch and Pillow when it is imported: in a process of its own.
ANSWERS = """
import sys, torch
from ultralytics import YOLO
images = torch.rand(1, 3, 64, 64)
answers = YOLO(sys.argv[1]).model.eval()(images)[0]
torch.save((images, answers.detach()), sys.argv[2])
"""


def test_boxes_are_written_in_shares_of_the_image(tmp_path: Path) -> None:
    write_squares(tmp_path, 8)
    run("boxes_for_yolo.py", tmp_path / "annotations.json", tmp_path / "yolo")

    label = tmp_path / "yolo" / "labels" / "train" / "0.txt"
    number, *shares = label.read_text().split()
    assert number == "0"  # by its place in the list, not by its id
    assert [float(share) for share in shares] == [20 / 64, 12 / 32, 16 / 64, 8 / 32]
    described = json.loads((tmp_path / "yolo" / "data.yaml").read_text())
    assert described["names"] == ["bright", "dark"]
    for split, count in (("train", 6), ("val", 2)):
        assert len(list((tmp_path / "yolo" / "images" / split).iterdir())) == count


@pytest.mark.slow
def test_ultralytics_trains_judges_exports_and_loads_a_pruned_model(tmp_path: Path) -> None:
    needs("ultralytics")
    write_squares(tmp_path, 16)
    run("boxes_for_yolo.py", tmp_path / "annotations.json", tmp_path / "data")
    options = ["--size", "64", "--epochs", "1", "--step-epochs", "1", "--max-steps", "1"]
    out = tmp_path / "yolo"

    printed = run("yolo.py", tmp_path / "data" / "data.yaml", "--out", out, *options)

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert (
        len(re.findall(r"pruned.onnx: metrics/mAP50\(B\) [\d.]+, [\d.]+ ms an image", printed)) == 2
    )
    assert (out / "pruned.pt").stat().st_size * 2 < (out / "unpruned.pt").stat().st_size
    checkpoint = [sys.executable, "-c", ANSWERS, str(out / "pruned.pt"), str(out / "answers.pt")]
    subprocess.run(checkpoint, env=environment(), check=True, timeout=300)
    images, answers = torch.load(out / "answers.pt")
    session = onnxruntime.InferenceSession(out / "pruned.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.allclose(found, answers.numpy(), rtol=1e-3, atol=1e-2)


def test_an_autoencoder_is_pruned_by_its_error(tmp_path: Path) -> None:
    write_patches(tmp_path / "patches", 16)
    out = tmp_path / "pruned.pt"
    options = ["--size", "32", "--epochs", "2", "--step-epochs", "1", "--max-increase", "1000%"]

    printed = run(
        "autoencoder.py", tmp_path / "patches", *options, "--max-steps", "1", "--out", out
    )

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert "error" in printed
    assert out.is_file()


@pytest.mark.slow
def test_a_model_of_two_images_is_pruned(tmp_path: Path) -> None:
    write_patches(tmp_path / "patches", 32)
    out = tmp_path / "pruned.pt"
    options = ["--size", "32", "--epochs", "2", "--max-drop", "1", "--max-steps", "1"]

    printed = run("siamese.py", tmp_path / "patches", *options, "--out", out)

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert out.stat().st_size * 2 < 4 * 11_200_000  # bytes of a ResNet18's weights


@pytest.mark.slow
def test_an_extractor_is_pruned_without_labels(tmp_path: Path) -> None:
    write_patches(tmp_path / "sound", 48)
    write_patches(tmp_path / "damaged", 24, damaged=True)
    out = tmp_path / "pruned.pt"
    options = ["--weights", "none", "--size", "32", "--epochs", "1", "--max-drop", "1"]
    folders = [tmp_path / "sound", tmp_path / "damaged"]

    printed = run("anomaly.py", *folders, *options, "--max-steps", "1", "--out", out)

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert len(re.findall(r"AUROC of the other half, (un)?pruned: [01]\.\d+", printed)) == 2
    assert out.is_file()


@pytest.mark.slow
def test_lightning_trains_and_judges_a_pruned_module(tmp_path: Path) -> None:
    needs("lightning")
    for split in ("train", "val"):
        write_patches(tmp_path / "cells" / split / "sound", 16)
        write_patches(tmp_path / "cells" / split / "damaged", 16, damaged=True)
    out = tmp_path / "pruned.pt"
    options = ["--model", "test_resnet", "--size", "32", "--epochs", "2", "--max-drop", "1"]

    printed = run(
        "lightning_module.py", tmp_path / "cells", *options, "--max-steps", "1", "--out", out
    )

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert "accuracy" in printed
    assert out.is_file()


@pytest.mark.slow
def test_a_detector_of_torchvision_is_pruned_by_its_dict_of_losses(tmp_path: Path) -> None:
    write_squares(tmp_path, 8)
    out = tmp_path / "pruned.pt"
    options = ["--size", "64", "--epochs", "1", "--step-epochs", "1", "--max-drop", "1"]

    printed = run(
        "faster_rcnn.py", tmp_path / "annotations.json", *options, "--max-steps", "1", "--out", out
    )

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert "f1" in printed
    assert out.is_file()


@pytest.mark.slow
def test_the_trainer_of_transformers_trains_and_judges_a_pruned_model(tmp_path: Path) -> None:
    needs("transformers")
    needs("accelerate")
    for split in ("train", "val"):
        write_patches(tmp_path / "cells" / split / "sound", 16)
        write_patches(tmp_path / "cells" / split / "damaged", 16, damaged=True)
    out = tmp_path / "pruned.pt"
    options = ["--size", "32", "--layers", "2", "--epochs", "2", "--max-drop", "1"]

    printed = run("huggingface.py", tmp_path / "cells", *options, "--max-steps", "1", "--out", out)

    macs = steps_of(printed)
    assert macs[1] * 2 < macs[0]
    assert "eval_accuracy" in printed
    assert out.is_file()


def write_squares(folder: Path, count: int) -> None:
    """Grey images of 64 by 32 pixels, each with a square, and COCO's annotations of these."""
    listed = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "bright"}, {"id": 7, "name": "dark"}],
    }
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        pixels = np.full((32, 64, 3), 128, np.uint8)
        left, top, width, height = 12 + number, 8, 16, 8
        is_dark = number % 2
        pixels[top : top + height, left : left + width] = 20 if is_dark else 240
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        name = f"images/{number}.png"
        listed["images"].append({"id": number, "file_name": name, "width": 64, "height": 32})
        box = {"id": number, "image_id": number, "bbox": [left, top, width, height]}
        listed["annotations"].append({**box, "category_id": 7 if is_dark else 3})
    (folder / "annotations.json").write_text(json.dumps(listed))


def write_patches(folder: Path, count: int, *, damaged: bool = False) -> None:
    """Grey noise of 32 by 32 pixels, four patches of each photograph; damage is a black line."""
    folder.mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number // 4 + 1000 * damaged)
        pixels = random.integers(90, 160, (32, 32), dtype=np.uint8) // 2 + 20 * (number // 4 % 4)
        if damaged:
            pixels[:, 10 + number % 8] = 0
        name = f"wall_{number // 4}_{number % 4:04d}_{number:04d}.jpg"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


def run(name: str, *arguments: object) -> str:
    """What a script prints that ends well."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps_of(printed: str) -> list[float]:
    """The million MACs of the unpruned model and of each step."""
    return [float(found) for found in re.findall(r"step \d+: ([\d,.]+) million MACs", printed)]


def needs(package: str) -> None:
    """Skip the test where a package of the extra `zoo` is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install -e '.[zoo]'")


def environment() -> dict[str, str]:
    """The scripts find this prunedge, and ultralytics neither installs nor sends anything."""
    switches = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": CONFIG}
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **switches, "PYTHONPATH": os.pathsep.join(paths)}
