"""A criterion of one's own that fails is told in one line with its name; so is what is no criterion, and what leaves the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prunedge.errors import PrunedgeError
from prunedge.graph import trace
from prunedge.importance import CRITERIA, criterion, rank
from tests.refusals import refusal
from tests.small_models import tiny


def raises(*given: Any) -> Any:
    """A function that fails."""
    raise ValueError("no\nsuch thing")


def leaves(*given: Any) -> Any:
    """A function that ends the process."""
    sys.exit(7)


def leaving(num_classes: int) -> Any:
    """A model that does."""
    sys.exit(7)


BATCH = [(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64))]


@pytest.mark.parametrize("reads", ["weights", "activations", "gradients"])
@pytest.mark.parametrize("function", [raises, lambda *given: "text", lambda *given: None])
@pytest.mark.usefixtures("own_criteria")
def test_a_function_that_fails(reads: Any, function: Any) -> None:
    criterion("mine", reads=reads)(function)
    model = tiny(2)
    with pytest.raises(PrunedgeError, match="the criterion 'mine'") as error:
        rank(model, trace(model, torch.zeros(2, 3, 16, 16)), BATCH, "mine")
    assert "\n" not in str(error.value)


WORDS = [
    "--model",
    "tests.runs.test_run:small",
    "--weights",
    "none",
    "--size",
    16,
    "--precision",
    "32",
    "--train-epochs",
    3,
    "--batch-size",
    8,
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tests.importance.test_own_criteria:raises", "raised ValueError: no such thing"),
        ("os:system", "raised TypeError"),
        ("tests.importance.test_own_criteria:leaves", "sys.exit(7)"),
    ],
)
@pytest.mark.usefixtures("own_criteria")
def test_on_the_command_line(tiny_data: Path, tmp_path: Path, name: str, words: str) -> None:
    line = refusal("prune", tiny_data, *WORDS, "--criterion", name, "--out", tmp_path / "run")
    assert words in line
    assert "sys.exit" in words or f"the criterion '{name}'" in line


def test_a_model_that_leaves() -> None:
    assert "sys.exit(7)" in refusal(
        "groups", "--model", "tests.importance.test_own_criteria:leaving"
    )


def test_an_unknown_name() -> None:
    with pytest.raises(PrunedgeError) as error:
        rank(tiny(2), trace(tiny(2), torch.zeros(2, 3, 16, 16)), BATCH, "zz")
    assert all(name in str(error.value) for name in CRITERIA)
    with pytest.raises(PrunedgeError, match="did you mean taylor"):
        rank(tiny(2), trace(tiny(2), torch.zeros(2, 3, 16, 16)), BATCH, "tailor")
