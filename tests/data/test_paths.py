"""Paths, URLs and patterns as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.data.paths import absolute, expand, written
from prunedge.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("x.tar", ["x.tar"]),
        ("t-{0..2}.tar", ["t-0.tar", "t-1.tar", "t-2.tar"]),
        ("t-{008..010}.tar", ["t-008.tar", "t-009.tar", "t-010.tar"]),
        ("t-{2..0}.tar", ["t-2.tar", "t-1.tar", "t-0.tar"]),
        ("{train,val}/{0..1}.tar", ["train/0.tar", "train/1.tar", "val/0.tar", "val/1.tar"]),
        ("s3://b/{a,}.tar", ["s3://b/a.tar", "s3://b/.tar"]),
    ],
)
def test_braces(pattern: str, places: list[str]) -> None:
    assert expand(pattern) == places


@pytest.mark.parametrize(
    "pattern",
    [
        "t-{0..2.tar",
        "t-0}.tar",
        "{a,{b,c}}.tar",
        "{x}.tar",
        "{}.tar",
        "{0..x}.tar",
        "{0..9..2}.tar",
    ],
)
def test_braces_that_mean_nothing(pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        expand(pattern)
    assert pattern in str(caught.value)
    assert "{000..012}" in str(caught.value)


def test_a_pattern_of_too_many_shards_is_refused_before_it_is_made() -> None:
    with pytest.raises(DataError, match="more than 100,000 shards"):
        expand("{0..9999999999}.tar")
    with pytest.raises(DataError, match="more than 100,000 shards"):
        expand("{0..999}{0..999}{0..999}.tar")


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 6), st.text("ab/-.", max_size=5))
def test_every_number_of_a_range_is_there_once(
    first: int, last: int, width: int, text: str
) -> None:
    found = expand(f"{text}{{{first:0{width}d}..{last:0{width}d}}}.tar")
    numbers = [int(place[len(text) : -len(".tar")]) for place in found]
    assert sorted(numbers) == list(range(min(first, last), max(first, last) + 1))
    assert numbers[0] == first
    assert numbers[-1] == last
    if len(str(max(first, last))) < width:
        assert {len(place) for place in found} == {len(text) + width + len(".tar")}


@given(
    st.sampled_from(["s3", "gs", "https", "memory", "simplecache::s3"]),
    st.lists(st.text("ab1-_{}.,", min_size=1), min_size=1),
)
def test_a_url_survives_path(scheme: str, parts: list[str]) -> None:
    url = f"{scheme}://" + "/".join(part.strip(".") or "x" for part in parts)
    assert written(Path(url)) == written(url) == url == absolute(url)


def test_local_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    assert written(Path("a/b.png")) == "a/b.png"
    assert written(tmp_path / "x.tar" / "1.png") == f"{tmp_path}/x.tar/1.png"
    assert written("file:///data/x.tar") == written(Path("file:///data/x.tar")) == "/data/x.tar"
    assert absolute("t-{0..1}.tar") == str(here / "t-{0..1}.tar")
    assert absolute("../t-{0..1}.tar", tmp_path / "a") == str(tmp_path / "t-{0..1}.tar")
    # A hub's cache: the link says that it is a shard, the file doesn't.
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "x.tar").symlink_to(tmp_path / "blob")
    assert absolute("x.tar") == str(here / "x.tar")
