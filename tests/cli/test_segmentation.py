"""`--masks` from photographs to the device: pixels are learned, judged, exported and found."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge import open_bundle
from prunedge.edge.image.read import read_image
from prunedge.edge.session import open_session
from prunedge.edge.update.selftest import selftest
from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.masked_images import numbers_with, write_kinds, write_lines, write_pair

UNET = "tests.masked_images:tiny_unet"
SMALL = ("--weights", "none", "--size", "32", "--batch-size", "8", "--precision", "32")


def masked(root: Path) -> tuple[object, ...]:
    return (root / "photos", "--masks", root / "masks")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("segmentation") / "images")


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images.parent / "trained"
    settings = ("--model", UNET, "--epochs", "10", "--lr", "0.1", "--out", out)
    done = prunedge("train", *masked(images), *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    assert "iou " in done.stdout
    assert "always answering 'damage' scores" in done.stdout
    return out


@pytest.fixture(scope="module")
def pruned(trained: Path) -> Path:
    out = trained.parent / "pruned"
    settings = ("--step-ratio", "0.3", "--max-drop", "60", "--max-steps", "1", "--out", out)
    done = prunedge("prune", "--from", trained, *settings)
    assert done.returncode == 0, done.stderr
    assert "iou on validation data" in done.stdout
    return out


@pytest.fixture(scope="module")
def bundle(pruned: Path) -> Path:
    out = pruned.parent / "bundle"
    formats = ("--format", "onnx,onnx-int8", "--max-int8-drop", "20")
    done = prunedge("export", pruned, "--out", out, *formats)
    assert done.returncode == 0, done.stderr
    assert "same pixels on 100.0%" in done.stdout
    assert "onnx-int8" in done.stdout
    assert "iou on validation data" in done.stdout
    return out


def test_a_run_learns_pixels_and_is_judged_by_their_iou(trained: Path, pruned: Path) -> None:
    for path in (trained, pruned):
        config = open_run(path).config
        assert (config.task.name, config.task.metric) == ("segmentation", "iou")
        assert config.data.classes == ["background", "damage"]
    first, step = open_run(pruned).steps()[:2]
    assert first.metric_after > 0.6
    assert step.macs < first.macs
    metrics = {"iou", "dice", "precision", "recall", "cliou", "cldice"}
    by_image = {f"{name}_per_image" for name in ("iou", "dice", "cliou", "cldice")}
    assert set(first.metrics) == {"loss", *metrics, *by_image}
    assert None not in first.metrics.values()
    test = open_run(pruned).test()
    assert test is not None
    assert test["best"]["iou"] == test["best"]["classes"][1]["iou"]


def test_a_run_goes_on_with_masks_that_were_moved(
    images: Path, pruned: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(pruned, tmp_path / "run"))
    moved = Path(shutil.copytree(images / "masks", tmp_path / "moved"))
    done = prunedge("prune", "--resume", run, "--masks", moved, "--max-steps", "2")
    assert done.returncode == 0, done.stderr
    assert open_run(run).config.data.masks == str(moved)
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(moved / "001.png")
    done = prunedge("prune", "--resume", run, "--max-steps", "3")
    assert done.returncode == 2
    assert "have changed since this run began" in done.stderr


def test_the_page_and_show_tell_each_class(pruned: Path) -> None:
    assert "iou" in prunedge("show", pruned).stdout
    done = prunedge("report", pruned)
    assert done.returncode == 0, done.stderr
    page = (pruned / "report.html").read_text()
    assert "Pixel by pixel" in page
    assert "share of the pixels" in page


def test_a_bundle_is_proven_and_answers_maps(bundle: Path, images: Path) -> None:
    session = open_session(open_bundle(bundle))
    result = session.self_test()
    assert result.agreement == 1
    pixels = read_image(images / "photos" / "001.png", session.bundle.manifest.task.size)
    found = session.predict(pixels[None])
    assert found.shape == (1, 2, 32, 32)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert selftest(bundle, [images / "photos" / "001.png"]) > 0
    assert selftest(bundle, [], "onnx-int8") > 0


def test_other_photographs_are_judged_with_intervals(
    bundle: Path, pruned: Path, tmp_path: Path
) -> None:
    for index in range(6):
        write_pair(tmp_path, f"{index}", numbers_with(100 + index), values=(0, 1, 1), seed=index)
    for model in (bundle, pruned):
        done = prunedge("evaluate", model, *masked(tmp_path), "--resamples", "50", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["images"] == 6
        iou = found["metrics"]["iou"]
        assert iou["low"] <= iou["value"] <= iou["high"]
        assert iou["value"] > 0.3
    done = prunedge("evaluate", bundle, tmp_path / "photos")
    assert done.returncode == 2
    assert "--masks MASKS" in done.stderr
    own = prunedge("evaluate", pruned, open_run(pruned).config.data.path, "--json")
    assert own.returncode == 0, own.stderr
    test = open_run(pruned).test()
    assert test is not None
    assert json.loads(own.stdout)["metrics"]["iou"]["value"] == pytest.approx(test["best"]["iou"])


def test_predict_tells_the_share_of_each_class_and_writes_masks(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.csv"
    masks = tmp_path / "masks"
    done = prunedge("predict", bundle, images / "photos", "--out", out, "--masks", masks)
    assert done.returncode == 0, done.stderr
    again = prunedge("predict", bundle, images / "photos", "--out", "-", "--masks", masks)
    assert "there is something already" in again.stderr
    twice = ("--out", tmp_path / "no.csv", "--masks", tmp_path / "no")
    done = prunedge("predict", bundle, images / "photos", images / "masks", *twice)
    assert "several images would have the mask 000.png" in done.stderr
    assert not (tmp_path / "no").exists()
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    for row in rows:
        share = float(row["damage"])
        assert float(row["background"]) + share == pytest.approx(1)
        assert row["answer"] == ("damage" if share else "")
        mask = np.asarray(Image.open(masks / f"{Path(row['path']).stem}.png"))
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).mean() == pytest.approx(share)
    with_line = [float(row["damage"]) for row in rows if int(Path(row["path"]).stem) % 5]
    without = [float(row["damage"]) for row in rows if not int(Path(row["path"]).stem) % 5]
    assert np.mean(with_line) > 0.05 > np.mean(without)


def test_inspect_gives_masks_areas_and_boxes(bundle: Path, tmp_path: Path) -> None:
    # A photograph of twice the side that the model has learned from, with a line across it.
    numbers = np.zeros((64, 96), np.uint8)
    numbers[30:33] = 1
    write_pair(tmp_path, "wall", numbers)
    out = tmp_path / "found"
    done = prunedge("inspect", bundle, tmp_path / "photos", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "patches of 32 x 32 pixels" in done.stdout
    mask = np.asarray(Image.open(out / "wall.png.mask.png"))
    assert mask.shape == (64, 96)
    assert set(np.unique(mask)) <= {0, 255}
    found = mask > 0
    both = (found & (numbers > 0)).sum()
    assert both / (found | (numbers > 0)).sum() > 0.4
    record = json.loads((out / "wall.png.json").read_text())
    assert sum(region["area"] for region in record["regions"]) == found.sum()
    worst = record["regions"][0]
    box = found[worst["top"] : worst["bottom"], worst["left"] : worst["right"]]
    assert box.any(0).all()
    assert worst["label"] == "damage"
    assert record["damaged_share"] == pytest.approx(found.mean())
    assert worst["length_px"] == pytest.approx(worst["width"], rel=0.25)
    assert worst["mean_width_px"] * worst["length_px"] == pytest.approx(worst["area"], rel=0.1)
    with (out / "findings.csv").open(encoding="utf-8-sig") as file:
        row = next(csv.DictReader(file))
    assert float(row["length_px"]) == worst["length_px"]
    assert row["length_mm"] == ""


def test_several_classes_by_name_and_a_model_that_answers_with_a_dict(tmp_path: Path) -> None:
    write_kinds(tmp_path, 24)
    out = tmp_path / "run"
    settings = ("--max-steps", "1", "--step-ratio", "0.3", "--max-drop", "90", "--polish", "0")
    done = prunedge(
        "prune",
        *masked(tmp_path),
        *SMALL,
        *("--model", "tests.masked_images:tiny_dict", "--train-epochs", "4", "--lr", "0.1"),
        *settings,
        *("--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert open_run(out).config.data.classes == ["sound", "crack", "spalling"]
    done = prunedge("export", out, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "same pixels on 100.0%" in done.stdout


def test_photographs_cut_into_tiles_go_the_whole_way(tmp_path: Path) -> None:
    for index in range(10):
        numbers = numbers_with(index, line=index % 4 > 0, side=64)
        write_pair(tmp_path, f"wall{index}", numbers, seed=index)
    cut = (*masked(tmp_path), "--tile", "32", "--overlap", "0.25")
    done = prunedge("check", *cut, "--size", "32", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sum(report["images"].values()) == 90
    assert report["sources"] == 10
    assert report["leaks"] == {}
    out = tmp_path / "run"
    settings = ("--model", UNET, "--epochs", "3", "--lr", "0.1", "--balance", "sampler")
    settings = (*settings, "--area-loss", "tversky", "--metric", "dice-per-image")
    done = prunedge("train", *cut, *SMALL, *settings, "--out", out)
    assert done.returncode == 0, done.stderr
    train = open_run(out).config
    assert (train.train.area_loss, train.task.metric) == ("tversky", "dice_per_image")
    other = prunedge("prune", "--from", out, "--tile", "16", "--out", tmp_path / "other")
    assert other.returncode == 2
    assert "that learned from tiles of 32 (--tile 16)" in other.stderr
    done = prunedge("evaluate", out, tmp_path / "photos", "--resamples", "20", "--json")
    assert done.returncode == 0, done.stderr
    own = json.loads(done.stdout)
    assert own["intervals"]["groups"] * 9 == own["images"]
    assert own["seen"]["training"] == 0
    done = prunedge("export", out, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    view = open_bundle(tmp_path / "bundle").manifest.view
    assert view is not None
    assert (view.kind, view.width, view.height) == ("patch", 32, 32)
    whole = ("--tile", "32", "--resamples", "20", "--json")
    done = prunedge("evaluate", tmp_path / "bundle", *masked(tmp_path), *whole)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 10 * 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("--model", "test_resnet"), "no map for each of 2 classes"),
        (("--model", UNET, "--metric", "accuracy"), "choose iou, dice"),
        (("--model", UNET, "--balance", "loss"), "--balance loss can't be had with --task segm"),
        (("--model", UNET, "--task", "multilabel"), "acts only with --task segmentation"),
        (
            ("--model", UNET, "--tile", "32", "--operate", "recall >= 0.8"),
            "for a recall of tiles cut them (prunedge patches) and classify these",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    images: Path, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "run"
    done = prunedge(
        "prune", *masked(images), *SMALL, *settings, "--train-epochs", "1", "--out", out
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert said in errors[0]


def test_check_counts_images_of_each_class_and_names_a_model_of_pixels(images: Path) -> None:
    done = prunedge("check", *masked(images), "--size", "32")
    assert done.returncode == 0, done.stderr
    assert "an empty mask is right for" in done.stdout
    assert "--model lraspp_mobilenet_v3_large" in done.stdout
    assert "--balance" not in done.stdout
    assert "masks: black and white; 32 of 40 hold damage" in done.stderr


def test_check_advises_where_few_tiles_show_damage(tmp_path: Path) -> None:
    for index in range(12):
        numbers = np.zeros((64, 64), np.uint8)
        numbers[4:7, 4:14] = 1
        write_pair(tmp_path, f"{index}", numbers, seed=index)
    done = prunedge("check", *masked(tmp_path), "--tile", "16", "--size", "16")
    assert "few images show damage (6.2% of the training images)" in done.stdout
    assert "--balance sampler" in done.stdout
