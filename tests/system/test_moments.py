"""Every verb, the machine in trouble at random moments of its work: one line, exit code 2; mended, the same command ends as it would have.

A moment is a call of one of prunedge's functions, drawn from all that an undisturbed command makes. See `trouble/sitecustomize.py`.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prunedge.study import Grid, create
from tests.data.test_patches import mask, photo
from tests.edge.agent.conftest import TOPIC, write_images
from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for
from tests.edge.made_bundles import write_convolutional
from tests.system.test_forked_kills import left_over
from tests.system.test_forked_trouble import SHIM, TINY, forked

WRITING, READING = ("full", "readonly", "memory"), ("memory", "unreadable", "full")
CAUSES = {
    "full": "File too large",
    "readonly": "Read-only file system",
    "memory": "not enough memory",
    "unreadable": "Permission denied",
}
COUNT = int(os.environ.get("MOMENTS", 10))  # fewer for a first look
# Bytes that are left where there is no memory. With a quarter of that a thread may begin and die, and
# Python waits for it for ever.
SPARE = 2**20
TIMED = "run/profile/"  # sorted by what took how long
TEXTS = (".json", ".jsonl", ".csv", ".html", ".toml")
# A library of C++ that gets no memory may end the process by itself, and nobody can say so.
GAVE_UP = (-6, -11)

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the trouble is made with Linux's limits"
    ),
]

SIGNED = (
    "--release",
    2,
    "--purpose",
    "cracks",
    "--devices",
    "b-*",
    "--place",
    "https://models.example/v2",
)
STUDY = """
data = "{root}/images"
model = "tests.runs.test_run:small"
weights = "none"
size = 16
batch_size = 8
precision = "32"
train_epochs = 2
criterion = ["weight-l1"]
max_steps = 1
max_drop = 60.0
"""


@dataclass(frozen=True)
class Verb:
    """A command on the folder that holds its input, which it may write to, and the kinds of trouble that concern it."""

    name: str
    words: Callable[[Path], tuple[object, ...]]
    kinds: tuple[str, ...] = WRITING


def small(root: Path, *more: object) -> tuple[object, ...]:
    return (root / "images", *TINY, *more)


VERBS = (
    Verb(
        "check",
        lambda root: ("check", root / "images", "--size", 16, "--json"),
        (*READING, "readonly"),
    ),
    Verb(
        "patches",
        lambda root: (
            "patches",
            root / "photos",
            root / "masks",
            "--size",
            16,
            "--out",
            root / "out",
        ),
    ),
    Verb(
        "groups", lambda root: ("groups", "--from", root / "run", "--size", 16, "--json"), READING
    ),
    Verb(
        "groups-svg",
        lambda root: ("groups", "--from", root / "run", "--size", 16, "--svg", root / "groups.svg"),
    ),
    Verb("train", lambda root: ("train", *small(root), "--epochs", 2, "--out", root / "out")),
    Verb(
        "prune",
        lambda root: (
            "prune",
            *small(root),
            "--train-epochs",
            2,
            "--step-ratio",
            0.3,
            "--max-drop",
            60,
            "--max-steps",
            1,
            "--out",
            root / "out",
        ),
    ),
    Verb(
        "audit",
        lambda root: (
            "audit",
            root / "run",
            "--criterion",
            "weight-l1",
            "--channels",
            2,
            "--images",
            8,
        ),
    ),
    Verb("show", lambda root: ("show", root / "run"), READING),
    Verb("show-json", lambda root: ("show", root / "run", "--json"), READING),
    Verb("export", lambda root: ("export", root / "run", "--out", root / "out")),
    Verb(
        "export-int8",
        lambda root: (
            "export",
            root / "run",
            "--format",
            "onnx,onnx-int8",
            "--max-int8-drop",
            100,
            "--out",
            root / "out",
        ),
    ),
    Verb(
        "bench",
        lambda root: ("bench", root / "bundle", "--patches", 6, "--out", root / "run", "--json"),
    ),
    Verb(
        "bench-profile",
        lambda root: (
            "bench",
            root / "bundle",
            "--patches",
            6,
            "--out",
            root / "run",
            "--profile",
            "--json",
        ),
    ),
    Verb(
        "inspect",
        lambda root: (
            "inspect",
            root / "bundle",
            root / "photos",
            "--out",
            root / "out",
            "--damage",
            "crack",
        ),
    ),
    Verb(
        "inspect-reading",
        lambda root: ("inspect", root / "bundle", root / "photos", "--damage", "crack", "--json"),
        READING,
    ),
    Verb(
        "sign",
        lambda root: ("sign", root / "bundle", "--key", root / "signing.pem", *SIGNED),
        READING,
    ),
    Verb("report", lambda root: ("report", root / "run")),
    Verb("report-study", lambda root: ("report", root / "study")),
    Verb(
        "study",
        lambda root: (
            "study",
            root / "study.toml",
            "--workers",
            1,
            "--threads",
            1,
            "--out",
            root / "new",
        ),
    ),
    Verb("study-status", lambda root: ("study", "status", root / "study"), READING),
)


@pytest.fixture(scope="module")
def given(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the verbs are given; it is copied, to the same place each time, for each of them."""
    root = tmp_path_factory.mktemp("given") / "root"
    shutil.copytree(tiny_data, root / "images")
    for number in range(2):
        photo(root / "photos" / f"{number}.png", seed=number)
        mask(root / "masks" / f"{number}.png", (0, 0, 16, 16))
    write_convolutional(root / "bundle", model="small", classes=["crack", "sound"])
    (root / "study.toml").write_text(STUDY.format(root=root), encoding="utf-8")
    (root / "signing.pem").write_bytes(signing_key())
    command = (
        "prune",
        *small(root),
        "--train-epochs",
        2,
        "--step-ratio",
        0.3,
        "--max-drop",
        60,
        "--max-steps",
        1,
        "--out",
        root / "run",
    )
    code, said = forked(*command, PRUNEDGE_CACHE=str(root / "cache"))
    assert code == 0, said
    book = create(root / "study", Grid.from_toml(root / "study.toml"))
    for one in book.work:
        book.perform(one)
    shutil.rmtree(root / "cache")
    root.rename(root.with_name("kept"))
    return root


