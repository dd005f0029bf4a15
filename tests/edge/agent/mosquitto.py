"""Debian's Mosquitto, started, stopped and killed by tests, and a subscriber that notes what it is told."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.needs import program

PATIENCE_S = 60.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """Below those that the system gives to clients: while the broker is killed, none of them shall get its port."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                return port


class Mosquitto:
    """A broker with settings of its own that keeps sessions and messages in its folder, so that it can be killed and come back."""

    def __init__(self, folder: Path, *lines: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.folder = free_port(), folder
        self._config = folder / "mosquitto.conf"
        base = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            "user root",
            "max_queued_messages 100000",
        ]
        if not any(line.startswith("password_file") for line in lines):
            base.append("allow_anonymous true")
        self._config.write_text("\n".join([*base, *lines]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        log = (self.folder / "mosquitto.log").open("ab")
        self._process = subprocess.Popen(
            [program("mosquitto"), "-c", str(self._config)], stdout=log, stderr=log
        )
        wait_for(self._answers, "Mosquitto")
        return self

    def save(self) -> None:
        """Write sessions and retained messages to the disk, as it does by itself every half hour."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        wait_for((self.folder / "mosquitto.db").exists, "Mosquitto's file")
        time.sleep(0.1)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "mosquitto.log").read_text()
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Notes every message below `#` in order. Its session stays with the broker while it, or the broker, is away."""

    def __init__(
        self, broker: Mosquitto, prepare: Callable[[mqtt.Client], None] = lambda client: None
    ) -> None:
        self.messages: list[tuple[str, Any]] = []
        self._subscribed = Event()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id="subscriber", protocol=mqtt.MQTTv5
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._note
        prepare(self.client)
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", broker.port, clean_start=False, properties=kept)
        self.client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def _note(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            told = json.loads(message.payload)
        except ValueError:
            told = message.payload
        self.messages.append((message.topic, told))

    def on(self, end: str) -> list[Any]:
        """Payloads of the topics that end so."""
        return [payload for topic, payload in self.messages if topic.endswith(end)]

    def findings(self) -> dict[str, dict[str, Any]]:
        """By id: duplicates are dropped as a subscriber should."""
        return {found["id"]: found for found in self.on("/findings")}

    def publish(self, topic: str, payload: Any, retain: bool = False) -> None:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.client.publish(topic, text, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
