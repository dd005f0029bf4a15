"""Numbers with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunedge.utils.wording import counted, first_of, pair, significant_pair, times

ROOT = Path(__file__).parents[2] / "src" / "prunedge"


@pytest.mark.parametrize(
    ("count", "forms", "text"),
    [
        (0, ["image"], "0 images"),
        (1, ["image"], "1 image"),
        (2, ["image"], "2 images"),
        (1860, ["patch", "patches"], "1,860 patches"),
        (1, ["patch", "patches"], "1 patch"),
        (1, ["trial is", "trials are"], "1 trial is"),
        (3, ["trial is", "trials are"], "3 trials are"),
    ],
)
def test_a_number_and_its_noun(count: int, forms: list[str], text: str) -> None:
    assert counted(count, *forms) == text


def test_no_message_leaves_the_plural_open() -> None:
    left_open = re.compile(r"\} ?[a-z]+\(s\)")
    files = [*ROOT.rglob("*.py"), *ROOT.rglob("*.j2")]
    assert [file.name for file in files if left_open.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("before", "after", "decimals", "texts"),
    [
        (333.1, 12.5, 1, ("333.1", "12.5")),
        (12.3, 11.9, 0, ("12.3", "11.9")),
        (12.0, 12.0, 0, ("12", "12")),
        (0.0023, 0.0019, 2, ("0.0023", "0.0019")),
        (15470.3, 15470.2, 0, ("15,470.3", "15,470.2")),
        (1e-9, 2e-9, 1, ("0.000000", "0.000000")),
    ],
)
def test_rounding_hides_no_change(
    before: float, after: float, decimals: int, texts: tuple[str, str]
) -> None:
    assert pair(before, after, decimals) == texts


def test_rounding_to_digits_hides_no_change_either() -> None:
    assert significant_pair(44.7, 2.31) == ("44.7", "2.31")
    assert significant_pair(12.0, 11.98) == ("12", "11.98")
    assert significant_pair(12.0, 12.0) == ("12", "12")
    assert significant_pair(1800.0, 133.6) == ("1,800", "134")
    assert significant_pair(15470.2, 15469.6) == ("15,470.2", "15,469.6")


def test_a_ratio_of_nearly_one_says_by_how_much() -> None:
    assert [times(ratio) for ratio in (1.0, 1.03, 1.1, 2.38)] == ["1.0", "1.03", "1.1", "2.4"]


def test_of_many_things_the_first_are_named_and_the_rest_counted() -> None:
    assert first_of(["a", "b"]) == "a, b"
    many = [str(number) for number in range(3000)]
    assert first_of(many) == "0, 1, 2, 3, 4 and 2,995 more"
    assert first_of(many, most=2, between="; ") == "0; 1 and 2,998 more"
