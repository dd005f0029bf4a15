"""The command on folders: files, tables, page; broken files skipped; gone on with after a kill."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunedge.cli.app import main
from prunedge.utils.files import is_ours
from tests.edge.image.test_photograph import gps, hostile
from tests.edge.inspect.conftest import wall
from tests.needs import program

COMMAND = [sys.executable, "-m", "prunedge", "inspect"]
LISTED = {"inspection.json", "inspection.html", "findings.csv", "images.csv"}
EVIL = 'a <img src=x onerror="document.title=1"> & #1%.png'


def inspect(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound, a little and much damaged photographs in subfolders, beside files that can't be read."""
    root = tmp_path_factory.mktemp("photos")
    (root / "east").mkdir()
    wall(200, 160).save(root / "wall.png")
    wall(200, 160, ((20, 20, 24, 60),)).save(root / "east" / "wall.png")
    wall(200, 160, ((20, 20, 180, 140),)).save(root / "east" / "wall.jpg", exif=gps())
    wall(90, 90, ((0, 0, 8, 8),)).save(root / EVIL)
    wall(30, 30).save(root / os.fsdecode(b"caf\xe9\n.png"))
    wall(30, 30).save(root / "=SUM(1).png")
    hostile(root)
    return root


@pytest.fixture(scope="module")
def done(
    bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("results") / "out"
    return out, inspect(bundle, photos, "--patch", 32, "--out", out, "--mm-per-pixel", 2, "--json")


def test_every_image_has_its_files_and_every_broken_one_a_line(
    done: tuple[Path, subprocess.CompletedProcess[str]], photos: Path
) -> None:
    out, ended = done
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    names = [image["name"] for image in told["images"]]
    assert names[:3] == ["east/wall.jpg", "east/wall.png", EVIL]
    assert {
        "wall.png",
        "caf\\udce9\\n.png",
        "=SUM(1).png",
    } < set(names)
    for name in names:
        kept = json.loads((out / f"{name}.json").read_text())
        assert kept == next(image for image in told["images"] if image["name"] == name)
        with (
            Image.open(out / f"{name}.overlay.jpg") as overlay,
            Image.open(out / f"{name}.map.png") as grey,
        ):
            assert max(overlay.size) <= 2000
            assert grey.mode == "L"
            assert grey.size == (kept["map"]["columns"], kept["map"]["rows"])
            values = np.asarray(grey)
        assert (values >= 128).any() == bool(kept["regions"])
    assert "damage: crack; sound: noncrack" in ended.stderr
    assert "Traceback" not in ended.stderr
    for name, words in {
        "bomb.png": "more than 200 megapixels",
        "truncated.jpg": "can't be decoded",
        "text.jpg": "not an image",
    }.items():
        lines = [line for line in ended.stderr.splitlines() if name in line]
        assert len(lines) == 1
        assert words in lines[0]
    assert len(told["skipped"]) == 7
    assert told["images_per_second"] > 0
    assert str(photos) not in json.dumps(told["skipped"])


def test_tables(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, ended = done
    images = json.loads(ended.stdout)["images"]
    with (out / "findings.csv").open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == sum(len(image["regions"]) for image in images)
    worst = images[0]["regions"][0]
    assert rows[0]["image"] == "east/wall.jpg"
    assert float(rows[0]["area_mm2"]) == worst["area"] * 4 == int(rows[0]["area"]) * 4
    assert float(rows[0]["latitude"]) == pytest.approx(51.92, abs=0.01)
    assert rows[1]["latitude"] == ""
    found = json.loads((out / "findings.geojson").read_text())
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == 1
    point = found["features"][0]
    assert point["geometry"]["coordinates"] == pytest.approx([4.475, 51.92014, 12.5], abs=1e-4)
    assert point["properties"]["image"] == "east/wall.jpg"
    assert point["properties"]["findings"] == images[0]["regions"]


def test_the_same_command_inspects_only_what_is_new(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "p", tmp_path / "p" / "out"
    shutil.copytree(photos / "east", images)
    command = (bundle, images, "--patch", 32, "--out", out)
    first = inspect(*command)
    assert first.returncode == 0, first.stderr
    assert "2 images inspected" in first.stdout, first.stderr
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.jpg.*")}
    wall(40, 40).save(images / "new.png")
    wall(200, 160).save(images / "wall.png")
    again = inspect(*command)
    assert "3 images inspected" in again.stdout, again.stderr
    assert "1 of them by an earlier run" in again.stdout, again.stderr
    assert before
    assert before == {file: file.stat().st_mtime_ns for file in out.glob("*.jpg.*")}
    assert "earlier run" not in inspect(*command, "--threshold", 0.6).stdout
    (out / "new.png.overlay.jpg").unlink()
    assert "2 of them by an earlier run" in inspect(*command, "--threshold", 0.6).stdout


def test_a_killed_inspection_goes_on(bundle: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "p", tmp_path / "out"
    images.mkdir()
    for number in range(60):
        wall(400, 300, ((number, 20, number + 30, 40),)).save(images / f"{number:02d}.jpg")
    command = [*map(str, (*COMMAND, bundle, images, "--patch", 32, "--out", out, "--json"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(out.glob("*.json"))) < 5 and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {file.name for file in out.glob("*.jpg.json")}
    assert 4 <= len(finished) < 60
    before = {name: (out / name).stat().st_mtime_ns for name in finished}
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert len(json.loads(again.stdout)["images"]) == 60
    assert before == {name: (out / name).stat().st_mtime_ns for name in finished}
    assert not [file for file in out.rglob("*") if is_ours(file.name)]


def test_a_image_that_the_machine_can_t_read_now_is_told_by_the_exit_code_and_done_by_the_next_run(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(3):
        (tmp_path / "p").mkdir(exist_ok=True)
        wall(40, 40, seed=number).save(tmp_path / "p" / f"{number}.png")
    command = [
        "inspect",
        *map(str, (bundle, tmp_path / "p", "--patch", 32, "--out", tmp_path / "out")),
    ]
    real = Image.open

    def opened(file: Any, *arguments: Any, **named: Any) -> Any:
        if str(file).endswith("1.png"):
            raise MemoryError
        return real(file, *arguments, **named)

    with monkeypatch.context() as trouble:
        trouble.setattr(Image, "open", opened)
        with pytest.raises(SystemExit) as ended:
            main(command)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "2 images inspected" in said.out
    assert "not enough memory" in said.err.splitlines()[-1]
    assert "1.png" in said.err.splitlines()[-1]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    assert "3 images inspected" in capsys.readouterr().out


HOLDER = """
import sys
from pathlib import Path
from prunedge.edge.inspect.results import open_results
with open_results(Path(sys.argv[1]), {"bundle": {"sha256": "0"}, "settings": {}}):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "of an earlier inspection"])
def test_a_second_inspection_into_one_folder_is_refused_while_the_first_writes(
    bundle: Path, photos: Path, tmp_path: Path, is_there: bool
) -> None:
    out = tmp_path / "out"
    command = (bundle, photos / "wall.png", "--patch", 32, "--out", out)
    if is_there:
        assert inspect(*command).returncode == 0
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        before = {file: file.read_bytes() for file in out.iterdir()}
        ended = inspect(*command)
        assert ended.returncode == 2
        assert f"error: process {first.pid} (since " in ended.stderr
        assert f"is writing this inspection ({out}): wait until it has ended" in ended.stderr
        assert {file: file.read_bytes() for file in out.iterdir()} == before
        first.kill()
    assert inspect(*command).returncode == 0
    assert not [file for file in out.iterdir() if is_ours(file.name)]


def test_one_photograph_prints_its_regions(bundle: Path, photos: Path) -> None:
    ended = inspect(bundle, photos / "east" / "wall.png", "--patch", 32)
    assert ended.returncode == 0
    assert "crack" in ended.stdout
    assert "damage: crack; sound: noncrack" in ended.stdout
    assert "images a second" in ended.stdout


def test_it_runs_without_torch_and_without_opencv(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    absent = (
        "torch",
        "torchvision",
        "timm",
        "scipy",
        "sklearn",
        "safetensors",
        "onnx",
        "plotly",
        "cv2",
    )
    code = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nfrom prunedge.cli.app import main\nmain(sys.argv[1:])\n"
    command = [
        sys.executable,
        "-c",
        code,
        "inspect",
        bundle,
        photos / "wall.png",
        "--out",
        tmp_path / "out",
    ]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "inspection.html").is_file(), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("BUNDLE", "/nowhere"), "no such image"),
        (("/nowhere", "PHOTO"), "not a bundle"),
        (("BUNDLE", "BROKEN"), "not an image of a known format"),
        (("BUNDLE", "BROKEN", "--out", "NEW"), "not an image of a known format"),
        (("BUNDLE", "BROKENS"), "none of 7 images"),
        (("BUNDLE", "BROKENS", "--out", "NEW"), "none of 7 images"),
        (("BUNDLE", "EMPTY"), "no images to inspect"),
        (("BUNDLE", "PHOTO", "--out", "OTHER"), "something else than an inspection"),
        (("BUNDLE", "PHOTO", "--damage", "rust"), "no class 'rust'"),
        (("BUNDLE", "PHOTO", "--overlap", "1"), "--overlap"),
        (("BUNDLE", "PHOTO", "--every", "2"), "--every"),
        (("BUNDLE", "PHOTO", "--threads", "-1"), "--threads"),
        (("BUNDLE", "PHOTO", "--max-megapixels", "0.001"), "--max-megapixels"),
        (
            ("BUNDLE", "PHOTO", "--patch", "1", "--overlap", "0", "--out", "/proc/none"),
            "/proc/none",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], words: str, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    hostile(tmp_path / "broken")
    (tmp_path / "empty").mkdir()
    places = {
        "BUNDLE": bundle,
        "PHOTO": photos / "wall.png",
        "BROKEN": photos / "text.jpg",
        "BROKENS": tmp_path / "broken",
        "EMPTY": tmp_path / "empty",
        "OTHER": photos,
        "NEW": tmp_path / "new",
    }
    ended = inspect(*(places.get(word, word) for word in arguments))
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == "", ended.stderr
    lines = [
        line for line in ended.stderr.splitlines() if not line.startswith(("skipped", "damage"))
    ]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: "), ended.stderr
    assert words in lines[0], ended.stderr
    assert "BROKENS" in arguments or ended.stderr.count("\n") == 1
    # What is left is of use: a page that lists what could not be inspected, or nothing.
    left = {file.name for file in (tmp_path / "new").glob("*")}
    listed = ("BROKENS" in arguments) and "NEW" in arguments
    assert left == (LISTED if listed else set())
    assert listed or not (tmp_path / "new").exists()


def test_the_device_is_told_in_words(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    text = (done[0] / "inspection.html").read_text(encoding="utf-8")
    line = text.partition("<td>device</td><td>")[2].partition("</td>")[0]
    assert re.search(r"\d+ cores?,", line)
    assert "MB of memory" in line
    assert "[" not in line
    assert "&#x27;" not in line


def test_the_page_says_what_it_is_ordered_by(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    text = (done[0] / "inspection.html").read_text(encoding="utf-8")
    assert "if the map is right: area times mean probability, over all regions" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_offline(
    width: int, browser: object, done: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, _ = done
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)  # type: ignore[attr-defined]
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((out / "inspection.html").as_uri())
    assert page.title().startswith("Inspection of ")
    assert not said
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = page.locator("figcaption b").all_inner_texts()
    assert names == ["east/wall.jpg", "east/wall.png", EVIL]
    assert page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    for link in page.locator("a").all():
        address = link.evaluate("element => element.href")
        assert Path(
            page.evaluate(
                "decodeURIComponent(new URL(arguments0).pathname)".replace(
                    "arguments0", json.dumps(address)
                )
            )
        ).is_file()
    text = page.locator("main").inner_text()
    for words in (
        "bomb.png",
        "more than 200 megapixels",
        "Images per second",
        "darkest",
        "51.920139, 4.475000",
    ):
        assert words in text
    context.close()