def signing_key() -> bytes:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )


@dataclass
class Place:
    """Where a verb works: as it was given, each time it is asked for."""

    root: Path
    calls: Path

    def fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.root.with_name("kept"), self.root)

    def run(
        self, *words: object, trouble: str | None = None, stdout: int | None = None
    ) -> tuple[int, str]:
        """The exit code of a command, and what it says; with `stdout`, a descriptor, what it prints goes there."""
        environment = {
            "PRUNEDGE_CACHE": str(self.root / "cache"),
            "TROUBLE_ROOT": str(self.root),
            "TROUBLE_CALLS": str(self.calls),
        }
        if trouble is not None:
            # Those that it starts get into it as well.
            environment |= {
                "TROUBLE": trouble,
                "TROUBLE_SPARE": str(SPARE),
                "PYTHONPATH": os.pathsep.join(
                    [str(SHIM.parent), *(one for one in sys.path if one)]
                ),
            }
        return forked(*words, stdout=stdout, **environment)


def files(root: Path) -> dict[str, bytes]:
    """What a verb left, by its path; what is decoded once more where it is missing is none of its result."""
    return {
        str(path.relative_to(root)): undated(path.name, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] != "cache"
    }


def without_figures(text: bytes) -> bytes:
    """Words without signatures, checksums and figures: what depends on the time, and on how long something took."""
    return re.sub(
        rb"[0-9][0-9.,:eTZ+-]*",
        b"#",
        re.sub(rb"(?<![0-9.])[0-9a-f]{16,}|[A-Za-z0-9+/]{40,}=*", b"#", text),
    )


