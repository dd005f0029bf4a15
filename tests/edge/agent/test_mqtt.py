"""The agent beside a real Mosquitto: what is published, and what happens when the broker goes, refuses or is not ours."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prunedge.edge.agent import AgentSettings, parse_broker
from prunedge.errors import AgentError
from tests.edge.agent.conftest import CLASSES, TOPIC, Authority, Running, digest, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for
from tests.needs import program


def at(settings: AgentSettings, broker: Mosquitto) -> AgentSettings:
    return replace(settings, broker=parse_broker(broker.url))


def images_of(subscriber: Subscriber) -> list[str]:
    return [found["image"] for found in subscriber.on("/findings")]


def test_findings_failures_and_status(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber, bundles: tuple[Path, Path]
) -> None:
    folder = Path(settings.watch)
    names = write_images(folder, 3)
    (folder / "truncated.png").write_bytes((folder / "000.png").read_bytes()[:300])
    with Running(at(settings, broker)) as running:
        wait_for(
            lambda: len(subscriber.on("/findings")) == 3 and subscriber.on("/errors"), "findings"
        )
        running.agent.outbox.status_changed()
        wait_for(lambda: subscriber.on("/status")[-1]["images"] == 4, "the status")
        names += write_images(folder, 1, first=3)
        wait_for(lambda: len(subscriber.on("/findings")) == 4, "the new image")
    assert images_of(subscriber) == sorted(
        names, key=lambda name: (folder / name).stat().st_mtime_ns
    )
    found = subscriber.on("/findings")[0]
    assert found["device"] == "b7"
    assert found["bundle_sha256"] == digest(bundles[0])
    assert 0 <= found["probability"] <= 1
    assert (found["width"], found["height"]) == (24, 16)
    assert found["is_damaged"] == bool(found["regions"])
    (failed,) = subscriber.on("/errors")
    assert failed["kind"] == "image"
    assert failed["about"] == "truncated.png"
    assert "decoded" in failed["error"]
    online = [told for told in subscriber.on("/status") if told["state"] == "online"]
    assert online[0]["bundle"] == {
        "sha256": digest(bundles[0]),
        "model": "first",
        "classes": CLASSES,
    }
    assert online[-1]["failed"] == 1
    assert "truncated.png" in online[-1]["last_error"]["error"]
    wait_for(lambda: subscriber.on("/status")[-1]["state"] == "offline", "the end")
    assert subscriber.on("/status")[-1]["reason"] == "stopped"
    late = Subscriber(broker, lambda client: setattr(client, "_client_id", b"late"))
    wait_for(lambda: late.on("/status"), "the retained status")
    assert late.on("/status")[0]["state"] == "offline"
    assert not late.on("/findings")
    late.close()


def test_a_second_start_tells_nothing_twice(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    write_images(Path(settings.watch), 5)
    for _ in range(2):
        with Running(at(settings, broker), once=True) as running:
            running._thread.join(60)
    assert len(images_of(subscriber)) == len(set(images_of(subscriber))) == 5


def test_a_broker_that_is_killed_loses_nothing_and_hears_nothing_twice(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    broker.save()  # the subscriber's session
    with Running(at(settings, broker)) as running:
        written = 0
        for batch in range(3):
            # What a broker has acknowledged and then loses is beyond the agent: the subscriber must be there to be told at once.
            before = written
            wait_for(
                lambda before=before: (
                    subscriber.client.is_connected() and len(subscriber.findings()) == before
                ),
                "the subscriber",
            )
            written += len(write_images(Path(settings.watch), 12, first=12 * batch))
            wait_for(lambda before=before: len(subscriber.findings()) > before, "some of them")
            broker.kill()
            written += len(write_images(Path(settings.watch), 4, first=100 + 4 * batch))
            wait_for(
                lambda written=written: running.agent._store.counts().get("images") == written,
                "inspections without a broker",
            )
            assert running.agent._store.waiting() >= 4
            broker.start()
            wait_for(lambda: running.agent._store.waiting() == 0, "an empty queue")
    wait_for(lambda: len(subscriber.findings()) == written, "all findings")
    by_image = {(found["image"], id) for id, found in subscriber.findings().items()}
    assert len({image for image, _ in by_image}) == len(by_image) == written == 48


def test_messages_that_waited_come_in_order(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    broker.save()
    broker.kill()
    names = write_images(Path(settings.watch), 45)
    with Running(at(settings, broker)) as running:
        wait_for(lambda: running.agent._store.waiting() == 45, "the queue")
        broker.start()
        wait_for(lambda: len(subscriber.findings()) == 45, "the findings")
    told = images_of(subscriber)
    assert sorted(set(told), key=told.index) == names


def test_a_full_queue_leaves_images_where_they_are(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    broker.save()
    broker.kill()
    write_images(Path(settings.watch), 10)
    with Running(replace(at(settings, broker), queue_limit=4)) as running:
        wait_for(lambda: running.agent._store.waiting() == 4, "a full queue")
        time.sleep(0.2)
        assert running.agent._store.waiting() == 4
        broker.start()
        wait_for(lambda: len(subscriber.findings()) == 10, "all findings")


def test_a_full_disk_leaves_images_where_they_are(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    with Running(at(settings, broker)) as running:
        wait_for(lambda: subscriber.on("/status"), "the agent")
        base = running.agent._store._base
        base.execute(f"PRAGMA max_page_count = {base.execute('PRAGMA page_count').fetchone()[0]}")
        write_images(Path(settings.watch), 60)
        told = wait_for(lambda: running.agent._reports.last, "a full disk")
        assert "full" in told["error"]
        base.execute("PRAGMA max_page_count = 1000000")
        wait_for(lambda: len(subscriber.findings()) == 60, "all findings")
    assert len(images_of(subscriber)) == 60


def test_a_image_that_is_replaced_is_a_new_one_and_a_copy_too(
    settings: AgentSettings, broker: Mosquitto, subscriber: Subscriber
) -> None:
    folder = Path(settings.watch)
    write_images(folder, 1)
    with Running(at(settings, broker)):
        wait_for(lambda: len(subscriber.findings()) == 1, "the first")
        text = (folder / "000.png").read_bytes()
        (folder / "copy.png").write_bytes(text)
        wait_for(lambda: len(subscriber.findings()) == 2, "the copy")
        write_images(folder, 1, first=1)
        (folder / "001.png").rename(folder / "000.png")
        wait_for(lambda: len(subscriber.findings()) >= 3, "the other content")
        (folder / "000.png").write_bytes(text)  # the first content again: known
        (folder / "copy.png").touch()
        write_images(folder, 1, first=9)
        wait_for(lambda: "009.png" in images_of(subscriber), "the last")
    known = {(found["image"], found["image_sha256"]) for found in subscriber.findings().values()}
    assert len(known) == len(subscriber.findings()) == len(subscriber.on("/findings"))


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    """TLS, a user with a password, and a list of what the user may do."""
    cert, key = authority.certificate("broker")
    passwords, access = tmp_path / "passwords", tmp_path / "access"
    subprocess.run(
        [program("mosquitto_passwd"), "-b", "-c", str(passwords), "bridge7", "s3cret"], check=True
    )
    access.write_text(f"user bridge7\ntopic readwrite {TOPIC}/#\nuser watcher\ntopic read #\n")
    subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), "watcher", "w"], check=True)
    started = Mosquitto(
        tmp_path / "secured",
        f"certfile {cert}",
        f"keyfile {key}",
        f"password_file {passwords}",
        f"acl_file {access}",
    ).start()
    yield started
    started.kill()


def test_tls_with_user_and_password(
    settings: AgentSettings, secured: Mosquitto, authority: Authority
) -> None:
    def prepare(client: object) -> None:
        client.tls_set(str(authority.file))  # type: ignore[attr-defined]
        client.username_pw_set("watcher", "w")  # type: ignore[attr-defined]

    subscriber = Subscriber(secured, prepare)
    write_images(Path(settings.watch), 2)
    broker = parse_broker(
        f"mqtts://bridge7@127.0.0.1:{secured.port}", password="s3cret", ca=authority.file
    )
    with Running(settings, broker=broker):
        wait_for(lambda: len(subscriber.findings()) == 2, "findings over TLS")
    subscriber.close()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("wrong authority", r"certificate is not trusted.*--ca"),
        ("wrong password", r"refuses the agent.*[Nn]ot authorized"),
        ("no encryption", r"the broker"),
        ("nobody", r"can't be reached.*refused"),
        ("no such host", r"can't be reached"),
    ],
)
def test_a_broker_that_can_t_be_used_is_one_line_and_messages_stay(
    how: str,
    words: str,
    settings: AgentSettings,
    secured: Mosquitto,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prunedge.edge.agent.agent.ONCE_S", 0.5)
    monkeypatch.setattr("prunedge.edge.agent.agent.FLUSH_S", 0.2)
    tls = {"password": "s3cret", "ca": authority.file}
    url = f"mqtts://bridge7@127.0.0.1:{secured.port}"
    broker = {
        "wrong authority": lambda: parse_broker(
            url, password="s3cret", ca=Authority(tmp_path / "other", "another").file
        ),
        "wrong password": lambda: parse_broker(url, **{**tls, "password": "guess"}),
        "no encryption": lambda: parse_broker(f"mqtt://127.0.0.1:{secured.port}"),
        "nobody": lambda: parse_broker("mqtts://bridge7@127.0.0.1:1", **tls),
        "no such host": lambda: parse_broker("mqtt://no.such.host.invalid"),
    }[how]()
    write_images(Path(settings.watch), 2)
    running = Running(settings, broker=broker, once=True)
    running._thread.start()
    running._thread.join(60)
    assert isinstance(running.error, AgentError)
    assert "2 messages could not be delivered" in str(running.error)
    problem = " ".join(str(running.agent.outbox.problem).split())
    assert re.search(words, problem), problem
    assert "s3cret" not in problem
    assert "guess" not in problem


def test_a_topic_that_the_broker_forbids_keeps_its_messages(
    settings: AgentSettings,
    secured: Mosquitto,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With MQTT 3 a broker acknowledges what it throws away; with MQTT 5 it says so."""
    write_images(Path(settings.watch), 2)
    broker = parse_broker(
        f"mqtts://bridge7@127.0.0.1:{secured.port}", password="s3cret", ca=authority.file
    )
    monkeypatch.setattr("prunedge.edge.agent.agent.FLUSH_S", 0.2)
    with Running(settings, broker=broker, topic="site/another") as running:
        wait_for(lambda: "refuses a message, which is kept" in caplog.text, "the refusal")
        assert running.agent._store.waiting() == 2


def test_failed_tries_leave_no_open_files(
    settings: AgentSettings, secured: Mosquitto, authority: Authority
) -> None:
    """A night without the right password must not end in 'too many open files'."""
    broker = parse_broker(
        f"mqtts://bridge7@127.0.0.1:{secured.port}", password="guess", ca=authority.file
    )
    with Running(settings, broker=broker, backoff=(0.001, 0.001)) as running:
        wait_for(lambda: running.agent.outbox.problem, "the first refusal")
        before = len(list(Path("/proc/self/fd").iterdir()))
        wait_for(lambda: running.agent.outbox._tries > 30, "thirty refusals")
        assert len(list(Path("/proc/self/fd").iterdir())) < before + 10
