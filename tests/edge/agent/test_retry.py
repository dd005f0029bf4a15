"""Images that fail for other reasons than their own, images that the agent dies over, and frames of a video."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.agent import Agent, AgentSettings, parse_broker
from prunedge.edge.agent import inspector as module
from prunedge.edge.agent.database import Stamp
from prunedge.edge.agent.retry import DEATHS, CrashGuard, RetryQueue
from prunedge.edge.agent.watch import Arrival
from prunedge.errors import AgentError, DataError
from tests.edge.agent.conftest import Running, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for

ARRIVAL = Arrival(Path("a.png"), Stamp("a.png", 1, 1))


def at(settings: AgentSettings, broker: Mosquitto) -> AgentSettings:
    return replace(settings, broker=parse_broker(broker.url))


def finish(settings: AgentSettings) -> BaseException | None:
    """Run with `once`; the error that it ended with."""
    running = Running(settings, once=True)
    running._thread.start()
    running._thread.join(60)
    return running.error


def test_a_image_is_given_up_after_three_deaths_in_a_row(tmp_path: Path) -> None:
    file = tmp_path / "inspecting.json"
    for _ in range(DEATHS):
        CrashGuard(file).accuse("a.png", "1")  # and the process dies
    with pytest.raises(DataError, match="died 3 times"):
        CrashGuard(file).accuse("a.png", "1")
    CrashGuard(file).accuse("a.png", "2")  # another content is another image


def test_deaths_over_different_images_condemn_none(tmp_path: Path) -> None:
    file = tmp_path / "inspecting.json"
    for i in range(20):
        CrashGuard(file).accuse(f"{i % 2}.png", "1")
    culprit = CrashGuard(file)
    culprit.accuse("0.png", "1")
    culprit.acquit()
    for _ in range(DEATHS):
        CrashGuard(file).accuse("0.png", "1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "a"}', '{"name": "a", "sha256": "b", "deaths": "x"}', "\xff"]
)
def test_a_note_that_a_death_cut_short_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "note").write_text(text, encoding="latin-1")
    CrashGuard(tmp_path / "note").accuse("a", "b")


def test_pauses_grow_and_a_changed_image_need_not_wait() -> None:
    postponed = RetryQueue(60.0)
    assert postponed.is_due(ARRIVAL)
    assert [postponed.add(ARRIVAL) for _ in range(3)] == [1, 2, 3]
    assert not postponed.is_due(ARRIVAL)
    assert postponed.is_due(Arrival(ARRIVAL.path, Stamp("a.png", 2, 1)))
    postponed.forget("a.png")
    assert postponed.is_due(ARRIVAL)
    assert not postponed


def test_a_image_that_killed_the_agent_is_reported_and_the_others_are_inspected(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    from prunedge.edge.bundle import sha256

    write_images(Path(settings.watch), 3)
    settings.state.mkdir()
    note = {"name": "001.png", "sha256": sha256(Path(settings.watch) / "001.png"), "deaths": DEATHS}
    (settings.state / "inspecting.json").write_text(json.dumps(note))
    assert finish(at(settings, broker)) is None
    wait_for(lambda: len(subscriber.findings()) == 2 and subscriber.on("/errors"), "the rest")
    assert [error["about"] for error in subscriber.on("/errors")] == ["001.png"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("a bug\nof ours"),
        OSError(5, "Input/output error"),
        AgentError("no"),
    ],
)
def test_trouble_that_is_not_the_image_s_is_told_and_tried_again(
    error: Exception,
    settings: AgentSettings,
    broker: Mosquitto,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, fails = module.inspect_image, [True]

    def sometimes(path: Path, *more: Any, **named: Any) -> Any:
        if path.name == "001.png" and fails:
            raise error
        return real(path, *more, **named)

    monkeypatch.setattr(module, "inspect_image", sometimes)
    write_images(Path(settings.watch), 3)
    ended = finish(at(settings, broker))
    assert isinstance(ended, AgentError)
    assert "1 image could not be inspected" in str(ended)
    wait_for(lambda: len(subscriber.findings()) == 2, "the others")
    fails.clear()
    assert finish(at(settings, broker)) is None
    wait_for(lambda: len(subscriber.findings()) == 3, "the last")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(5, "Input/output error"), OSError(24, "Too many open files")],
    ids=str,
)
def test_a_decoder_that_the_machine_fails_is_no_verdict_on_the_image(
    error: Exception,
    settings: AgentSettings,
    broker: Mosquitto,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, fails = Image.open, [True]

    def opened(file: Any, *more: Any, **named: Any) -> Any:
        if fails and str(file).endswith("001.png"):
            raise error
        return real(file, *more, **named)

    monkeypatch.setattr(Image, "open", opened)
    write_images(Path(settings.watch), 3)
    ended = finish(at(settings, broker))
    assert isinstance(ended, AgentError)
    assert "1 image could not be inspected" in str(ended)
    fails.clear()
    assert finish(at(settings, broker)) is None
    wait_for(lambda: len(subscriber.findings()) == 3, "all three")
    assert not subscriber.on("/errors")


def test_a_image_that_goes_while_it_is_looked_at_is_not_called_damaged(
    settings: AgentSettings,
    broker: Mosquitto,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = module.inspect_image
    write_images(Path(settings.watch), 2)

    def gone(path: Path, *more: Any, **named: Any) -> Any:
        if path.name == "001.png":
            path.unlink()
        return real(path, *more, **named)

    monkeypatch.setattr(module, "inspect_image", gone)
    assert finish(at(settings, broker)) is None
    wait_for(subscriber.findings, "the other")
    assert [found["image"] for found in subscriber.findings().values()] == ["000.png"]
    assert not subscriber.on("/errors")


def test_what_is_written_to_while_it_is_inspected_is_inspected_again(
    settings: AgentSettings,
    broker: Mosquitto,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, names = module.inspect_image, write_images(Path(settings.watch), 2)
    first, second = (Path(settings.watch) / name for name in names)

    def meanwhile(path: Path, *more: Any, **named: Any) -> Any:
        found = real(path, *more, **named)
        if second.exists():
            second.rename(first)
        return found

    monkeypatch.setattr(module, "inspect_image", meanwhile)
    with Running(at(settings, broker)):
        wait_for(subscriber.findings, "a finding")
    from prunedge.edge.bundle import sha256

    assert [found["image_sha256"] for found in subscriber.on("/findings")] == [sha256(first)]


@pytest.fixture
def video(tmp_path: Path) -> Callable[[int], Path]:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not here: pip install 'prunedge[video]'")

    def write(frames: int) -> Path:
        file = tmp_path / "video.avi"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
        for i in range(frames):
            writer.write(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8))
        writer.release()
        return file

    return write


def test_frames_are_reported_once_and_leave_the_disk(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber, video: Callable[[int], Path]
) -> None:
    watching = replace(at(settings, broker), watch=str(video(20)), every=0.1)
    assert finish(watching) is None
    wait_for(lambda: len(subscriber.findings()) == 20, "all frames")
    assert len(list((settings.state / "frames").iterdir())) <= 4
    assert finish(watching) is None
    assert len(subscriber.on("/findings")) == 20
    assert (
        sorted(found["image"] for found in subscriber.on("/findings"))[0]
        == "video.avi@00-00-00.000.png"
    )


def test_a_frame_that_was_taken_before_a_kill_is_reported_after_it(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber, video: Callable[[int], Path]
) -> None:
    write_images(settings.state / "frames", 2)
    half = settings.state / "frames" / ".prunedge-0a.new" / "000.png"
    half.parent.mkdir()
    half.write_bytes(b"half")
    assert finish(replace(at(settings, broker), watch=str(video(1)), every=0.1)) is None
    wait_for(lambda: len(subscriber.findings()) == 3, "the frames")
    assert not half.parent.exists()
    assert not subscriber.on("/errors")


@pytest.mark.parametrize("watch", ["camera:99", "no such video.mp4"])
def test_a_camera_that_is_not_there_is_one_line(
    watch: str, settings: AgentSettings, broker: Mosquitto
) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not here: pip install 'prunedge[video]'")
    ended = finish(replace(at(settings, broker), watch=watch))
    assert isinstance(ended, DataError)
    assert "\n" not in str(ended)


def test_a_password_that_goes_out_in_clear_is_told(
    settings: AgentSettings, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(replace(settings, broker=parse_broker("mqtt://me@192.0.2.1", password="secret")))
    agent.stop.set()
    with caplog.at_level(logging.INFO, "prunedge.agent"):
        agent.run()
    (line,) = [line for line in caplog.messages if "in clear" in line]
    assert "mqtts://" in line
    assert "secret" not in line


def test_on_a_full_disk_the_agent_waits_instead_of_trying_every_image(
    settings: AgentSettings,
    broker: Mosquitto,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def full(self: Any, stamp: Stamp, *_: Any) -> None:
        tried.append(stamp.name)
        raise AgentError(
            "the queue can't be used (database or disk is full)", remedy="make room on the disk"
        )

    monkeypatch.setattr(module.Store, "record", full)
    write_images(Path(settings.watch), 60)
    with Running(at(settings, broker), every=0.3):
        wait_for(lambda: len(tried) >= 3, "some tries")
        assert len(tried) <= 10  # one a look, not one an image
