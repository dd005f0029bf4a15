"""What images of a classifier are labelled with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from prunedge.edge.tasks import targets_of
from prunedge.edge.tasks.base import Labels
from prunedge.edge.tasks.classification import ClassTargets
from prunedge.errors import DataError

TARGETS = ClassTargets(("crack", "sound", "stain"))


@dataclass(frozen=True)
class Listed:
    label: str
    name: str = "0.png"


def labels(*names: str) -> Labels:
    images = [Listed(name) for name in names]
    return Labels(images, "images.csv", "column label", "expected a CSV")


def test_classes_are_sorted_as_names_or_as_numbers() -> None:
    assert targets_of("classification", labels("sound", "crack", "sound")).classes == (
        "crack",
        "sound",
    )
    assert targets_of("classification", labels("10", "9", "100")).classes == ("9", "10", "100")


def test_a_target_is_the_index_of_the_class() -> None:
    assert TARGETS.target(Listed("stain")) == 2
    batch = TARGETS.collate([2, 0, 0])
    assert batch.tolist() == [2, 0, 0]
    assert batch.dtype == np.int64


def test_strata_are_the_classes() -> None:
    assert TARGETS.strata_names == TARGETS.classes
    assert TARGETS.strata([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert TARGETS.strata([]).shape == (0, 3)


def test_classes_without_an_image_are_missing() -> None:
    assert TARGETS.missing([1, 1]) == ("crack", "stain")
    assert TARGETS.missing([2, 1, 0]) == ()
    assert TARGETS.missing([]) == TARGETS.classes


def test_a_single_class_is_refused_with_the_layouts_that_there_are() -> None:
    with pytest.raises(DataError, match="only one class, 'crack'") as refused:
        targets_of("classification", labels("crack", "crack"))
    assert refused.value.where == "images.csv"
    assert "expected a CSV" in refused.value.remedy


def test_what_looks_like_no_class_is_doubted_with_the_remedy() -> None:
    assert TARGETS.doubt({"crack": 40, "sound": 40, "stain": 40}) is None
    doubt = TARGETS.doubt({"0.0": 40, "0.5": 40})
    assert doubt is not None
    assert "look like numbers" in doubt
    assert "one label" in doubt
