"""New bundles over MQTT: good ones are swapped in without stopping, bad ones never, and what is not ours is told in one line."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from prunedge.edge.agent import Agent, AgentSettings, UpdateSettings, parse_broker
from prunedge.edge.agent import agent as agent_module
from prunedge.edge.update import updater as updater_module
from prunedge.edge.update.announcement import parse_origins
from prunedge.edge.update.statement import Release, sign
from prunedge.errors import AgentError, BundleError, MachineError
from tests.edge.agent.conftest import CLASSES, Running, altered, digest, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for
from tests.edge.update.test_slots import spoil, truncate

MODELS = "site/models"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def told(settings: AgentSettings, broker: Mosquitto, models: Path) -> AgentSettings:
    # How fast bundles are says how busy the machine is; who wants to know it gives another `slower`.
    update = UpdateSettings(topic=MODELS, origins=parse_origins([str(models)]), slower=1e6)
    return replace(settings, broker=parse_broker(broker.url), update=update)


def updating(settings: AgentSettings, **changes: Any) -> AgentSettings:
    """The settings with changes of what is taken as a new bundle."""
    return replace(settings, update=replace(settings.update, **changes))


@pytest.fixture
def running(told: AgentSettings, subscriber: Subscriber) -> Iterator[Running]:
    write_images(Path(told.watch), 2)
    with Running(told) as started:
        wait_for(lambda: len(subscriber.findings()) == 2, "the first findings")
        yield started


def announce(subscriber: Subscriber, announced: Path, retain: bool = True, **changes: Any) -> None:
    subscriber.publish(
        MODELS, {"bundle": str(announced), "sha256": digest(announced), **changes}, retain=retain
    )


def in_use(subscriber: Subscriber) -> str:
    return [told for told in subscriber.on("/status") if told["state"] == "online"][-1]["bundle"][
        "sha256"
    ]


def test_a_good_bundle_is_swapped_in_and_stays(
    running: Running,
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
) -> None:
    new = altered(bundles[1], models / "v2")
    announce(subscriber, new)
    wait_for(lambda: in_use(subscriber) == digest(new), "the new bundle")
    write_images(Path(told.watch), 2, first=2)
    wait_for(lambda: len(subscriber.findings()) == 4, "findings with it")
    assert [found["bundle_sha256"] for found in subscriber.findings().values()] == [
        digest(bundles[0])
    ] * 2 + [digest(new)] * 2
    running.__exit__()
    with Running(told):  # also after a new start, where the retained announcement comes again
        wait_for(lambda: subscriber.on("/status")[-1]["state"] == "online", "the second start")
        assert in_use(subscriber) == digest(new)
    assert not subscriber.on("/errors")


def test_announcing_the_old_one_goes_back(
    running: Running, subscriber: Subscriber, bundles: tuple[Path, Path], models: Path
) -> None:
    second, third = altered(bundles[1], models / "v2"), altered(bundles[1], models / "v3", macs=11)
    for bundle in (second, third, second):
        announce(subscriber, bundle)
        wait_for(lambda bundle=bundle: in_use(subscriber) == digest(bundle), "the announced bundle")


def outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = manifest["files"]["model.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def huge(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.onnx"]["bytes"] = 2**31
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.onnx").rename(folder / "hidden")  # or the copy would get its true size


@pytest.mark.parametrize(
    ("change", "manifest", "announced", "words"),
    [
        (lambda folder: None, {}, {"sha256": "0" * 64}, "SHA-256"),
        (lambda folder: None, {}, {"bundle": "/etc"}, "--model-from"),
        (lambda folder: None, {}, {"bundle": "http://models.example/v2"}, "https only"),
        (lambda folder: None, {}, {"classes": ["crack", "sound"]}, "classes"),
        (lambda folder: None, {"task": {"classes": ["crack", "sound"]}}, {}, "classes"),
        (lambda folder: None, {"task": {"name": "multilabel"}}, {}, "task.*multilabel"),
        (
            lambda folder: None,
            {"task": {"classes": ["a", "b", "c"]}},
            {"classes": ["a", "b", "c"]},
            "no class 'crack'",
        ),
        (outside, {}, {}, "outside"),
        (huge, {}, {}, "--model-max-mb"),
        (spoil, {}, {}, "self-test failed.*not numbers"),
        (truncate, {}, {}, "self-test failed.*can't load"),
        (lambda folder: None, {"task": {"size": [32, 32]}}, {}, "self-test failed.*32 pixels"),
    ],
)
def test_a_bad_bundle_changes_nothing(
    running: Running,
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    change: Callable[[Path], None],
    manifest: dict[str, Any],
    announced: dict[str, Any],
    words: str,
) -> None:
    bad = altered(bundles[1], models / "bad", change, **manifest)
    announce(subscriber, bad, **announced)
    wait_for(lambda: subscriber.on("/errors"), "the refusal")
    (error,) = subscriber.on("/errors")
    assert error["kind"] == "bundle", error
    assert re.search(words, error["error"]), error
    write_images(Path(told.watch), 1, first=2)
    wait_for(lambda: len(subscriber.findings()) == 3, "the old bundle at work")
    assert {found["bundle_sha256"] for found in subscriber.findings().values()} == {
        digest(bundles[0])
    }
    assert not (told.state / "bundles" / ".incoming").exists()
    assert not (told.state.parent / "secret").exists()
    running.__exit__()
    with Running(told):  # the retained announcement comes again, and is not tried again
        wait_for(lambda: subscriber.on("/status")[-1]["state"] == "online", "the second start")
        write_images(Path(told.watch), 1, first=3)
        wait_for(lambda: len(subscriber.findings()) == 4, "the old bundle again")
    assert len(subscriber.on("/errors")) == 1


SIGNER = Ed25519PrivateKey.generate()


def signed(bundle: Path, version: int, **changes: Any) -> dict[str, Any]:
    """What a signed announcement holds beside the bundle's place and SHA-256."""
    now = datetime.now(UTC)
    usual = {
        "signed": now,
        "expires": now + timedelta(days=9),
        "devices": ["b*"],
        "purpose": "cracks",
        "classes": CLASSES,
    }
    by = changes.pop("by", SIGNER)
    return {
        "statement": sign(
            changes.pop("sha256", digest(bundle)),
            Release(version=version, **{**usual, **changes}),
            by.sign,
        )
    }


