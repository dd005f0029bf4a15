"""`prunedge predict` on a device: a row for each image, also for those that can't be read, and no
torch."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.cli.app import main
from prunedge.cli.predict import _print_predictions as print_predictions
from prunedge.edge import open_bundle
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.edge.predict import (
    Prediction,
    Predictor,
    columns_of,
    images_in,
    predict,
    write_predictions,
)
from prunedge.edge.session import open_session
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import Scale, TaskSpec
from prunedge.edge.tasks.decision import Decision
from prunedge.errors import BundleError, DataError
from tests.refusals import refusal


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one of them in a folder, and two files that are none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "more/c.png"):
        pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "empty.png").write_bytes(b"")
    (folder / "odd.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, arguments)])
    told = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, told.out, told.err


def test_every_image_has_a_row_and_those_that_can_t_be_read_say_so(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    code, told, log = run(capsys, bundle, photos, "--out", out)
    assert (code, told) == (1, "")
    assert "3 images answered" in log
    assert "2 images can't be read" in log
    rows = list(csv.DictReader(out.open(newline="")))
    names = [str(Path(row["path"]).relative_to(photos)) for row in rows]
    assert names == ["a.png", "b.jpg", "empty.png", "odd.png", "more/c.png"]
    session = open_session(open_bundle(bundle))
    for row in rows:
        if row["error"]:
            assert [row[name] for name in ("answer", *"abc")] == [""] * 4
            continue
        shares = [float(row[name]) for name in "abc"]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["answer"] == "abc"[int(np.argmax(shares))]
        size = session.bundle.manifest.task.size
        wanted = session.predict(read_image(row["path"], size)[None])[0]
        assert shares == pytest.approx(wanted.tolist(), abs=1e-5)
    assert [row["error"] for row in rows][2] == "empty file"


def test_stdout_takes_the_table_alone(
    bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, log = run(capsys, bundle, photos / "a.png", photos / "*.jpg", "--out", "-")
    assert code == 0
    rows = list(csv.reader(io.StringIO(told)))
    assert rows[0] == ["path", "answer", "a", "b", "c", "error"]
    assert [Path(row[0]).name for row in rows[1:]] == ["a.png", "b.jpg"]
    assert "2 images answered" in log


def test_what_is_there_is_not_written_over(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    out.write_text("mine")
    assert str(out) in refusal("predict", bundle, photos, "--out", out)
    assert out.read_text() == "mine"


def test_what_is_wrong_is_one_line_and_leaves_nothing(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert "nowhere" in refusal("predict", bundle, tmp_path / "nowhere", "--out", out)
    assert "no images are named" in refusal("predict", bundle, "--out", out)
    assert "*.bmp" in refusal("predict", bundle, photos / "*.bmp", "--out", out)
    assert "openvino" in refusal("predict", bundle, photos, "--out", out, "--runtime", "openvino")
    assert "--threads" in refusal("predict", bundle, photos, "--out", out, "--threads", "0")
    assert "for runs" in refusal("predict", bundle, photos, "--out", out, "--step", "1")
    assert "not a bundle" in refusal("predict", photos, photos, "--out", out)
    assert not out.exists()


def test_places_name_each_image_once_and_in_order(photos: Path) -> None:
    lost: list[str] = []
    found = images_in([str(photos / "b.jpg"), str(photos)], lost.append)
    assert [Path(name).name for name in found] == [
        "b.jpg",
        "a.png",
        "empty.png",
        "odd.png",
        "c.png",
    ]
    assert lost == []
    with pytest.raises(DataError, match="no images"):
        images_in([str(photos / "*.tif")], lost.append)


def test_a_bundle_predicts_without_torch(bundle: Path, photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'scipy', 'filelock', 'fsspec'): sys.modules[name] = None\n"
        "from prunedge.cli.app import main\n"
        f"main(['predict', {str(bundle)!r}, {str(photos / 'a.png')!r}, '--out', '-'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("path,answer,a,b,c,error\n")


SPEC = {"size": square(8), "classes": ("low", "mid", "high")}


def test_answers_are_in_the_words_of_labels() -> None:
    ordinal = decoder_of(TaskSpec(name="ordinal", **SPEC))
    assert ordinal.answers(np.array([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])) == ["mid", "low"]
    decision = Decision(damage=("high",), threshold=0.2)
    several = decoder_of(TaskSpec(name="multilabel", **SPEC, decision=decision))
    assert several.answers(np.array([[0.6, 0.1, 0.3], [0, 0, 0]])) == ["low;high", ""]
    scale = Scale(mean=1, deviation=1, median=1, lowest=0, highest=9)
    numbers = decoder_of(TaskSpec(name="regression", **SPEC, scales=(scale,) * 3))
    assert numbers.answers(np.array([[1.25, -3, 1000.5]])) == ["1.25;-3;1000.5"]


def test_a_class_takes_no_other_column_s_name() -> None:
    spec = TaskSpec(name="classification", size=square(8), classes=("answer", "fine"))
    assert columns_of(spec) == ["answer (class)", "fine"]
    file = io.StringIO()
    rows = [Prediction("a,b.png", "fine", (0.25, 0.75)), Prediction("c.png", error="empty file")]
    assert write_predictions(file, spec, iter(rows)) == (1, 1)
    assert file.getvalue().splitlines() == [
        "path,answer,answer (class),fine,error",
        '"a,b.png",fine,0.25,0.75,',
        "c.png,,,,empty file",
    ]


def test_images_beyond_a_batch_come_in_order(bundle: Path, photos: Path) -> None:
    session = open_session(open_bundle(bundle))
    paths = [str(photos / name) for name in ("a.png", "empty.png", "b.jpg")] * 15
    done: list[int] = []
    found = list(predict(Predictor.of(session), paths, lambda at, of, what: done.append(at)))
    assert [each.path for each in found] == paths
    assert done == [32, 45]
    assert found[0].values == pytest.approx(found[42].values, abs=1e-6)


def test_answers_and_outputs_come_as_json(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", str(bundle), str(photos / "a.png"), "--out", "-", "--json"])
    assert end.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)
    session = open_session(open_bundle(bundle))
    (wanted,) = predict(Predictor.of(session), [str(photos / "a.png")])
    assert (row["answer"], row["a"]) == (wanted.answer, pytest.approx(wanted.values[0]))

    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    with pytest.raises(SystemExit):
        main(["predict", str(bundle), str(tmp_path / "pixels.npy"), "--out", "-", "--json"])
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    np.testing.assert_allclose(outputs, session.answer(pixels), rtol=1e-6)

    np.save(tmp_path / "other.npy", pixels[:, :8])
    line = refusal("predict", bundle, tmp_path / "other.npy", "--out", "-", "--json")
    assert "uint8 of shape (3, 8, 16, 3), not uint8 of (n, 16, 16, 3)" in line
    (tmp_path / "no.npy").write_bytes(b"no")
    line = refusal("predict", bundle, tmp_path / "no.npy", "--out", "-", "--json")
    assert "no .npy file of pixels" in line
    assert "--out -" in refusal("predict", bundle, photos, "--out", tmp_path / "t.csv", "--json")


def halves(spec: TaskSpec) -> Predictor:
    """A model that takes the right half of all that it sees for the last class."""

    def outputs(pixels: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(pixels), len(spec.classes), *spec.size), np.float32)
        middle = spec.size.width // 2
        logits[:, 0, :, :middle] = 6
        logits[:, -1, :, middle:] = 6
        return logits

    return Predictor(spec, None, outputs)


def masks_of(folder: Path, predictor: Predictor) -> np.ndarray:
    """The mask of an image of 32 x 8 pixels."""
    Image.new("RGB", (32, 8)).save(folder / "wide.png")
    masks = folder / "masks"
    masks.mkdir()
    list(predict(predictor, [str(folder / "wide.png")], masks=masks))
    return np.asarray(Image.open(masks / "wide.png"))


def test_what_a_model_that_crops_has_not_seen_is_black_in_a_mask_of_two_classes(
    tmp_path: Path,
) -> None:
    spec = TaskSpec(name="segmentation", size=square(8), classes=("sound", "crack"), resize="crop")
    mask = masks_of(tmp_path, halves(spec))
    wanted = np.zeros((8, 32), np.uint8)
    wanted[:, 16:20] = 255
    np.testing.assert_array_equal(mask, wanted)


def test_and_255_in_a_mask_of_numbers(tmp_path: Path) -> None:
    spec = TaskSpec(name="segmentation", **SPEC, resize="crop")
    mask = masks_of(tmp_path, halves(spec))
    assert mask[0].tolist() == [255] * 12 + [0] * 4 + [2] * 4 + [255] * 12


def test_a_model_of_whole_images_has_no_masks_and_leaves_no_folder(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    out = tmp_path / "out.csv"
    said = refusal("predict", bundle, photos / "a.png", "--out", out, "--masks", masks)
    assert "has no masks" in said
    assert not masks.exists()
    assert not out.exists()
    predictor = Predictor.of(open_session(open_bundle(bundle)))
    with pytest.raises(BundleError, match="has no masks"):
        list(predict(predictor, [], masks=masks))


def test_pixels_in_a_file_have_no_masks(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "pixels.npy"
    np.save(file, np.zeros((1, 8, 8, 3), np.uint8))
    masks = tmp_path / "masks"
    said = refusal("predict", bundle, file, "--out", "-", "--json", "--masks", masks)
    assert "--masks" in said
    assert not masks.exists()


def test_the_border_around_an_image_that_is_padded_counts_for_no_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = TaskSpec(name="segmentation", **SPEC, resize="pad")

    def outputs(pixels: np.ndarray) -> np.ndarray:
        # The border, which nobody has taught it, is of the last class; the image half of the first.
        logits = halves(spec).outputs(pixels)
        logits[:, 1] = logits[:, 2]
        logits[:, 2] = 0
        logits[:, :, :2] = logits[:, :, 6:] = np.array([0, 0, 9])[:, None, None]
        return logits

    predictor = Predictor(spec, None, outputs)
    wide = tmp_path / "wide.png"
    Image.new("RGB", (32, 16)).save(wide)
    square_one = tmp_path / "square.png"
    Image.new("RGB", (16, 16)).save(square_one)
    (tmp_path / "empty.png").write_bytes(b"")
    files = [str(tmp_path / "empty.png"), str(wide), str(square_one)]
    empty, found, whole = predict(predictor, files)
    assert empty.error == "empty file"
    assert found.answer == "mid"
    assert found.values == (0.5, 0.5, 0)
    assert whole.answer == "mid;high"
    assert whole.values == (0.25, 0.25, 0.5)

    file = io.StringIO()
    write_predictions(file, spec, predict(predictor, [str(wide)]))
    assert file.getvalue().splitlines()[1] == f"{wide},mid,0.5,0.5,0,"
    print_predictions(predictor, [str(wide)], None)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["answer"], row["low"], row["high"]) == ("mid", 0.5, 0)


def test_a_turned_photograph_is_padded_as_it_is_seen(tmp_path: Path) -> None:
    spec = TaskSpec(name="segmentation", **SPEC, resize="pad")
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = tmp_path / "tall.jpg"
    Image.new("RGB", (32, 16)).save(tall, exif=exif)
    (found,) = predict(halves(spec), [str(tall)])
    assert found.values == (0.5, 0, 0.5)
    masks = tmp_path / "masks"
    masks.mkdir()
    list(predict(halves(spec), [str(tall)], masks=masks))
    assert Image.open(masks / "tall.png").size == (16, 32)
