"""`prunedge evaluate`: any model on any labelled images, of every task, with what speaks against
the score said beside it."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import prunedge as pe
from prunedge.cli.app import main
from prunedge.data import load
from prunedge.data.manifest import labelled_lines
from prunedge.runs import execute
from prunedge.runs.evaluation import evaluate_on
from prunedge.runs.export import write_bundle
from prunedge.runs.run import Run
from prunedge.tasks import make_task
from prunedge.train import evaluate, make_engine
from tests.graded import DEGREES, write_degrees, write_widths
from tests.refusals import refusal
from tests.several_labels import write_several
from tests.small_runs import small_recipe
from tests.tiny_images import write_tiny

TASKS = ("classification", "multilabel", "ordinal", "regression")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A trained run of each task, each beside its bundle."""
    root = tmp_path_factory.mktemp("evaluated")
    data = {
        "classification": write_tiny(root / "classes"),
        "multilabel": write_several(root / "several"),
        "ordinal": write_degrees(root / "degrees"),
        "regression": write_widths(root / "widths"),
    }
    made = {}
    for task, place in data.items():
        order = ",".join(DEGREES) if task == "ordinal" else None
        changes = {"task": task, "order": order, "train_epochs": 4}
        if task != "classification":
            changes |= {"model": "test_resnet", "size": 32}
        recipe = small_recipe(place, **changes)
        made[task] = execute.train(recipe, root / task)
        formats = ["onnx", "onnx-int8"] if task == "classification" else ["onnx"]
        write_bundle(made[task], root / f"{task}-bundle", formats=formats)
    return made


def bundle_of(run: Run) -> Path:
    return run.path.parent / f"{run.path.name}-bundle"


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *map(str, arguments)])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    return " ".join(told.out.split())


@pytest.mark.parametrize("task", TASKS)
def test_a_run_and_its_bundle_score_what_the_library_says(runs: dict[str, Run], task: str) -> None:
    run = runs[task]
    place = run.config.data.path
    data = load(place, **run.config.image_settings())
    wanted = evaluate(run.load(), data.test, make_engine("32"), make_task(data.spec))
    found = evaluate_on(run.path, place, resamples=50)
    assert (found.side, found.images) == ("test", len(data.test))
    assert found.seen is not None
    assert found.seen.trained == 0
    names = [one.metric.name for one in found.intervals.metrics]
    assert names == list(wanted.values)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-4)
    for one in found.intervals.metrics:
        value = wanted.values[one.metric.name]
        assert one.value == (None if value is None else pytest.approx(value, abs=2e-5))
        assert one.low is None or one.low <= one.value <= one.high
    # A bundle doesn't know the run's sides, and judges all images; so does the run when asked.
    every = evaluate_on(run.path, place, split="all", resamples=50)
    of_bundle = evaluate_on(bundle_of(run), place, resamples=50)
    assert of_bundle.images == every.images == sum(map(len, data.splits().values()))
    assert of_bundle.loss == pytest.approx(every.loss, rel=1e-3)
    assert every.seen.trained >= len(data.train)
    assert of_bundle.seen is None