@pytest.fixture
def keyed(told: AgentSettings, tmp_path: Path) -> AgentSettings:
    public = tmp_path / "public.pem"
    public.write_bytes(
        SIGNER.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return updating(told, key=public)


def test_old_foreign_and_edited_announcements_are_refused_with_the_reason(
    keyed: AgentSettings, subscriber: Subscriber, bundles: tuple[Path, Path], models: Path
) -> None:
    old, new = (
        altered(bundles[1], models / "v6", macs=6),
        altered(bundles[1], models / "v7", macs=7),
    )
    other = altered(bundles[1], models / "other", task={"classes": ["crack", "sound", "rust"]})
    labelled = altered(bundles[1], models / "labelled", task={"name": "multilabel"})
    past = datetime.now(UTC) - timedelta(seconds=1)
    plain = base64.b64encode(SIGNER.sign((new / "manifest.json").read_bytes())).decode()
    refusals: list[tuple[Path, dict[str, Any], str]] = [
        (new, {}, "not signed"),
        (new, {"signature": plain}, "not an announcement: signature: "),  # over the manifest alone
        (new, signed(new, 7, by=Ed25519PrivateKey.generate()), "signature is wrong"),
        (new, signed(new, 7, devices=["tower-*"]), r"signed for tower-\*, this device is b7"),
        (new, signed(new, 7, topic="other/models"), "topic"),
        (new, signed(new, 7, expires=past), "expired"),
        (new, signed(new, 7, classes=["crack", "sound", "rust"]), "signed statement's"),
        (other, signed(other, 7, classes=["crack", "sound", "rust"]), "--new-classes"),
        (labelled, signed(labelled, 7), "task is multilabel, .* classification.*--new-classes"),
        (new, signed(old, 7), "not that of its signed statement"),
        (
            new,
            {**signed(new, 7), "classes": ["crack", "sound", "rust"]},
            "not that of its signed statement",
        ),
    ]
    later: list[tuple[Path, dict[str, Any], str]] = [
        (old, signed(old, 6), "version 6 is older than 7"),
        (old, signed(old, 7), "version 7 was another bundle"),
        (old, signed(old, 8, purpose="rust"), "purpose 'rust'"),
    ]

    def refused(cases: list[tuple[Path, dict[str, Any], str]]) -> None:
        for bundle, more, words in cases:
            count = len(subscriber.on("/errors"))
            announce(subscriber, bundle, retain=False, **more)
            wait_for(lambda count=count: len(subscriber.on("/errors")) > count, words)
            assert re.search(words, subscriber.on("/errors")[-1]["error"]), subscriber.on(
                "/errors"
            )[-1]

    with Running(keyed):
        wait_for(lambda: subscriber.on("/status"), "the agent")
        refused(refusals)
        assert in_use(subscriber) == digest(bundles[0])
        announce(subscriber, new, retain=False, **signed(new, 7))
        wait_for(lambda: in_use(subscriber) == digest(new), "the right one")
        refused(later)
        assert in_use(subscriber) == digest(new)
    count = len(subscriber.on("/status"))
    # Remembered for good, also when the operator gave another bundle by hand.
    with Running(keyed, bundle=altered(bundles[0], models.parent / "by hand", macs=99)):
        wait_for(lambda: len(subscriber.on("/status")) > count, "the agent again")
        before = len(subscriber.on("/errors"))
        announce(subscriber, old, retain=True, **signed(old, 5))
        wait_for(lambda: len(subscriber.on("/errors")) > before, "the refusal")
        assert "version 5 is older than 7" in subscriber.on("/errors")[-1]["error"]
        announce(subscriber, old, retain=False, **signed(old, 8))  # going back, on purpose
        wait_for(lambda: in_use(subscriber) == digest(old), "the old one, signed anew")


def test_the_bundle_at_work_signed_anew_raises_the_version(
    keyed: AgentSettings, subscriber: Subscriber, bundles: tuple[Path, Path], models: Path
) -> None:
    old, new = (
        altered(bundles[1], models / "v1", macs=1),
        altered(bundles[1], models / "v2", macs=2),
    )
    with Running(keyed) as started:
        wait_for(lambda: subscriber.on("/status"), "the agent")
        announce(subscriber, new, retain=False, **signed(new, 2))
        wait_for(lambda: in_use(subscriber) == digest(new), "the new one")
        announce(subscriber, new, retain=False, **signed(new, 9))
        wait_for(lambda: started.agent._slots.taken().version == 9, "the version")
        announce(subscriber, old, retain=False, **signed(old, 5))
        wait_for(lambda: subscriber.on("/errors"), "the refusal")
        assert "version 5 is older than 9" in subscriber.on("/errors")[-1]["error"]


def test_a_bundle_that_is_not_there_yet_is_fetched_when_it_is(
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prunedge.edge.agent.agent.AGAIN_S", (0.2,) * 100)
    with Running(told):
        wait_for(lambda: subscriber.on("/status"), "the agent")
        coming = altered(bundles[1], models / "coming")
        announce(subscriber, coming, bundle=str(models / "v2"))
        wait_for(lambda: subscriber.on("/errors"), "the failure")
        assert "can't be fetched" in subscriber.on("/errors")[0]["error"]
        coming.rename(models / "v2")
        wait_for(lambda: in_use(subscriber) == digest(models / "v2"), "the bundle")
    assert len({error["id"] for error in subscriber.on("/errors")}) == 1


@pytest.mark.parametrize(
    "error",
    [MachineError("there is not enough memory"), MemoryError(), OSError(24, "Too many open files")],
    ids=lambda one: type(one).__name__,
)
def test_a_bundle_that_the_machine_can_t_load_now_is_tried_again(
    error: Exception,
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, failed = updater_module.load, []

    def sometimes(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise error
        return real(*arguments)

    monkeypatch.setattr(updater_module, "load", sometimes)
    monkeypatch.setattr(agent_module, "AGAIN_S", (0.05,))
    new = altered(bundles[1], models / "v2")
    with Running(told) as running:
        wait_for(lambda: subscriber.on("/status"), "the agent")
        announce(subscriber, new)
        wait_for(lambda: in_use(subscriber) == digest(new), "the new bundle")
        assert failed
        assert not running.agent._store.is_refused(digest(new))


def test_garbage_is_told_in_one_line_and_the_agent_goes_on(
    running: Running,
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for payload in (
        b"\xff\x00",
        b"{}",
        b"[1, 2",
        b"NaN",
        b"x" * 200_000,
        b'{"bundle": 1e999}',
        b"",
        json.dumps({"bundle": "x" * 9999}).encode(),
    ):
        subscriber.publish(MODELS, payload)
    wait_for(lambda: subscriber.on("/errors"), "an error")
    new = altered(bundles[1], models / "v2")
    announce(subscriber, new)
    wait_for(lambda: in_use(subscriber) == digest(new), "a good bundle after garbage")
    write_images(Path(told.watch), 1, first=2)
    wait_for(lambda: len(subscriber.findings()) == 3, "a finding after garbage")
    (error,) = subscriber.on("/errors")  # one in ten seconds, or a stranger could fill the disk
    assert error["kind"] == "message"
    assert "not an announcement" in error["error"]
    lines = [
        record.getMessage()
        for record in caplog.records
        if "not an announcement" in record.getMessage()
    ]
    assert len(lines) == 7
    assert all("\n" not in line and len(line) < 450 for line in lines)


def test_a_bundle_that_fails_on_its_first_real_image_is_rolled_back(
    running: Running,
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prunedge.edge.agent import inspector as module

    new, real = altered(bundles[1], models / "v2"), module.inspect_image

    def fails_with_the_new_one(path: Path, session: Any, *more: Any, **named: Any) -> Any:
        if session.bundle.manifest.model == "second":
            raise BundleError("the model's answers are no numbers")
        return real(path, session, *more, **named)

    monkeypatch.setattr(module, "inspect_image", fails_with_the_new_one)
    announce(subscriber, new)
    wait_for(lambda: in_use(subscriber) == digest(new), "the new bundle")
    write_images(Path(told.watch), 1, first=2)
    wait_for(lambda: len(subscriber.findings()) == 3, "a finding by the old one")
    assert {found["bundle_sha256"] for found in subscriber.findings().values()} == {
        digest(bundles[0])
    }
    wait_for(lambda: in_use(subscriber) == digest(bundles[0]), "the status")
    assert [error["kind"] for error in subscriber.on("/errors")] == ["bundle"]


def test_settings_that_can_t_be_are_refused_at_once(told: AgentSettings, tmp_path: Path) -> None:
    for changes, words in (
        ({"device": "a b"}, "--device-id"),
        ({"queue_limit": 0}, "at least 1"),
        ({"every": float("nan")}, "negative"),
        ({"topic": "a/+/b"}, "wildcard"),
    ):
        with pytest.raises(AgentError, match=words):
            Agent(replace(told, **changes))
    for changes, words in (
        ({"origins": parse_origins([])}, "--model-from"),
        ({"topic": None}, "--model-topic"),
        ({"topic": "site/#"}, "wildcard"),
        ({"key": tmp_path / "none.pem"}, "public key"),
    ):
        with pytest.raises(AgentError, match=words):
            Agent(updating(told, **changes))
    Agent(told)._store.close()  # nothing is left locked


@pytest.mark.parametrize(
    ("times", "allowed", "taken"), [(30.0, 20.0, False), (30.0, 50.0, True), (15.0, 20.0, True)]
)
def test_a_much_slower_bundle_is_not_taken_unless_that_is_allowed(
    told: AgentSettings,
    subscriber: Subscriber,
    bundles: tuple[Path, Path],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: float,
    allowed: float,
    taken: bool,
) -> None:
    monkeypatch.setattr(
        "prunedge.edge.update.updater.selftest",
        lambda bundle, *_: 2.0 * (times if bundle.name == ".incoming" else 1.0),
    )
    new = altered(bundles[1], models / "v2")
    with Running(updating(told, slower=allowed)):
        wait_for(lambda: subscriber.on("/status"), "the agent")
        announce(subscriber, new)
        if taken:
            wait_for(lambda: in_use(subscriber) == digest(new), "the new bundle")
        else:
            wait_for(lambda: subscriber.on("/errors"), "the refusal")
            assert re.search(
                "30 times as long.*20 are allowed.*--model-slower",
                subscriber.on("/errors")[0]["error"],
            )
            assert in_use(subscriber) == digest(bundles[0])


def test_smaller_patches_make_a_bundle_slower(bundles: tuple[Path, Path], models: Path) -> None:
    from prunedge.edge import open_bundle
    from prunedge.edge.inspect import Settings
    from prunedge.edge.update.updater import _patches

    views = [{"kind": "patch", "width": side, "height": side} for side in (400, 40)] + [
        {"kind": "whole", "width": 400, "height": 300}
    ]
    manifests = [
        open_bundle(altered(bundles[1], models / str(i), view=view)).manifest
        for i, view in enumerate(views)
    ]
    assert [
        _patches(manifest, Settings(damage=("crack",), overlap=0.0)) for manifest in manifests
    ] == [80, 7500, 1]
