"""Videos and cameras, through a real OpenCV and a real stream."""

from __future__ import annotations

import functools
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.results import Record, Results, open_results
from prunedge.edge.inspect.runner import describe, inspect_source
from prunedge.edge.inspect.settings import Settings
from prunedge.edge.inspect.sources import open_source
from prunedge.edge.session import Session
from prunedge.errors import DataError
from tests.edge.inspect.conftest import wall
from tests.edge.inspect.test_results import COMMAND, inspect

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds at ten frames a second; from the third second on there is a crack."""
    file = tmp_path_factory.mktemp("video") / "drive.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    for frame in range(50):
        image = wall(160, 120, ((40, 20, 60, 100),) if frame >= 30 else ())
        writer.write(np.asarray(image)[..., ::-1].copy())
    writer.release()
    return file


def test_frames_of_a_video_have_their_time(bundle: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = inspect(bundle, video, "--patch", 40, "--out", out, "--json")
    assert ended.returncode == 0, ended.stderr
    images = {image["name"]: image for image in json.loads(ended.stdout)["images"]}
    assert sorted(images) == [f"drive.avi@00-00-0{second}.000" for second in range(5)]
    assert [images[name]["time_s"] for name in sorted(images)] == [0, 1, 2, 3, 4]
    assert [bool(images[name]["regions"]) for name in sorted(images)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert (out / "drive.avi@00-00-03.000.overlay.jpg").is_file()
    assert "3.0" in (out / "findings.csv").read_text()
    again = inspect(bundle, video, "--patch", 40, "--out", out)
    assert "5 of them by an earlier run" in again.stdout


def test_every_and_frames(video: Path) -> None:
    times = [item.about["time_s"] for item in open_source(str(video), every=0.25).items]
    assert times == pytest.approx(
        [
            0,
            0.3,
            0.5,
            0.8,
            1.0,
            1.3,
            1.5,
            1.8,
            2.0,
            2.3,
            2.5,
            2.8,
            3.0,
            3.3,
            3.5,
            3.8,
            4.0,
            4.3,
            4.5,
            4.8,
        ]
    )
    whole = open_source(str(video), every=0)
    assert whole.total == 50
    assert len(list(whole.items)) == 50
    assert not whole.problems
    few = open_source(str(video), every=1, frames=2)
    assert few.total == 2
    assert len(list(few.items)) == 2
    assert not few.problems


def test_what_is_no_video(tmp_path: Path, video: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataError, match="can't be read as a video"):
        open_source(str(tmp_path / "text.mp4"))
    with pytest.raises(DataError, match="no such video"):
        open_source(str(tmp_path / "none.mp4"))
    (tmp_path / "cut.avi").write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    cut = open_source(str(tmp_path / "cut.avi"))
    assert 1 <= len(list(cut.items)) <= 3


@pytest.fixture
def stream(video: Path) -> Iterator[str]:
    """The video as a camera in the network."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(video.parent))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}/{video.name}"
    server.shutdown()


def test_a_camera_ends_after_its_frames_and_tells_no_password(
    bundle: Path, stream: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = inspect(
        bundle, stream, "--patch", 40, "--every", 0, "--frames", 3, "--out", out, "--json"
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert len(told["images"]) == 3
    assert not told["skipped"]
    assert all(image["taken"].endswith("Z") for image in told["images"])
    assert len(list(out.glob("*.overlay.jpg"))) == 3
    everything = (
        ended.stdout
        + ended.stderr
        + (out / "inspection.html").read_text()
        + (out / "inspection.json").read_text()
    )
    assert "secret" not in everything
    assert "127.0.0.1" in everything


def test_ctrl_c_ends_a_camera_with_its_page(bundle: Path, stream: str, tmp_path: Path) -> None:
    # A frame, then a long wait for the next: what a slow camera does.
    out, command = (
        tmp_path / "out",
        [
            *COMMAND,
            str(bundle),
            stream,
            "--patch",
            "40",
            "--every",
            "0",
            "--out",
            str(tmp_path / "out"),
        ],
    )
    code = (
        "import sys, time\nfrom prunedge.edge.inspect import runner as run\nopen_photo = run.open_photo\n"
        "run.open_photo = lambda *given: (time.sleep(0.3), open_photo(*given))[1]\nfrom prunedge.cli.app import main\nmain(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not list(out.glob("*@*.json")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    assert re.search(r"\d+ images? inspected", said)
    assert (out / "inspection.html").is_file()


def test_an_image_whose_files_are_there_counts_when_ctrl_c_comes_right_after(
    session: Session, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Results.keep

    def interrupted(results: Results, item: Item, *given: Any) -> Record:
        keep(results, item, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "keep", interrupted)
    source = open_source(stream, every=0)
    settings = Settings(patch=40).fitted(session.bundle.manifest)
    about = describe(session.bundle, source, settings, {})

    with open_results(tmp_path / "out", about) as results:
        outcome = inspect_source(
            source, session, settings, results, advance=lambda *_: None, tell=lambda _: None
        )

    assert [record["name"] for record in outcome.records] == [
        file.stem for file in (tmp_path / "out").glob("*@*.json")
    ]
    assert len(outcome.records) == 1
    assert (tmp_path / "out" / "inspection.html").is_file()


def test_a_camera_that_is_not_there_is_one_line(bundle: Path) -> None:
    for camera in ("camera:97", "/dev/video97", "rtsp://127.0.0.1:9/none"):
        ended = inspect(bundle, camera)
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        assert ended.returncode == 2, ended.stderr
        assert lines == [
            line for line in lines if line.startswith("error: the camera can't be opened")
        ], ended.stderr


def test_without_opencv_the_extra_is_named(bundle: Path) -> None:
    code = f"import sys\nsys.modules['cv2'] = None\nfrom prunedge.cli.app import main\nmain(['inspect', {str(bundle)!r}, 'camera:0'])\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "pip install 'prunedge[video]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
