"""Names of files, classes and models from strangers: never what a terminal obeys, and never one name for two things."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunedge.cli.app import main
from prunedge.edge.agent.broker import is_here, parse_broker
from prunedge.edge.agent.watch import Folder, stamp_of
from prunedge.edge.inspect.items import file_stamp, printable, shown_path
from prunedge.edge.inspect.sources import open_source
from prunedge.edge.logs import MOST, Repeats
from prunedge.utils.sanitize import Lines, shown
from tests.edge.made_bundles import write_convolutional

CLEAR = "\x1b[2J\x1b]0;owned\x07"  # clears a terminal and names its window
HOSTILE = [
    f"a{CLEAR}.png",
    "b\n- forged line.png",
    "c[/red][bold].png",
    "d\u202egnp.png",
    "e\udcff.png",
    "f\x9b31m.png",
]
ALIKE = [
    ("a\x1b.png", "a\\x1b.png"),
    ("u\u0308.png", "\u00fc.png"),
    ("\u212b.png", "\u00c5.png"),
    ("a\n.png", "a\\n.png"),
    ("a\udcff.png", "a\\udcff.png"),
    ("x" * 240 + ".png", "x" * 241 + ".png"),
    ("\u1100\u1161.png", "\uac00.png"),
]


def write(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    with open(path, "wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@pytest.mark.parametrize("names", ALIKE)
def test_two_names_that_print_the_same_are_shown_apart(names: tuple[str, str]) -> None:
    first, second = map(printable, names)
    assert unicodedata.normalize("NFC", first) != unicodedata.normalize("NFC", second)
    assert first.isprintable()
    assert second.isprintable()
    assert len(first.encode()) <= 200


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_no_two_names_are_shown_alike(first: str, second: str) -> None:
    if first != second:
        assert unicodedata.normalize("NFC", printable(first)) != unicodedata.normalize(
            "NFC", printable(second)
        )


def test_usual_names_stay_as_they_are() -> None:
    for name in ("IMG_0017.jpg", "Brücke 7 (Nord).jpg", "橋.png", "50%.png", "a~b.png"):
        assert printable(name) == name
    assert shown_path("nord/Brücke.jpg") == "nord/Brücke.jpg"
    assert len(shown_path("x" * 150 + "/" + "/".join(["y" * 150] * 40)).encode()) <= 2000


@pytest.mark.parametrize("names", ALIKE[:5])
def test_both_are_inspected_and_reported(names: tuple[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(names):
        write(tmp_path / "images" / name, seed)
    folder = Folder(tmp_path / "images", 0.0)
    assert len({arrival.stamp.name for arrival in folder.arrivals()[0]}) == 2
    assert len({item.name for item in open_source(str(tmp_path / "images")).items}) == 2


def test_other_content_with_the_same_size_and_time_is_another_image(tmp_path: Path) -> None:
    image, other = tmp_path / "a.png", tmp_path / ".b.png"
    image.write_bytes(b"one")
    before = stamp_of(image, "a.png"), file_stamp(image)
    other.write_bytes(b"two")
    os.utime(other, ns=(image.stat().st_atime_ns, image.stat().st_mtime_ns))
    other.replace(image)
    assert image.stat().st_mtime_ns == before[0].mtime_ns
    assert stamp_of(image, "a.png") != before[0]
    assert file_stamp(image) != before[1]


def test_the_training_cache_sees_other_content_with_the_same_size_and_time(tmp_path: Path) -> None:
    from prunedge.data.cache import fingerprint

    image = tmp_path / "a.bmp"
    Image.new("RGB", (8, 8), "red").save(image)
    known, first = image.stat(), fingerprint([image], 8)
    Image.new("RGB", (8, 8), "blue").save(image)
    os.utime(image, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert image.stat().st_size == known.st_size
    assert fingerprint([image], 8) != first


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str, object]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return said.out, said.err, ended.value.code


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "cache"))
    # `main` sets up logging once for a process.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_check_prints_no_name_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")  # of `train`
    for label in (f"crack{CLEAR}", "sound[/red]"):
        for number, name in enumerate(HOSTILE * 3):
            write(tmp_path / "data" / label / f"{number}{name}", number)
        (tmp_path / "data" / label / f"bad{CLEAR}\n.png").write_bytes(b"no image")
    out, err, code = run(capsys, "check", tmp_path / "data", "--size", 16)
    assert code == 0, (out, err)
    assert is_harmless(out), (out, err)
    assert is_harmless(err), (out, err)
    assert "sound[/red]" in out
    assert "\\x1b[2J" in out
    assert "\n- forged" not in out
    out, err, code = run(
        capsys,
        "train",
        tmp_path / "data",
        "--model",
        "resnet18",
        "--size",
        16,
        "--out",
        tmp_path / "run",
    )
    assert code == 2, err
    assert is_harmless(err), err
    assert len(err.splitlines()) == 1, err
    assert "bad\\x1b" in err, err


def test_inspect_prints_and_writes_no_name_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_convolutional(
        tmp_path / "bundle", model=f"net{CLEAR}", classes=["crack", f"sound{CLEAR}[/b]"]
    )
    for number, name in enumerate(HOSTILE):
        write(tmp_path / f"images{CLEAR}" / name, number)
    (tmp_path / f"images{CLEAR}" / f"bad{CLEAR}.png").write_bytes(b"no image")
    out, err, code = run(
        capsys,
        "inspect",
        bundle,
        tmp_path / f"images{CLEAR}",
        "--out",
        tmp_path / "found",
        "--damage",
        "crack",
        "--threshold",
        0.1,
    )
    assert code == 0, (out, err)
    assert is_harmless(out), (out, err)
    assert is_harmless(err), (out, err)
    for file in (tmp_path / "found").rglob("*"):
        assert file.name.isprintable()
        if file.suffix in (".html", ".csv", ".json"):
            assert is_harmless(file.read_text(encoding="utf-8-sig")), file


@pytest.mark.parametrize(
    "verb",
    [
        "show",
        "report",
        "export",
        "bench",
        "inspect",
        "agent",
        "check",
        "train",
        "prune",
        "audit",
        "patches",
    ],
)
def test_no_verb_s_error_holds_what_a_terminal_obeys(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb not in ("bench", "inspect", "agent", "check", "patches"):
        pytest.importorskip("torch")
    more = {
        "export": ["--out", tmp_path / "x"],
        "inspect": [tmp_path],
        "agent": ["--watch", tmp_path, "--broker", "mqtt://h", "--topic", "t"],
        "train": ["--model", "resnet18", "--out", tmp_path / "x"],
        "prune": ["--model", "resnet18", "--out", tmp_path / "x"],
        "patches": [tmp_path / f"m{CLEAR}", "--out", tmp_path / "x", "--size", 16],
    }
    _, err, code = run(capsys, verb, tmp_path / f"none{CLEAR}\n[/red]\udcff", *more.get(verb, []))
    assert code == 2, err
    assert is_harmless(err), err
    assert len(err.splitlines()) == 1, err
    assert "\\x1b[2J" in err, err


def test_log_lines_hold_nothing_that_a_terminal_obeys() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (f"a{CLEAR}\nb",), None)
    assert Lines().format(record) == "a\\x1b[2J\\x1b]0;owned\\x07\\nb"
    assert shown("a\tb\n\x07", keep="\n") == "a\\tb\n\\x07"


def test_a_thousand_different_warnings_are_thirty_lines_a_minute() -> None:
    clock, told = [0.0], []
    repeats = Repeats(lambda: clock[0])
    for number in range(1000):
        clock[0] = number * 0.12  # two minutes
        record = logging.LogRecord(
            "x", logging.WARNING, "", 0, "no room for %s", (f"{number}.png",), None
        )
        if repeats.filter(record):
            told.append(record.getMessage())
    assert MOST <= len(told) <= 2 * MOST
    assert f"470 other warnings, more than {MOST} in a minute" in " ".join(told), told


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", 1), ("127.0.0.1", 1), ("127.9.9.9", 1), ("::1", 1), ("10.0.0.1", 0), ("h", 0)],
)
def test_a_password_leaves_this_machine_only_encrypted_or_with_a_word(host: str, here: int) -> None:
    name = f"[{host}]" if ":" in host else host
    assert is_here(host) == bool(here)
    assert parse_broker(f"mqtt://me@{name}", password="x").tells_password() == (not here)
    assert not parse_broker(f"mqtts://me@{name}", password="x").tells_password()
    assert not parse_broker(f"mqtt://me@{name}").tells_password()