def undated(name: str, content: bytes) -> bytes:
    """The content of a file without the minute in which it was written."""
    return (
        re.sub(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d", b"#", content) if name.endswith(TEXTS) else content
    )


@dataclass
class Undisturbed:
    """What a command leaves and says, and which of it is the same each time."""

    calls: int
    files: dict[str, bytes]
    same: frozenset[str]
    said: str

    def compare(self, root: Path, said: str | None) -> None:
        found = files(root)
        assert sorted(found) == sorted(self.files)
        for name, content in found.items():
            if name.startswith(TIMED):
                continue
            if name in self.same:
                assert content == self.files[name], name
            elif name.endswith(TEXTS):
                assert without_figures(content) == without_figures(self.files[name]), name
        assert said is None or without_figures(said.encode()) == without_figures(self.said.encode())


def undisturbed(verb: Verb, place: Place) -> Undisturbed:
    place.calls.unlink(missing_ok=True)
    place.fresh()
    code, said = place.run(*verb.words(place.root), trouble="none:call:0")
    assert code == 0, said
    first = files(place.root)
    place.fresh()
    code, said = place.run(*verb.words(place.root))
    assert code == 0, said
    second = files(place.root)
    return Undisturbed(
        calls=int(place.calls.read_text().split()[-1]),
        files=second,
        same=frozenset(name for name, content in second.items() if first.get(name) == content),
        said=said,
    )


def told(kind: str, place: Place, code: int, said: str) -> str:
    """The one line that told of the trouble; empty where the command ended well, or could say nothing."""
    assert "Traceback" not in said, said
    if code == 0 or (kind == "memory" and code in GAVE_UP):
        return ""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2, (code, said)
    assert len(lines) == 1, (code, said)
    assert said.strip().splitlines()[-1] == lines[0], (code, said)
    # Where a process that it started was ended, nobody can know why.
    died = kind == "memory" and re.search(
        r"died \(exit code -(6|11)\) .*: is there enough memory\?", lines[0]
    )
    has_no_temporary = kind == "full" and "no folder for temporary files can be written" in lines[0]
    assert died or has_no_temporary or re.search(CAUSES[kind], lines[0]), said
    assert kind == "memory" or has_no_temporary or str(place.root) in lines[0], said
    assert re.search(r": \w[^:]+( |:)", lines[0].removeprefix("error: ")), f"no remedy: {said}"
    return lines[0]


def advised(line: str, words: tuple[object, ...]) -> tuple[object, ...]:
    """The command that the line names, or else the same."""
    found = re.search(r"go on with prunedge (.+)$", line)
    return tuple(shlex.split(found[1])) if found else words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "kind"),
    [pytest.param(verb, kind, id=f"{verb.name}-{kind}") for verb in VERBS for kind in verb.kinds],
)
def test_at_ten_moments(
    verb: Verb, kind: str, given: Path, tmp_path: Path, whole: dict[str, Undisturbed]
) -> None:
    place = Place(given, tmp_path / "calls")
    if verb.name not in whole:
        whole[verb.name] = undisturbed(verb, place)
    wanted = whole[verb.name]
    faults, tally = [], dict.fromkeys(("one line", "ended well", "gave up"), 0)
    moments = sorted(
        random.Random(f"{verb.name} {kind}").sample(
            range(1, wanted.calls + 1), min(COUNT, wanted.calls)
        )
    )
    for at in moments:
        try:
            place.fresh()
            words = verb.words(place.root)
            code, said = place.run(*words, trouble=f"{kind}:call:{at}")
            line = told(kind, place, code, said)
            tally["one line" if line else "ended well" if code == 0 else "gave up"] += 1
            if code == 0:
                wanted.compare(place.root, said)
                continue
            onward = advised(line, words)
            code, again = place.run(*onward)
            assert code == 0, f"{line}\nthen: {again}"
            # What goes on says less of what was done before.
            wanted.compare(place.root, again if verb.kinds == READING else None)
            assert left_over(place.root) == []
        except AssertionError as fault:
            faults.append(f"{kind} at {at} of {wanted.calls}: {fault}")
    print(f"\nTALLY {verb.name} {kind}: {tally}, {len(faults)} faults")
    assert not faults, "\n\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if "unreadable" in verb.kinds], ids=lambda verb: verb.name
)
def test_nobody_listens(verb: Verb, given: Path, tmp_path: Path) -> None:
    place = Place(given, tmp_path / "calls")
    place.fresh()
    reading, writing = os.pipe()
    os.close(reading)
    code, said = place.run(*verb.words(place.root), stdout=writing)
    os.close(writing)
    assert code == 141, (code, said)
    assert "Traceback" not in said, (code, said)
    assert "error: " not in said, (code, said)
    with open("/dev/full", "wb") as full:
        code, said = place.run(*verb.words(place.root), stdout=full.fileno())
    assert code == 2, (code, said)
    assert "Traceback" not in said, (code, said)
    assert said.count("error: ") == 1, (code, said)
    assert said.splitlines()[-1].startswith(
        "error: No space left on device (the output): free space there"
    ), said


