"""The command itself, killed at any moment: no image is lost, none has two ids; and how it ends when it is asked to."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.agent.database import FILE
from tests.edge.agent.conftest import TOPIC, digest, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for

IMAGES = 40


def command(
    bundle: Path,
    folder: Path,
    state: Path,
    broker: str,
    *more: object,
    damage: tuple[str, ...] = ("--damage", "crack"),
) -> list[str]:
    return [
        sys.executable,
        "-m",
        "prunedge",
        "agent",
        str(bundle),
        "--watch",
        str(folder),
        "--broker",
        broker,
        "--topic",
        TOPIC,
        "--state",
        str(state),
        "--device-id",
        "b7",
        "--every",
        "0.1",
        "--settle",
        "0",
        *damage,
        *map(str, more),
    ]


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def seen(state: Path) -> int:
    try:
        with sqlite3.connect(f"file:{state / FILE}?mode=ro", uri=True) as base:
            return base.execute("SELECT count(*) FROM seen").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_killed_at_random_moments_and_nothing_is_lost_or_told_twice(
    bundles: tuple[Path, Path],
    broker: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
) -> None:
    folder, state, chance = tmp_path / "images", tmp_path / "state", random.Random(7)
    folder.mkdir()
    for number in range(IMAGES):  # large enough that a kill meets some in the middle
        Image.fromarray(
            np.random.default_rng(number).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        ).save(folder / f"{number:03d}.png")
    broker.save()
    kills = 0
    while kills < 5 and seen(state) < IMAGES:
        before = seen(state)
        processes.append(
            subprocess.Popen(
                command(bundles[0], folder, state, broker.url), stderr=subprocess.DEVNULL, text=True
            )
        )
        wait_for(lambda before=before: seen(state) > before, "progress")
        if kills == 2:
            broker.kill()
        time.sleep(chance.uniform(0, 0.08))
        processes[-1].kill()
        processes[-1].wait()
        kills += 1
        if kills == 3:
            broker.start()
            wait_for(subscriber.client.is_connected, "the subscriber")
    assert kills >= 4
    done = subprocess.run(
        command(bundles[0], folder, state, broker.url, "--once"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(subscriber.findings()) >= IMAGES, "all findings")
    time.sleep(0.2)
    images = [found["image"] for found in subscriber.findings().values()]
    assert len(images) == len(set(images)) == IMAGES
    assert not subscriber.on("/errors")


def test_the_last_will_speaks_for_a_killed_agent(
    bundles: tuple[Path, Path],
    broker: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
) -> None:
    write_images(tmp_path / "images", 1)
    processes.append(
        subprocess.Popen(
            command(bundles[0], tmp_path / "images", tmp_path / "state", broker.url),
            stderr=subprocess.DEVNULL,
        )
    )
    wait_for(lambda: subscriber.on("/status") and subscriber.findings(), "the agent")
    assert subscriber.on("/status")[-1]["state"] == "online"
    processes[-1].kill()
    wait_for(lambda: subscriber.on("/status")[-1]["state"] == "offline", "the last will")
    assert subscriber.on("/status")[-1]["reason"] == "connection lost"


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_asked_to_end_it_delivers_and_says_so(
    how: signal.Signals,
    code: int,
    bundles: tuple[Path, Path],
    broker: Mosquitto,
    subscriber: Subscriber,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
) -> None:
    """As systemd starts and stops it: it says when it is ready, that it lives, and that it stops."""
    write_images(tmp_path / "images", 3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(60)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "STATE_DIRECTORY": str(tmp_path / "own"),
            "JOURNAL_STREAM": "1",
        }
        arguments = command(bundles[0], tmp_path / "images", tmp_path / "state", broker.url)
        del arguments[arguments.index("--state") : arguments.index("--state") + 2]
        processes.append(
            subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
        )
        assert notices.recv(100) == b"READY=1"
        assert notices.recv(100) == b"WATCHDOG=1"
        wait_for(lambda: len(subscriber.findings()) == 3, "findings")
        processes[-1].send_signal(how)
        _, told = processes[-1].communicate(timeout=60)
        while (notice := notices.recv(100)) == b"WATCHDOG=1":
            pass
        assert notice == b"STOPPING=1"
    assert processes[-1].returncode == code, told
    wait_for(lambda: subscriber.on("/status")[-1]["state"] == "offline", "the goodbye")
    assert subscriber.on("/status")[-1]["reason"] == "stopped"
    lines = told.strip().splitlines()
    assert lines[0].startswith(
        f"bundle {digest(bundles[0])[:12]} (first; crack, sound, other), watching "
    )
    assert any(line.startswith("000.png: ") for line in lines)
    assert "ended; all messages are delivered" in lines
    assert (tmp_path / "own" / FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"--broker": "mqtt://user:secret@host"}, "--password-file"),
        ({"--broker": "http://host"}, "mqtts://USER@HOST"),
        ({"--broker": "mqtts://"}, "mqtts://USER@HOST"),
        ({"--broker": "mqtt://host:port"}, "mqtts://USER@HOST"),
        ({"--broker": "mqtt://host", "--ca": "ca.pem"}, "mqtts://"),
        ({"--broker": "mqtts://host", "--ca": "/nowhere.pem"}, "/nowhere.pem"),
        ({"--broker": "mqtts://host", "--cert": "/nowhere.pem"}, "/nowhere.pem"),
        ({"--broker": "mqtts://host", "--key": "/nowhere.pem"}, "--cert"),
        ({"--password-file": "/nowhere"}, "/nowhere"),
        ({"--topic": "site/#"}, "wildcard"),
        ({"--watch": "/nowhere"}, "/nowhere"),
        ({"--damage": "rust"}, "rust"),
        ({"--threshold": "7"}, "--threshold"),
        ({"--model-topic": "site/models"}, "--model-from"),
        ({"--model-topic": "site/models", "--model-from": "models"}, "absolute"),
        ({"--model-topic": "site/models", "--model-from": "http://models.example"}, "https"),
        ({"--device-id": "bridge 7"}, "--device-id"),
        ({"BUNDLE": "/nowhere"}, "not a bundle"),
        ({"--frobnicate": "1"}, "--frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: dict[str, str],
    words: str,
    bundles: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prunedge.cli.app import main

    good = {
        "--watch": str(tmp_path),
        "--broker": "mqtt://127.0.0.1:1",
        "--topic": TOPIC,
        "--state": str(tmp_path / "state"),
        "--damage": "crack",
    }
    bundle = arguments.get("BUNDLE", str(bundles[0]))
    options = {**good, **{key: value for key, value in arguments.items() if key != "BUNDLE"}}
    with pytest.raises(SystemExit) as ended:
        main(["agent", bundle, *(word for pair in options.items() for word in pair)])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert "secret" not in said.err
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert said.err.startswith("error: "), said.err
    assert words in said.err, said.err


def test_without_paho_the_extra_is_named(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('paho', 'torch', 'cryptography', 'cv2'): sys.modules[name] = None\n"
        "from prunedge.cli.app import main\n"
        f"main(['agent', {str(bundles[0])!r}, '--watch', '/', '--broker', 'mqtt://h', '--topic', 't', '--state', {str(tmp_path)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'prunedge[agent]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
