"""The agent for minutes against the world: thirty kills; a broker that is away, slow, dropping and full. Nothing lost, nothing doubled."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.agent import AgentSettings, parse_broker
from tests.edge.agent.conftest import Running, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, free_port, wait_for
from tests.edge.agent.test_kill import command, seen

KILLS = 30
IMAGES = 200

pytestmark = pytest.mark.slow


def test_thirty_kills_and_nothing_is_lost_or_told_twice(
    bundles: tuple[Path, Path], broker: Mosquitto, subscriber: Subscriber, tmp_path: Path
) -> None:
    folder, state, chance = tmp_path / "images", tmp_path / "state", random.Random(19)
    folder.mkdir()
    written = 0

    def write(count: int) -> None:
        nonlocal written
        for number in range(written, written + count):
            pixels = np.random.default_rng(number).integers(0, 256, (96, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f".{number:04d}.png")
            (folder / f".{number:04d}.png").rename(folder / f"{number:04d}.png")
        written += count

    broker.save()
    is_there = True
    for kill in range(KILLS):
        write(6)  # some arrive while it runs, some while it is dead
        before = seen(state)
        agent = subprocess.Popen(
            command(bundles[0], folder, state, broker.url), stderr=subprocess.DEVNULL
        )
        try:
            if kill % 3:  # in the middle of its work, or at any moment of its start
                wait_for(lambda before=before: seen(state) > before, "progress")
            time.sleep(chance.uniform(0, 0.3 if kill % 3 else 2.0))
            write(2)
            time.sleep(chance.uniform(0, 0.1))
        finally:
            agent.kill()
            agent.wait()
        if kill % 7 == 3:
            time.sleep(
                0.3
            )  # what a broker acknowledges and loses is beyond the agent: let it pass on what it has
            broker.kill() if is_there else broker.start()
            is_there = not is_there
    if not is_there:
        broker.start()
    wait_for(subscriber.client.is_connected, "the subscriber")
    done = subprocess.run(
        command(bundles[0], folder, state, broker.url, "--once"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(subscriber.findings()) >= written, "all findings")
    time.sleep(0.5)
    images = [found["image"] for found in subscriber.findings().values()]
    assert len(images) == len(set(images)) == written == KILLS * 8
    assert not subscriber.on("/errors")
    assert not [file for file in state.rglob("*") if file.name.startswith((".", "inspecting"))]


class Line:
    """A line to the broker that can be slow, cut and dead: `mode` says which."""

    def __init__(self, port: int) -> None:
        self.port, self.mode = free_port(), "well"
        self._to, self._stop, self._chance = port, Event(), random.Random(7)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0.1)
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                mine, _ = self._listener.accept()
            except OSError:
                continue
            try:
                if self.mode == "away":
                    raise ConnectionRefusedError
                theirs = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                mine.close()
                continue
            for pair in ((mine, theirs), (theirs, mine)):
                Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(64 if self.mode == "slow" else 4096):
                if self.mode == "away" or (self.mode == "dropping" and self._chance.random() < 0.1):
                    break
                if self.mode == "slow":
                    time.sleep(0.005)
                if self.mode == "dead":  # takes everything and passes nothing on
                    continue
                target.sendall(chunk)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def line(broker: Mosquitto) -> Iterator[Line]:
    made = Line(broker.port)
    yield made
    made.close()


def test_a_broker_that_is_away_slow_and_dropping_loses_nothing(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber, line: Line
) -> None:
    told = replace(settings, broker=parse_broker(f"mqtt://127.0.0.1:{line.port}"))
    names: list[str] = []
    with Running(told) as running:
        for turn, mode in enumerate(
            ("well", "away", "dropping", "slow", "away", "dropping", "well")
        ):
            line.mode = mode
            names += write_images(Path(told.watch), IMAGES // 7, first=len(names))
            so_far = len(names)
            wait_for(lambda so_far=so_far: seen(told.state) == so_far, f"all images, turn {turn}")
            time.sleep(0.5)
        line.mode = "well"
        wait_for(lambda: len(subscriber.findings()) == len(names), "all findings")
        assert running.agent.outbox.is_alive()
    assert sorted(found["image"] for found in subscriber.findings().values()) == sorted(names)
    assert not subscriber.on("/errors")


@pytest.mark.parametrize(
    "limits",
    [("max_inflight_messages 1",), ("max_inflight_bytes 2000",), ("message_size_limit 600",)],
    ids=str,
)
def test_a_broker_that_takes_little_at_a_time_loses_nothing(
    settings: AgentSettings, tmp_path: Path, limits: tuple[str, ...]
) -> None:
    """What is longer than it takes at all is kept; the rest arrives, in order."""
    full = Mosquitto(tmp_path / "full", *limits).start()
    try:
        subscriber = Subscriber(full)
        told = replace(settings, broker=parse_broker(full.url))
        names = write_images(Path(told.watch), 60)
        with Running(told) as running:
            wait_for(lambda: seen(told.state) == len(names), "all images")
            if limits[0].startswith("message_size_limit"):
                time.sleep(2.0)
                kept = running.agent._store.waiting()
                assert kept + len(subscriber.findings()) == len(names)
            else:
                wait_for(lambda: len(subscriber.findings()) == len(names), "all findings")
        subscriber.close()
    finally:
        full.kill()


def test_a_full_queue_leaves_images_where_they_are_until_the_broker_is_back(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber, line: Line
) -> None:
    line.mode = "away"
    told: Any = replace(
        settings, broker=parse_broker(f"mqtt://127.0.0.1:{line.port}"), queue_limit=10
    )
    names = write_images(Path(told.watch), 60)
    with Running(told) as running:
        wait_for(lambda: running.agent._store.waiting() == 10, "the full queue")
        time.sleep(0.5)
        assert seen(told.state) == 10
        line.mode = "well"
        wait_for(lambda: len(subscriber.findings()) == len(names), "all findings")
    assert sorted(found["image"] for found in subscriber.findings().values()) == sorted(names)