@pytest.fixture(scope="module")
def whole() -> dict[str, Undisturbed]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "readonly", "memory"])
def test_the_agent_at_ten_moments(kind: str, tmp_path: Path) -> None:
    """It goes on beside what it can't do; after the next start each image was told once, by one id."""
    root, faults, tally = (
        tmp_path / "root",
        [],
        dict.fromkeys(("one line", "ended well", "gave up"), 0),
    )
    write_images(root / "images", 4)
    write_convolutional(root / "bundle", model="small", classes=["crack", "sound"])
    root.rename(root.with_name("kept"))
    place = Place(root, tmp_path / "calls")
    broker = Mosquitto(tmp_path / "broker").start()
    with closing(Subscriber(broker)) as subscriber:
        words = (
            "agent",
            root / "bundle",
            "--watch",
            root / "images",
            "--broker",
            broker.url,
            "--state",
            root / "state",
            "--device-id",
            "b7",
            "--damage",
            "crack",
            "--every",
            0.1,
            "--settle",
            0,
            "--once",
            "--topic",
        )
        place.fresh()
        code, said = place.run(*words, f"{TOPIC}/whole", trouble="none:call:0")
        assert code == 0, said
        calls = int(place.calls.read_text().split()[-1])
        for at in sorted(random.Random(f"agent {kind}").sample(range(1, calls + 1), COUNT)):
            topic = f"{TOPIC}/{at}"
            try:
                place.fresh()
                code, said = place.run(*words, topic, trouble=f"{kind}:call:{at}")
                assert "Traceback" not in said, (code, said)
                assert code in (0, 2) or (kind == "memory" and code in GAVE_UP), (code, said)
                assert code != 2 or said.strip().splitlines()[-1].startswith("error: "), said
                tally["one line" if code == 2 else "ended well" if code == 0 else "gave up"] += 1
                code, said = place.run(*words, topic)
                assert code == 0, said
                wait_for(lambda topic=topic: len(told_on(subscriber, topic)) >= 4, "the findings")
                found = {one["id"]: one["image"] for one in told_on(subscriber, topic)}
                assert sorted(found.values()) == ["000.png", "001.png", "002.png", "003.png"]
                assert left_over(root) == []
            except AssertionError as fault:
                faults.append(f"{kind} at {at} of {calls}: {fault}")
    broker.kill()
    print(f"\nTALLY agent {kind}: {tally}, {len(faults)} faults")
    assert not faults, "\n\n".join(faults)


def told_on(subscriber: Subscriber, topic: str) -> list[dict[str, Any]]:
    """The findings that were published below a topic."""
    return [one for place, one in subscriber.messages if place == f"{topic}/findings"]
