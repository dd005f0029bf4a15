"""Numbers with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunedge.utils.wording import (
    amount,
    amounts,
    counted,
    figure,
    first_of,
    megabytes,
    megabytes_pair,
    pair,
    percentage,
    probability,
    significant_pair,
    times,
    times_words,
)

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


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (11_181_642, 2, "11.18 million"),
        (1_818_600_000, 1, "1,818.6 million"),
        (100_000, 2, "0.10 million"),
        (99_999, 2, "100.0 thousand"),
        (96_800, 0, "97 thousand"),
        (968, 2, "968"),
        (280_000, 0, "0.28 million"),
        (0, 1, "0"),
    ],
)
def test_large_numbers_are_told_in_the_unit_of_their_size(
    value: float, decimals: int, text: str
) -> None:
    assert amount(value, decimals) == text


def test_two_large_numbers_share_their_unit_where_it_is_the_same() -> None:
    assert amounts(11_181_642, 1_050_000, 2) == "11.18 -> 1.05 million"
    assert amounts(11_181_642, 968, 2) == "11.18 million -> 968"
    assert amounts(1204, 968, 2) == "1.2 thousand -> 968"
    assert amounts(968, 968, 2) == "968 -> 968"
    assert amounts(12_300_000, 11_900_000, 0, " → ") == "12.3 → 11.9 million"
    assert amounts(48_930_000, 400_100, 0, " → ") == "48.93 → 0.40 million"
    assert amounts(968, 0, 0) == "968 -> 0"


def test_what_a_ratio_hardly_changes_is_not_said_in_numbers() -> None:
    assert times_words(1, "smaller") == "unchanged"
    assert times_words(1.004, "smaller") == "hardly smaller"
    assert times_words(1.03, "smaller") == "1.03 x smaller"
    assert times_words(0.98, "smaller") == "0.98 x smaller"
    assert times_words(2.41, "smaller", "×") == "2.4 × smaller"


def test_the_size_of_a_tiny_model_is_no_zero() -> None:
    assert megabytes(44.66) == "44.7"
    assert megabytes(0.003872) == "0.0039"
    assert megabytes_pair(44.66, 4.61) == ("44.7", "4.6")
    assert megabytes_pair(12.3, 12.28) == ("12.30", "12.28")
    assert megabytes_pair(0.0078, 0.0021) == ("0.0078", "0.0021")


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


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (0.03124, 3, False, "0.0312"),
        (2600.4, 3, False, "2,600"),
        (-0.5, 3, True, "-0.5"),
        (1234.0, 3, True, "+1,234"),
        (1800.0, 4, False, "1,800"),
    ],
)
def test_a_figure_has_so_many_digits_and_no_exponent_for_whole_numbers(
    value: float, digits: int, signed: bool, text: str
) -> None:
    assert figure(value, digits, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "as_probability", "as_percent"),
    [
        (0.5, "0.5", "50%"),
        (0.207, "0.207", "21%"),
        (0.999, "0.999", "99.9%"),
        (0.9999, "0.9999", "99.99%"),
        (0.99996, "0.99996", "99.996%"),
        (1.0, "1", "100%"),
        (0.0, "0", "0%"),
        (0.0001, "0.0001", "0.01%"),
    ],
)
def test_a_threshold_just_below_one_is_not_told_as_one(
    value: float, as_probability: str, as_percent: str
) -> None:
    assert (probability(value), percentage(value)) == (as_probability, as_percent)
