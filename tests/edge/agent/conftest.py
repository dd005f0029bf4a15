"""What the agent's tests share: small bundles, small images, a broker, a certificate authority."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from prunedge.edge.agent import Agent, AgentSettings, parse_broker
from prunedge.edge.inspect import Settings
from tests.edge.agent.mosquitto import Mosquitto, Subscriber
from tests.edge.made_bundles import write_convolutional
from tests.tampering import reseal_bundle

CLASSES = ["crack", "sound", "other"]
TOPIC = "site/bridge-7"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and another one of the same classes."""
    root = tmp_path_factory.mktemp("bundles")
    first = write_convolutional(root / "first", model="first", classes=CLASSES)
    return first, altered(first, root / "second", model="second")


def write_images(folder: Path, count: int, first: int = 0) -> list[str]:
    """Small images, each whole at once; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03d}.png" for number in range(first, first + count)]
    for number, name in enumerate(names, first):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f".{name}", "PNG")
        (folder / f".{name}").rename(folder / name)
    return names


def digest(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def altered(
    bundle: Path,
    target: Path,
    change: Callable[[Path], None] = lambda folder: None,
    **manifest: Any,
) -> Path:
    """A copy of a bundle, changed, whose manifest fits the changed files: one that lies about nothing but is not right."""
    shutil.copytree(bundle, target)
    change(target)
    reseal_bundle(target, lambda told: told.update(_merged(told, manifest)))
    return target


def _merged(told: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {**changes, "task": {**told["task"], **changes.get("task", {})}}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    started = Mosquitto(tmp_path / "broker").start()
    yield started
    started.kill()


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    started = Subscriber(broker)
    yield started
    started.close()


@pytest.fixture
def settings(tmp_path: Path, bundles: tuple[Path, Path]) -> AgentSettings:
    """An agent's settings that wait for nothing; the broker is to be filled in."""
    (tmp_path / "images").mkdir()
    return AgentSettings(
        bundle=bundles[0],
        watch=str(tmp_path / "images"),
        broker=parse_broker("mqtt://127.0.0.1:1"),
        topic=TOPIC,
        state=tmp_path / "state",
        device="b7",
        inspection=Settings(damage=("crack",)),
        every=0.05,
        settle=0.0,
        backoff=(0.05, 0.2),
    )


class Running:
    """An agent in a thread."""

    def __init__(self, settings: AgentSettings, **changes: Any) -> None:
        self.agent = Agent(replace(settings, **changes))
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.agent.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), self.error
        assert self.error is None, self.error


class Authority:
    """A certificate authority, and certificates for 127.0.0.1 that it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._sign(self._name, self._key, is_authority=True))

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(self._sign(subject, key, is_authority=False))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "the tests' authority")
