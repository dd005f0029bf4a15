"""Classes of widths: a table without gaps, and what the uncertainty does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.edge.inspect.measure_words import measures_in_words, with_uncertainty
from prunedge.edge.inspect.tables import TableFormat, images_table
from prunedge.edge.inspect.widths import count_classes, counts_in_words, parse_width_classes
from prunedge.errors import DataError

TABLE = parse_width_classes("< 0.1, 0.1-0.3, > 0.3")


def test_a_table_of_widths() -> None:
    assert TABLE.names == ("< 0.1", "0.1-0.3", "> 0.3")
    assert TABLE.limits == (0.1, 0.3)
    assert [TABLE.number(width) for width in (0, 0.099, 0.1, 0.29, 0.3, 7)] == [0, 0, 1, 1, 2, 2]
    assert parse_width_classes("0-0.5,>=0.5").limits == (0.5,)


@given(width=st.floats(0, 1), uncertainty=st.floats(0, 0.5))
def test_a_class_is_sure_where_no_limit_is_within_the_uncertainty(
    width: float, uncertainty: float
) -> None:
    inside = [limit for limit in TABLE.limits if width - uncertainty < limit <= width + uncertainty]
    assert TABLE.is_sure(width, uncertainty) == (not inside)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("< 0.1, 0.2-0.3, > 0.3", "leave a gap"),
        ("< 0.2, 0.1-0.3, > 0.3", "overlap"),
        ("> 0.3, 0.1-0.3, < 0.1", "give them from narrow to wide"),
        ("0.1-0.3, > 0.3", "below 0.1"),
        ("< 0.1, 0.1-0.3", "above 0.3"),
        ("< 0.1, 0.3-0.1, > 0.1", "is empty"),
        ("< 0.1", "from 2 to 8"),
        ("", "no class"),
        ("wide, narrow", "no class"),
        ("< 0,1, > 0,1", "is empty"),
        ("< nan, > nan", "no class"),
    ],
)
def test_tables_that_are_none(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_width_classes(text)
    assert "--width-classes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_regions_are_classed_by_their_largest_width_and_counted() -> None:
    near = {"largest_width_mm": 0.28, "largest_width_mm_uncertainty": 0.05}
    wide = {"largest_width_mm": 0.9, "largest_width_mm_uncertainty": 0.05}
    classed = [TABLE.of_region(region, "mm") for region in (near, wide)]
    assert classed == [
        {"width_class": "0.1-0.3", "width_class_is_sure": False},
        {"width_class": "> 0.3", "width_class_is_sure": True},
    ]
    assert TABLE.of_region({"largest_width_px": 3.0}, "mm") == {}  # no scale was found
    assert "not measured" not in counts_in_words([{"regions": classed}], TABLE.names)
    told = counts_in_words([{"regions": [*classed, {"largest_width_px": 3.0}]}], TABLE.names)
    assert "> 0.3: 1, not measured: 1" in told
    records = [{"regions": [*classed, {}]}]
    assert count_classes(records, TABLE.names) == ({"< 0.1": 0, "0.1-0.3": 1, "> 0.3": 1}, 1)
    assert "1 of them within" in counts_in_words(records, TABLE.names)


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.3149, 0.0521, "0.31 ± 0.05"),
        (14.23, 1.13, "14.2 ± 1.1"),
        (1234.5, 96.0, "1,230 ± 100"),
        (2.5, 0.0, "2.5"),
        (3.0, 0.196, "3.00 ± 0.20"),
    ],
)
def test_measures_in_words(value: float, uncertainty: float, text: str) -> None:
    assert with_uncertainty(value, uncertainty) == text


@given(value=st.floats(0, 1e4), uncertainty=st.floats(1e-6, 1e3))
def test_rounding_keeps_the_uncertainty(value: float, uncertainty: float) -> None:
    shown, told = (
        float(part.replace(",", "")) for part in with_uncertainty(value, uncertainty).split(" ± ")
    )
    assert told == pytest.approx(uncertainty, rel=0.26)
    assert abs(shown - value) <= 0.51 * uncertainty
    assert np.isfinite(shown)


def test_a_region_in_words() -> None:
    region = {f"{name}_px": 3.0 for name in ("length", "mean_width", "largest_width")}
    region |= {f"{name}_px_uncertainty": 0.8 for name in ("length", "mean_width", "largest_width")}
    told = measures_in_words({**region, "width_class": "> 2", "width_class_is_sure": False})
    assert (
        told
        == "3.0 ± 0.8 px long, 3.0 ± 0.8 px wide, at most 3.0 ± 0.8 px (class > 2, or the one beside it)"
    )
    assert measures_in_words({}) == ""


def test_images_csv_counts_what_was_not_measured() -> None:
    classed = {"label": "crack", "width_class": "> 0.3", "width_class_is_sure": True}
    record = {"name": "a.png", "position": None, "notes": [], "regions": [classed, classed]}
    record["regions"].append({"label": "crack"})
    table = images_table([record], [], TableFormat(), TABLE.names).decode("utf-8-sig")
    names, cells = (line.split(",") for line in table.splitlines())
    row = dict(zip(names, cells, strict=True))
    assert (row["regions"], row["width > 0.3"], row["width not measured"]) == ("3", "2", "1")
