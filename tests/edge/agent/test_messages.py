"""Messages and lines: what is said, with which id, and how often."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.edge.agent.database import Stamp
from prunedge.edge.agent.messages import REGIONS, Inspected, Topics, failure, finding, message_id
from prunedge.edge.agent.watch import Arrival
from prunedge.edge.bundle import Bundle
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.measure import Measures
from prunedge.edge.inspect.regions import Region
from prunedge.edge.inspect.scale import Scale
from prunedge.edge.logs import LONGEST, Repeats, one_line
from prunedge.edge.update.slots import LoadedBundle
from prunedge.errors import AgentError

TOPICS = Topics("site/b")
FOUND = Inspection(
    name="a.png",
    width=3,
    height=2,
    patches=4,
    damaged=2,
    regions=(),
    probability=0.9,
    map=np.full((1, 1), 0.5, dtype=np.float32),
    cell=4,
    patch=(3, 2),
    seconds=0.1,
    position=None,
)
REGION = Region(0, 0, 2, 1, "crack", 0.5, 0.5, 2)


def inspected(
    name: str = "a.png", image: str = "1" * 64, bundle: str = "2" * 64, **found: Any
) -> Inspected:
    return Inspected(
        Arrival(Path(name), Stamp(name, 10, 20)),
        image,
        LoadedBundle(Bundle(Path("b"), None), None, bundle),  # type: ignore[arg-type]
        replace(FOUND, **found),
    )


def test_a_finding_holds_what_was_found_and_not_the_map() -> None:
    message = finding(TOPICS, "b7", inspected())
    told = json.loads(message.payload)
    assert message.topic == "site/b/findings"
    assert told["id"] == message.id
    assert told["image"] == "a.png"
    assert (told["width"], told["damaged"], told["probability"]) == (3, 2, 0.9)
    assert not told["is_damaged"]
    assert not {"map", "name"} & set(told)
    assert told["time"].endswith("Z")


def test_an_id_depends_on_device_name_content_and_bundle_and_on_nothing_else() -> None:
    base = ("b7", "a.png", "1" * 64, "2" * 64)
    ids = set()
    for place in range(4):
        device, *about = (*base[:place], base[place] + "x", *base[place + 1 :])
        ids.add(finding(TOPICS, device, inspected(*about)).id)
    same = {
        finding(topics, "b7", inspected(*base[1:], probability=p)).id
        for topics in (TOPICS, Topics("t"))
        for p in (0.1, 0.2)
    }
    assert len(ids) == 4
    assert len(same) == 1
    assert not ids & same


@given(st.lists(st.text()), st.lists(st.text()))
def test_different_parts_never_share_an_id(first: list[str], second: list[str]) -> None:
    assert (message_id(*first) == message_id(*second)) == (first == second)


def test_a_message_never_grows_beyond_what_brokers_take() -> None:
    regions = tuple(replace(REGION, left=i, right=i + 2) for i in range(REGIONS + 7))
    told = json.loads(finding(TOPICS, "b7", inspected(regions=regions)).payload)
    assert told["is_damaged"]
    assert [region["left"] for region in told["regions"]] == list(range(REGIONS))
    assert told["regions_left_out"] == 7


def test_a_message_tells_measures_and_no_outline() -> None:
    outline = tuple((1234.56 + i, 2345.67 + i) for i in range(200))
    measures = Measures(1234.5678901234, 2.3456789012, 3.4567890123, 45.678901234, outline)
    region = replace(REGION, measures=measures)
    found = inspected(regions=(region,) * REGIONS, scale=Scale(0.123456789))
    payload = finding(TOPICS, "b7", found).payload
    for told in json.loads(payload)["regions"]:
        assert told["length_px"] == 1234.5678901234
        assert told["largest_width_mm"] > 0
        assert "polygon" not in told
    assert len(payload) < 128_000  # what some brokers take at most
    assert "polygon" in found.inspection.to_json()["regions"][0]


def test_what_is_no_number_is_never_published() -> None:
    with pytest.raises(ValueError, match="JSON"):
        finding(TOPICS, "b7", inspected(probability=float("nan")))


def test_a_failure_says_what_it_is_about_in_one_line() -> None:
    told = json.loads(failure(TOPICS, "b7", "image", "a\n\x1b[31m.png", "bad\nfile", "k").payload)
    assert (told["kind"], told["about"], told["error"]) == ("image", "a ?[31m.png", "bad file")


@pytest.mark.parametrize(
    "topic", ["", "a//b", "/a", "a/", "a/+", "#", "$SYS/a", "a\0b", "x" * 201, "a\nb"]
)
def test_topics_that_brokers_refuse_are_refused_before(topic: str) -> None:
    with pytest.raises(AgentError, match="site/bridge-7"):
        Topics(topic)


@given(st.text(alphabet=st.characters(), max_size=2 * LONGEST))
def test_a_line_is_printable_and_short(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= LONGEST
    line.encode("utf-8")


def test_the_same_warning_is_told_once_a_minute_with_its_number() -> None:
    clock, repeats, told = [0.0], None, []
    repeats = Repeats(lambda: clock[0])
    for second, level, line in [
        (0, 30, "a"),
        (1, 30, "a"),
        (2, 30, "b"),
        (3, 30, "a"),
        (61, 30, "a"),
        (62, 20, "i"),
        (63, 20, "i"),
    ]:
        clock[0] = second
        record = logging.LogRecord("x", level, "", 0, "%s", (line,), None)
        if repeats.filter(record):
            told.append(record.getMessage())
    assert told == ["a", "b", "a (and 2 times more since it was last said)", "i", "i"]
