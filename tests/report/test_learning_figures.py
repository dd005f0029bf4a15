"""Learning curves and the table of images, from what a run kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.report import write_report
from prunedge.report.metric_text import metric_of
from prunedge.report.run.data_card import columns_of, lines_of, rows_of
from prunedge.report.run.learning_figures import loss_by_epoch, metric_by_epoch
from prunedge.runs import execute
from prunedge.runs.data_record import DataRecord, SizesRecord
from prunedge.runs.learning import LearnedEpoch, learned
from prunedge.runs.run import Run
from tests.small_runs import small_recipe


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute.prune(small_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "run")


def test_epochs_of_all_trainings_stand_in_a_row(run: Run) -> None:
    first, step = run.steps()
    epochs = {
        0: [
            LearnedEpoch(0.9, {"loss": 0.8, "accuracy": 0.5}),
            LearnedEpoch(0.7, {"loss": 0.6, "accuracy": 0.7}),
        ],
        step.index: [LearnedEpoch(0.65, None), LearnedEpoch(0.5, None)],
    }
    training, validation = loss_by_epoch([first, step], epochs).data
    assert list(training.x) == [1, 2, None, 3, 4, None]
    assert list(training.y) == [0.9, 0.7, None, 0.65, 0.5, None]
    assert list(validation.x) == [1, 2, 4]
    assert list(validation.y) == [0.8, 0.6, step.metrics["loss"]]

    figure = metric_by_epoch([first, step], epochs, metric_of(run.config))
    assert list(figure.data[0].y) == [50.0, 70.0, 100 * step.metric_after]
    assert [line.x0 for line in figure.layout.shapes] == [2.5]


def test_the_page_has_both_curves(run: Run) -> None:
    assert learned(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "Learning curves" in page
    assert 'id="figure-loss"' in page
    assert 'id="figure-metric"' in page
    assert "<h2>The images</h2>" in page


def record(**changes: object) -> DataRecord:
    values = {
        "heading": "class",
        "counts": {
            "train": {"crack": 1200, "ok": 30},
            "val": {"crack": 4, "ok": 5},
            "test": {"crack": 6, "ok": 7},
        },
        "images": {"train": 1230, "val": 9, "test": 13},
        "without": {"train": 0, "val": 0, "test": 0},
        "sources": None,
        "skipped": 0,
        "sizes": None,
    }
    return DataRecord.model_validate(values | changes)


def test_each_class_has_a_row_and_a_sum() -> None:
    assert rows_of(record()) == [
        ("crack", "1,200", "4", "6", "1,210"),
        ("ok", "30", "5", "7", "42"),
        ("all images", "1,230", "9", "13", "1,252"),
    ]
    told = record(
        without={"train": 0, "val": 0, "test": 2}, sources={"train": 9, "val": 3, "test": 4}
    )
    assert rows_of(told)[2] == ("none of them", "0", "0", "2", "2")
    assert rows_of(told)[-1] == ("sources", "9", "3", "4", "")


def test_test_images_with_a_twin_have_a_column_without_them() -> None:
    twins = {
        "count": 5,
        "first": [],
        "without": {"crack": 2, "ok": 6},
        "none": 0,
        "images": 8,
    }
    told = record(twins=twins, sources={"train": 9, "val": 3, "test": 4})
    assert columns_of(told) == ("train", "val", "test", "test without twins", "all")
    assert rows_of(told) == [
        ("crack", "1,200", "4", "6", "2", "1,210"),
        ("ok", "30", "5", "7", "6", "42"),
        ("all images", "1,230", "9", "13", "8", "1,252"),
        ("sources", "9", "3", "4", "", ""),
    ]
    none = record(twins={**twins, "count": 0})
    assert columns_of(none) == ("train", "val", "test", "all")
    assert "no test image looks like one that trains or validates" in lines_of(none, None)


def test_what_is_said_of_the_images() -> None:
    sizes = SizesRecord(smallest=[20, 30], median=[300, 200], largest=[4000, 3000], different=9)
    told = record(sizes=sizes, sources={"train": 9, "val": 3, "test": 4}, skipped=2)
    assert lines_of(told, "parent") == [
        "the images have 20 x 30 to 4,000 x 3,000 pixels, in the middle 300 x 200",
        "images of one source lie on one side of the split (--group-by parent), unless it was given",
        "2 images could not be read and were left out",
    ]
    (line,) = lines_of(record(), None)
    assert line.startswith("no sources are known")