@pytest.mark.parametrize("task", TASKS)
def test_the_whole_is_told_and_is_plain_json(
    runs: dict[str, Run], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[task]
    place = run.config.data.path
    text = said(capsys, run.path, place, "--resamples", "20")
    assert f"{run.config.task.metric}*" in text
    assert text.count("* the metric that the model was chosen by") == 1
    assert "always answering" in text
    assert "20 resamples of" in text
    assert "none of these images was seen in training" in text
    record = json.loads(said(capsys, run.path, place, "--resamples", "20", "--json"))
    assert record["metrics"][record["metric"]].keys() == {"value", "low", "high"}
    assert record["intervals"] == {
        "confidence": 0.95,
        "resamples": 20,
        "groups": record["images"],
        "seed": 0,
    }
    for figures in record["classes"].values():
        assert {"support", "recall", "precision", "f1"} <= figures.keys()


def test_every_form_of_a_bundle_and_every_step_of_a_run_can_be_judged(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["classification"]
    other = write_tiny(tmp_path / "other", count=6, seed=4)
    for form in ("onnx", "onnx-int8"):
        assert f"({form}) on all images" in said(
            capsys, bundle_of(run), other, "--runtime", form, "--threads", 1
        )
    assert "step 0" in said(capsys, run.path, other, "--step", 0)
    assert "unpruned" in said(capsys, run.path, other, "--baseline")


def test_the_data_may_have_any_form_and_the_size_is_the_model_s(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run = runs["classification"]
    folder = write_tiny(tmp_path / "other", count=6, size=50, seed=4)
    files = sorted(folder.rglob("*.png"))
    lines = [f"{file.relative_to(folder)},{file.parent.name}" for file in files]
    manifest = folder / "list.csv"
    manifest.write_text("path,label\n" + "\n".join(lines))
    shard = tmp_path / "other.tar"
    with tarfile.open(shard, "w") as tar:
        for number, file in enumerate(files):
            tar.add(file, f"{number:03d}.png")
            label = tmp_path / "label"
            label.write_text(file.parent.name)
            tar.add(label, f"{number:03d}.cls")
    found = [evaluate_on(run.path, each, resamples=20) for each in (folder, manifest, shard)]
    assert {one.images for one in found} == {12}
    assert found[0].loss == pytest.approx(found[1].loss)
    assert found[0].loss == pytest.approx(found[2].loss)
    data = pe.load_folder(folder, size=16, val=0.2, test=0.2)
    whole = torch.cat([images for split in data.splits().values() for images, _ in split])
    assert whole.shape[2:] == (16, 16)


def test_size_shape_and_normalisation_are_the_model_s_own(tmp_path: Path) -> None:
    images = write_tiny(tmp_path / "images", count=12)
    settings = {"size": "16x24", "resize": "pad", "image_norm": "half", "train_epochs": 1}
    run = execute.train(small_recipe(images, **settings), tmp_path / "run")
    write_bundle(run, tmp_path / "bundle")
    other = write_tiny(tmp_path / "other", count=5, size=40, seed=2)
    whole = load(other, size="16x24", resize="pad", image_norm="half", val=0.3, test=0.3)
    model = run.load()
    losses = []
    for split in whole.splits().values():
        losses += [evaluate(model, split, make_engine("32")).loss] * len(split)
    for place in (run.path, tmp_path / "bundle"):
        found = evaluate_on(place, other, resamples=2)
        assert found.loss == pytest.approx(sum(losses) / 10, rel=1e-3)


def test_deep_greys_mean_what_they_meant_in_training(tmp_path: Path) -> None:
    deep = write_deep(tmp_path / "deep", seed=0)
    other = write_deep(tmp_path / "other", seed=1)
    eight = write_tiny(tmp_path / "eight", count=12)
    run = execute.train(small_recipe(deep, train_epochs=1), tmp_path / "run")
    write_bundle(run, tmp_path / "bundle")
    found = [evaluate_on(place, other, resamples=2) for place in (run.path, tmp_path / "bundle")]
    assert found[0].images == 24
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-3)
    assert "none of 24 images can be read" in refusal("evaluate", run.path, eight)
    of_eight = execute.train(small_recipe(eight, train_epochs=1), tmp_path / "of-eight")
    assert "more than eight bits" in refusal("evaluate", of_eight.path, other)
    shutil.rmtree(deep)  # the run keeps the range
    assert evaluate_on(run.path, other, resamples=2).loss == pytest.approx(found[0].loss)


def write_deep(root: Path, seed: int) -> Path:
    """Class folders of 12 images each, with greys of sixteen bits."""
    generator = np.random.default_rng(seed)
    for label, grey in (("crack", 9000), ("sound", 30000)):
        (root / label).mkdir(parents=True)
        for number in range(12):
            pixels = generator.normal(grey, 1500, (20, 20)).clip(0, 65535).astype(np.uint16)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


def test_images_with_splits_are_judged_by_their_test_split_and_need_no_training_images(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run = runs["classification"]
    folder = write_tiny(tmp_path / "other", count=6, seed=4)
    lines = ["path,label,split"]
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        side = "test" if number % 3 else "val"
        lines.append(f"{file.relative_to(folder)},{file.parent.name},{side}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    assert evaluate_on(run.path, folder, resamples=5).images == 8
    assert evaluate_on(run.path, folder, split="val", resamples=5).images == 4
    assert evaluate_on(run.path, folder, split="all", resamples=5).images == 12
    line = refusal("evaluate", run.path, folder, "--split", "train")
    assert "they have val, test" in line
    assert "use --split val, or --split all" in line


def test_images_of_one_source_are_drawn_together(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["classification"]
    folder = write_tiny(tmp_path / "other", count=8, seed=4)
    lines = ["path,label,source"]
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        lines.append(f"{file.relative_to(folder)},{file.parent.name},photo{number % 4}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    found = evaluate_on(run.path, folder, resamples=5)
    assert (found.intervals.groups, found.has_sources) == (4, True)
    by_path = evaluate_on(run.path, folder, group_by=r"(\d)\.png", resamples=5)
    assert by_path.intervals.groups == 8


def test_labels_are_matched_by_name_and_what_is_left_out_is_said(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["classification"]
    folder = write_tiny(tmp_path / "other", count=6, seed=4)
    shutil.move(folder / "crack", folder / "zz")  # its order is another now
    (folder / "zz").rename(folder / "crack")
    shutil.copytree(folder / "sound", folder / "graffiti")
    (folder / "sound" / "empty.png").write_bytes(b"")
    (folder / "sound" / "odd.png").write_bytes(b"no image at all")
    text = said(capsys, run.path, folder, "--resamples", 5)
    assert "12 images judged; 2 images can't be read: sound/empty.png (empty file)" in text
    assert "6 images left out, which the model has no answer for: 6 with class 'graffiti'" in text
    shutil.rmtree(folder / "crack")
    text = said(capsys, run.path, folder, "--resamples", 5)
    assert "no image shows crack" in text


@pytest.mark.parametrize("task", ["classification", "multilabel", "ordinal"])
def test_labels_that_the_model_knows_none_of_are_one_line(
    runs: dict[str, Run], task: str, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    for label in ("ice", "snow"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(folder / label / "0.png")
    line = refusal("evaluate", runs[task].path, folder)
    assert "nothing can be compared: the model knows " in line
    assert "'ice'" in line
    assert str(folder) in line


def test_numbers_are_matched_by_the_names_of_their_columns(tmp_path: Path) -> None:
    from prunedge.edge.tasks import matched, targets_of
    from prunedge.edge.tasks.base import Labels, Unmatched
    from prunedge.errors import DataError

    def labels(text: str) -> Labels:
        file = tmp_path / "list.csv"
        file.write_text(text)
        held = labelled_lines(file)
        images = [Labelled(cells["path"], cells["label"]) for _, cells in held.lines]
        return Labels(images, str(file), held.held, "", columns=held.columns)

    model = targets_of("regression", labels("path,width,length\na,1.5,2\nb,3,5\n"))
    moved = labels("path,length,height,width\na,2,9,1.5\nb,x,9,3\nc,7,8,4\n")
    found = matched(model, moved)
    assert found[0] == (1.5, 2.0)
    assert found[2] == (4.0, 7.0)
    assert isinstance(found[1], Unmatched)
    with pytest.raises(DataError, match="no column length, but height, width"):
        matched(model, labels("path,height,width\na,2,1.5\nb,3,3\n"))


class Labelled:
    """A listed image."""

    def __init__(self, name: str, label: str) -> None:
        self.name = name
        self.label = label


def test_a_degree_is_known_by_its_number() -> None:
    from prunedge.edge.tasks.base import Labels, Unmatched
    from prunedge.edge.tasks.ordinal import DegreeTargets

    images = [Labelled(str(index), label) for index, label in enumerate(("0.50", "1", "2", ""))]
    found = DegreeTargets(("0", "0.5", "1")).matched(Labels(images, "", "", ""))
    assert found == [1, 2, Unmatched("degree '2'"), Unmatched("no degree")]


def test_images_that_taught_the_model_are_counted(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["classification"]
    data = load(run.config.data.path, **run.config.image_settings())
    folder = write_tiny(tmp_path / "other", count=6, seed=4)
    for number, sample in enumerate(data.train.samples[:5]):
        shutil.copy(sample.path, folder / sample.path.parent.name / f"copy{number}.png")
    text = said(capsys, run.path, folder, "--resamples", 5)
    assert "5 of 17 images taught the model" in text


def test_copies_that_were_compressed_anew_are_told(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["classification"]
    data = load(run.config.data.path, **run.config.image_settings())
    folder = write_tiny(tmp_path / "other", count=6, seed=4)
    for number, sample in enumerate(data.train.samples[:3]):
        image = Image.open(sample.path)
        image.save(folder / sample.path.parent.name / f"copy{number}.jpg", quality=90)
    text = said(capsys, run.path, folder, "--resamples", 5)
    assert "none of these images was seen in training, to the pixel" in text
    assert "mind: 3 other images look like training images" in text


def test_the_library_judges_as_the_command_does(runs: dict[str, Run]) -> None:
    run = runs["classification"]
    found = pe.evaluate_on(str(run.path), run.config.data.path, split="val", resamples=5)
    assert found.side == "val"
    assert found.judged.metric.name == "accuracy"
    with pytest.raises(TypeError):
        pe.evaluate_on(3, run.config.data.path)  # type: ignore[arg-type]


def test_a_run_whose_images_are_gone_can_be_judged_on_others(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(runs["classification"].config.data.path, tmp_path / "images")
    run = execute.train(small_recipe(images, train_epochs=1), tmp_path / "run")
    shutil.rmtree(images)
    other = write_tiny(tmp_path / "other", count=6, seed=4)
    text = said(capsys, run.path, other, "--resamples", 5)
    assert "what" in text
    assert "was taught with can't be told" in text
    assert str(images) in refusal("evaluate", run.path, images)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--runtime", "openvino"], "export"),
        (["--step", "77"], "step 77"),
        (["--step", "0", "--baseline"], "exclude"),
        (["--split", "half"], "choose test, val, train, all"),
        (["--resamples", "0"], "--resamples"),
        (["--threads", "0"], "--threads"),
        (["--group-by", "("], "--group-by"),
    ],
)
def test_what_is_wrong_of_a_run_is_one_line(
    runs: dict[str, Run], arguments: list[str], word: str
) -> None:
    run = runs["classification"]
    assert word in refusal("evaluate", run.path, run.config.data.path, *arguments)


def test_what_is_wrong_of_a_bundle_is_one_line(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["classification"]
    bundle = bundle_of(run)
    place = run.config.data.path
    assert "for runs" in refusal("evaluate", bundle, place, "--baseline")
    assert "holds no 'openvino'" in refusal("evaluate", bundle, place, "--runtime", "openvino")
    assert "without splits" in refusal("evaluate", bundle, place, "--split", "test")
    assert "not a bundle" in refusal("evaluate", tmp_path, place)
    assert "nowhere" in refusal("evaluate", bundle, tmp_path / "nowhere")


def test_a_bench_tells_the_metric_beside_the_milliseconds(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(runs["classification"])
    other = write_tiny(tmp_path / "other", count=6, seed=4)
    arguments = ["--runtime", "onnx,onnx-int8", "--patches", "4", "--json"]
    assert benched(capsys, bundle, "--data", other, *arguments)["bundles"][1]["score"] == {
        **benched(capsys, bundle, "--data", other, *arguments)["bundles"][1]["score"],
        "metric": "accuracy",
        "images": 12,
    }
    unlabelled = tmp_path / "photos"
    unlabelled.mkdir()
    Image.new("RGB", (20, 20)).save(unlabelled / "0.png")
    assert "score" not in benched(capsys, bundle, "--data", unlabelled, *arguments)["bundles"][0]


def benched(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    with pytest.raises(SystemExit) as end:
        main(["bench", *map(str, arguments)])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    return dict(json.loads(told.out))


def predicted(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", TASKS)
def test_a_run_and_its_bundle_predict_the_same(
    runs: dict[str, Run], task: str, tmp_path: Path
) -> None:
    run = runs[task]
    images = sorted(Path(run.config.data.path).parent.rglob("*.png"))[:3]
    tables = []
    for number, model in enumerate((run.path, bundle_of(run))):
        out = tmp_path / f"{number}.csv"
        with pytest.raises(SystemExit) as end:
            main(["predict", str(model), *map(str, images), "--out", str(out)])
        assert end.value.code == 0
        tables.append(predicted(out))
    for first, second in zip(*tables, strict=True):
        assert first["path"] == second["path"]
        assert first["error"] == ""
        for name in run.config.data.classes:
            assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-3, abs=1e-4)
