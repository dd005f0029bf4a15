"""More than three hundred bad inputs, over every verb: each is one line with the place, the cause and a remedy, and exit code 2.

What was given stays as it was, and nothing is left where the result should have been. All run in this process, on one tiny data set,
run and bundle.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prunedge.cli.app import main
from prunedge.config import RunConfig
from prunedge.errors import PrunedgeError
from prunedge.report.library import export_bundle
from prunedge.runs import execute
from prunedge.utils import trust
from prunedge.utils.sanitize import shown
from tests.edge.agent.conftest import altered
from tests.edge.made_bundles import write_convolutional
from tests.tiny_images import write_tiny

LONG = "x" * 300  # longer than a name may be
DEEP = "[" * 200_000  # JSON that no recursion can read
PATIENCE_S = 20
NUMBERS = ("inf", "nan", "-inf", "-1", "0", "1e999", "one", "")
COUNTS = ("-1", "0", "1.5", "inf", "nan", "99999999999999999999999", "one", "")


@dataclass(frozen=True)
class World:
    """What the cases share, and a folder for each case's own."""

    data: Path
    photos: Path
    masks: Path
    run: Path
    bundle: Path
    edge: Path
    key: Path
    here: Path

    def write(self, name: str, content: bytes | str = b"") -> Path:
        """A file of the case's own."""
        file = self.here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        )
        return file

    def folder(self, name: str) -> Path:
        """A folder of the case's own."""
        (self.here / name).mkdir(parents=True)
        return self.here / name


Line = Callable[[World], list[object]]


@dataclass(frozen=True)
class Case:
    """A command line, and a word that its error must hold: the option, or what the file is called."""

    name: str
    line: Line
    word: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    root = tmp_path_factory.mktemp("shared")
    data = write_tiny(root / "data", 20, 16)
    recipe = RunConfig.make(
        "test",
        data=str(data),
        model="tests.small_models:tiny",
        weights="none",
        size=16,
        train_epochs=1,
        precision="32",
        lr=0.02,
        batch_size=8,
    )
    run = execute.train(recipe, root / "run").path
    from prunedge.data import load_folder
    from prunedge.models import build

    bundle = root / "bundle"
    export_bundle(
        build("tests.small_models:tiny", 2, "none"),
        load_folder(data, size=16),
        bundle,
        model_name="tests.small_models:tiny",
    )
    edge = write_convolutional(root / "edge", model="small", classes=["crack", "sound"])
    for number in range(2):
        for folder, mode in (("photos", "RGB"), ("masks", "L")):
            (root / folder).mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(
                0, 256, (32, 48, 3) if mode == "RGB" else (32, 48), dtype=np.uint8
            )
            Image.fromarray(
                pixels if mode == "RGB" else (pixels > 200).astype(np.uint8) * 255
            ).save(root / folder / f"{number}.png")
    key = root / "signing.pem"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    return World(data, root / "photos", root / "masks", run, bundle, edge, key, root)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A case that doesn't end fails, and the others go on."""

    def late(number: int, frame: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def state_of(*roots: Path) -> dict[str, str]:
    """Every file below, by its content."""
    found = {}
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            is_read = file.is_file() and os.access(file, os.R_OK) and file.stat().st_size < 10**7
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest() if is_read else "there"
    return found


@pytest.fixture
def said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[object]], str]]:
    """Run a command line in this process; gives the error's line, which was checked to have a remedy."""
    made: list[PrunedgeError] = []
    real = PrunedgeError.__init__

    def noted(self: PrunedgeError, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(PrunedgeError, "__init__", noted)

    def run(line: list[object]) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in line])
        out, err = capsys.readouterr()
        told = [text for text in err.splitlines() if text.startswith("error: ")]
        assert ended.value.code == 2, (ended.value.code, out, err)
        assert "Traceback" not in err, err
        assert len(told) == 1, err
        assert err.rstrip().endswith(told[0]), err
        assert all(c.isprintable() for c in told[0]), told
        assert len(told[0]) < 20_000, told
        mine = [error for error in made if shown(" ".join(str(error).split()))[:80] in told[0]]
        assert all(error.remedy for error in mine[-1:]), told  # what cyclopts says always has one
        assert mine or any(
            word in told[0] for word in ("--help", "pip install", "NUL character", "did you mean")
        ), told
        return told[0]

    return run


# --- odd values of options -------------------------------------------------------------------------------------------------------------


def options(verb: str, line: Line, **values: tuple[str, ...]) -> list[Case]:
    """A case for each bad value of each option; the error must name the option (without dashes) or its value."""
    cases = []
    for name, bad in values.items():
        option = name.replace("_", "-")
        for value in bad:
            cases.append(
                Case(
                    f"{verb} --{option}={value}",
                    lambda w, o=option, v=value: given(line(w), o, v),
                    name,
                )
            )
    return cases


def given(line: list[object], option: str, value: str) -> list[object]:
    """The line with this value of the option, in the place of another."""
    words = [str(word) for word in line]
    if f"--{option}" in words:
        place = words.index(f"--{option}")
        del line[place : place + 2]
    return [*line, f"--{option}={value}"]


def evaluating_alone(w: World, name: str, content: bytes | str) -> list[object]:
    """A single labelled image, which can't be read."""
    w.write(f"alone/crack/{name}", content)
    return ["evaluate", w.edge, w.here / "alone"]


def training(w: World) -> list[object]:
    return [
        "train",
        w.data,
        "--model",
        "tests.small_models:tiny",
        "--weights",
        "none",
        "--size",
        16,
        "--epochs",
        1,
        "--out",
        w.here / "out",
    ]


def pruning(w: World) -> list[object]:
    return [
        "prune",
        w.data,
        "--model",
        "tests.small_models:tiny",
        "--weights",
        "none",
        "--size",
        16,
        "--out",
        w.here / "out",
    ]


def studying(w: World) -> list[object]:
    return [
        "study",
        "criteria",
        w.data,
        "--model",
        "resnet18",
        "--weights",
        "none",
        "--out",
        w.here / "out",
    ]


def cutting(w: World) -> list[object]:
    return ["patches", w.photos, w.masks, "--out", w.here / "out", "--size", 16]


def looking(w: World) -> list[object]:
    return ["inspect", w.edge, w.photos]


def watching(w: World) -> list[object]:
    state = w.here / "state"
    return [
        "agent",
        w.edge,
        "--watch",
        w.photos,
        "--broker",
        "mqtt://127.0.0.1:1",
        "--topic",
        "t",
        "--state",
        state,
        "--once",
    ]


def updating(w: World) -> list[object]:
    return [*watching(w), "--model-topic", "t", "--model-from", w.here]


def signing(w: World) -> list[object]:
    return [
        "sign",
        w.edge,
        "--key",
        w.key,
        "--release",
        1,
        "--purpose",
        "p",
        "--devices",
        "d",
        "--place",
        "/x",
    ]


NO_NUMBER = ("inf", "nan", "one", "")
RATES = ("inf", "nan", "-1", "0", "one")
OPTIONS = [
    *options(
        "train",
        training,
        lr=RATES,
        epochs=("-1", "1.5", "inf", "one"),
        size=("0", "-1", "3", "99999", "one", "0x20"),
        sparsity_strength=RATES,
    ),
    *options(
        "train",
        training,
        seed=("-1", "1.5", "nan", str(2**64), "one"),
        batch_size=("0", "-1", "one"),
        folds=("0", "1", "-2"),
    ),
    *options(
        "train",
        training,
        metric=("loss", ""),
        augment=("all",),
        precision=("64",),
        sparsity=("l2",),
        group_by=("(", "nothing"),
    ),
    *options("train", training, range=("5", "9:5", "nan:1", "0:inf", "a:b", "0:255:3")),
    *options(
        "prune",
        pruning,
        step_ratio=(*RATES, "1", "2"),
        max_drop=("inf", "nan", "-1", "one"),
        confidence=("0.3", "1", "nan", "2"),
    ),
    *options(
        "prune",
        pruning,
        target_macs=("0", "-1", "2", "nan"),
        target_params=("0", "2", "inf"),
        max_steps=("0", "-1", "1.5", "1e3"),
    ),
    *options(
        "prune",
        pruning,
        target_latency=("5 minutes", "-1ms", "nan", "0ms", "inf"),
        device=("pi@camera", "ssh://", "http://x"),
    ),
    *options(
        "prune",
        pruning,
        distill=("-1", "2", "nan"),
        min_channels=("0", "-1"),
        round_to=("0", "-8"),
        max_ratio=("0", "2", "nan"),
    ),
    *options(
        "prune",
        pruning,
        extra_rounds=("-1", "x"),
        baseline=("another",),
        normalise=("l3",),
        compensate=("all",),
        criterion=("talor",),
    ),
    *options(
        "prune",
        pruning,
        finetune_lr=RATES,
        train_epochs=("-1",),
        macs_penalty=("-1", "nan", "inf"),
        ignore=("nothing.*",),
    ),
    *options(
        "study",
        studying,
        epochs=("-1", "x"),
        seed=("-1", "x", str(2**64)),
        step_ratio=("0", "nan"),
        workers=("0", "-1", "x"),
    ),
    *options(
        "study",
        studying,
        threads=("0", "-1"),
        gpus=("-1", "nan"),
        engine=("slurm",),
        max_drop=("nan", "-1"),
        folds=("1", "x"),
    ),
    *options(
        "check",
        lambda w: ["check", w.data],
        size=("0", "-1", "x"),
        seed=("-1", "x"),
        max_distance=("-1", "99", "x"),
    ),
    *options(
        "check",
        lambda w: ["check", w.data, "--size", 16],
        range=("5", "9:5"),
        group_by=("(", "nothing", "parent"),
    ),
    *options(
        "patches",
        cutting,
        stride=("0", "-1", "x"),
        min_damage=("0", "2", "nan", "-1"),
        threshold=("-1", "x"),
    ),
    *options(
        "patches",
        cutting,
        seed=("-1", "x"),
        intact_per_damaged=("0", "-1", "nan"),
        unmasked=("maybe",),
        group_by=("(", "nothing"),
    ),
    *options("patches", cutting, damaged=("a/b", "", "..", "intact"), intact=("/", "damaged")),
    *options(
        "inspect",
        looking,
        threshold=("0", "2", "nan", "-1"),
        overlap=("1", "-1", "nan"),
        batch=("0", "-1", "x"),
        patch=("0", "x"),
    ),
    *options(
        "inspect",
        looking,
        mm_per_pixel=("0", "-1", "nan", "inf"),
        max_megapixels=("0", "-1", "nan", "inf"),
        threads=("0", "-1"),
    ),
    *options(
        "inspect",
        looking,
        damage=("rust", "crack,sound"),
        range=("5", "x:y"),
        every=("1",),
        frames=("3",),
    ),
    *options(
        "agent",
        watching,
        threshold=("0", "nan"),
        overlap=("1",),
        batch=("0",),
        patch=("x",),
        damage=("rust",),
        range=("9:1",),
    ),
    *options(
        "agent",
        watching,
        every=("-1", "nan", "inf", "x"),
        settle=("-1", "nan"),
        queue_limit=("0", "-1"),
        threads=("0",),
    ),
    *options(
        "agent",
        watching,
        broker=("", "http://h", "mqtt://", "mqtt://h:99999", "mqtt://u:p@h"),
        topic=("", "a/#", "/a", "$a", "a//b"),
    ),
    *options("agent", watching, device_id=("a b", "x" * 65), password_file=("/nowhere",)),
    *options(
        "agent",
        updating,
        model_topic=("a/+", ""),
        model_key=("/nowhere",),
        model_from=("models", "http://h", "/nowhere"),
    ),
    *options(
        "agent",
        updating,
        model_minutes=("0", "-1", "nan"),
        model_slower=("0", "nan"),
        model_max_mb=("0", "x"),
    ),
    Case(
        "agent: a topic, and nothing to fetch from",
        lambda w: [*watching(w), "--model-topic", "t"],
        "--model-from",
    ),
    *options(
        "sign",
        signing,
        release=("0", "-1", "1.5", str(2**60)),
        days=("0", "-1", "nan", "inf", "1e9"),
        devices=("", "a b"),
    ),
    *options(
        "sign",
        signing,
        purpose=("", "x" * 200),
        topic=("a/#", ""),
        place=("",),
        key=("/nowhere", "/dev/null"),
    ),
    *options(
        "bench",
        lambda w: ["bench", w.edge],
        patches=("0", "-1", "x"),
        batch=("0", "-1"),
        threads=("0", "-1"),
        batches=("0", "x"),
    ),
    *options(
        "bench",
        lambda w: ["bench", w.edge],
        cpus=("0", "-1", "9999"),
        memory=("0", "-1"),
        runtime=("tflite",),
        device=("pi",),
    ),
    *options(
        "evaluate",
        lambda w: ["evaluate", w.edge, w.data],
        runtime=("tflite",),
        split=("half", "", "train"),
        resamples=COUNTS[:7],
        seed=("-1", "1.5", "one"),
        threads=("0", "-1", "99999999"),
        group_by=("(", "parent", "nowhere"),
        step=("1",),
    ),
    *options(
        "evaluate",
        lambda w: ["evaluate", w.run, w.data],
        runtime=("onnx",),
        step=("9", "-1", "x"),
    ),
    *options(
        "predict",
        lambda w: ["predict", w.edge, w.photos, "--out", w.here / "out"],
        runtime=("tflite",),
        threads=("0", "-1", "99999999", "x"),
        step=("1",),
        out=("", "/dev/null", "/"),
    ),
    *options(
        "export",
        lambda w: ["export", w.run, "--out", w.here / "out"],
        format=("tflite", ""),
        step=("9", "-1", "x"),
    ),
    *options(
        "export",
        lambda w: ["export", w.run, "--out", w.here / "out"],
        max_int8_drop=("-1", "nan", "x"),
        opset=("9", "99", "x"),
        fixed_batch=("0", "-1", "x"),
    ),
    *options(
        "audit",
        lambda w: ["audit", w.run],
        channels=("0", "1", "-1", "x"),
        images=("0", "-1"),
        criterion=("talor",),
        step=("9",),
    ),
    *options(
        "audit",
        lambda w: ["audit", w.run],
        size=("0", "-1"),
        seed=("-1", str(2**64)),
        group_by=("(",),
    ),
    *options(
        "groups",
        lambda w: ["groups", "--model", "resnet18"],
        size=("0", "-1", "x"),
        attention=("all",),
        svg=("/nowhere/x.svg",),
    ),
]


# --- paths and addresses that lead nowhere ------------------------------------------------------------------------------------------


def paths_of(w: World) -> dict[str, list[list[object]]]:
    """Command lines by verb, with `None` where a path of the user's stands."""
    out = ["--out", w.here / "out"]
    new = ["--model", "resnet18", "--weights", "none"]
    return {
        "check": [["check", None]],
        "train": [
            ["train", None, *new, *out],
            ["train", "--resume", None],
            ["train", w.data, "--model", "resnet18", "--weights", None, *out],
        ],
        "prune": [
            ["prune", None, *new, *out],
            ["prune", "--resume", None],
            ["prune", "--from", None, *out],
        ],
        "export": [["export", None, *out]],
        "audit": [["audit", None], ["audit", None, *new, *out]],
        "show": [["show", None]],
        "report": [["report", None]],
        "groups": [["groups", "--from", None]],
        "bench": [
            ["bench", None],
            ["bench", w.edge, "--against", None],
            ["bench", w.edge, "--data", None],
        ],
        "inspect": [["inspect", None, w.photos], ["inspect", w.edge, None]],
        "compare-inspections": [["compare-inspections", None, w.photos, *out]],
        "evaluate": [["evaluate", None, w.data], ["evaluate", w.edge, None]],
        "predict": [["predict", None, w.photos, *out], ["predict", w.edge, None, *out]],
        "patches": [
            ["patches", None, w.masks, *out, "--size", 16],
            ["patches", w.photos, None, *out, "--size", 16],
        ],
        "agent": [
            ["agent", None, *watching(w)[2:]],
            [
                "agent",
                w.edge,
                "--watch",
                None,
                "--broker",
                "mqtt://h",
                "--topic",
                "t",
                "--state",
                w.here / "state",
            ],
        ],
        "sign": [["sign", None, *signing(w)[2:]]],
        "study": [
            ["study", None, *out],
            ["study", "status", None],
            ["study", "crossval", None, *new, *out],
        ],
    }


NOWHERE = {
    "missing": (lambda w: w.here / "missing", "missing"),
    "long": (lambda w: w.here / LONG, "xxx"),
    "longer": (lambda w: w.here / "/".join([LONG[:200]] * 30), "xxx"),
    "zero": (lambda w: f"{w.here}/a\0b", "a"),
    "below a file": (lambda w: w.write("file") / "below", "below"),
    "a device": (lambda w: "/dev/null", "null"),
    "an empty folder": (lambda w: w.folder("hollow"), "hollow"),
    "a loop": (lambda w: _loop(w), "loop"),
}


def _loop(w: World) -> Path:
    (w.here / "loop").symlink_to(w.here / "loop")
    return w.here / "loop"


def nowhere(verb: str, place: int, how: str) -> Case:
    def line(w: World) -> list[object]:
        path = NOWHERE[how][0](w)
        return [path if word is None else word for word in paths_of(w)[verb][place]]

    return Case(f"{verb} {place}: {how}", line, NOWHERE[how][1])


SHAPE = {
    "check": 1,
    "train": 3,
    "prune": 3,
    "export": 1,
    "audit": 2,
    "show": 1,
    "report": 1,
    "groups": 1,
    "bench": 3,
    "inspect": 2,
    "evaluate": 2,
    "predict": 2,
}
SHAPE |= {"patches": 2, "agent": 2, "sign": 1, "study": 3, "compare-inspections": 1}
# An agent waits for images in an empty folder.
FINE = {("agent", 1, "an empty folder")}
PLACES = [
    nowhere(verb, place, how)
    for verb, count in SHAPE.items()
    for place in range(count)
    for how in NOWHERE
    if (verb, place, how) not in FINE
]

URLS = (
    "hdfs://host/data",
    "s3://",
    "gopher://host/x",
    "http://127.0.0.1:1/x.tar",
    "memory://nothing",
    "train-{000..}.tar",
    "x-{5..1}.tar",
)
ADDRESSES = [
    *(
        Case(f"check {url}", lambda w, u=url: ["check", u], url.partition(":")[0].partition("-")[0])
        for url in URLS
    ),
    *(
        Case(
            f"train {url}",
            lambda w, u=url: ["train", u, *training(w)[2:]],
            url.partition(":")[0].partition("-")[0],
        )
        for url in URLS
    ),
    *(
        Case(f"study {url}", lambda w, u=url: ["study", "status", u], url.partition(":")[0])
        for url in URLS[:3]
    ),
    *(
        Case(f"report {url}", lambda w, u=url: ["report", u], url.partition(":")[0])
        for url in URLS[:3]
    ),
]


# --- files of weights -----------------------------------------------------------------------------------------------------------------


def state() -> dict[str, torch.Tensor]:
    from tests.small_models import tiny

    return {name: value.clone() for name, value in tiny(2).state_dict().items()}


def saved(change: Callable[[dict[str, Any]], Any], name: str = "w.pth") -> Callable[[World], Path]:
    def write(w: World) -> Path:
        found = state()
        changed = change(found)
        torch.save(found if changed is None else changed, w.here / name)
        return w.here / name

    return write


def first(found: dict[str, Any], make: Callable[[torch.Tensor], Any]) -> None:
    name = next(name for name, value in found.items() if value.ndim == 4)
    found[name] = make(found[name])


class Payload:
    """A pickle that would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.path.join(os.environ["PRUNEDGE_CACHE"], "pickled"),)


def onnx_file(w: World) -> Path:
    return w.write("w.onnx", (w.edge / "model.onnx").read_bytes())


def huge_header(w: World) -> Path:
    return w.write("w.safetensors", struct.pack("<Q", 2**62) + b"{}")


def hungry_header(w: World) -> Path:
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    ).encode()
    return w.write("w.safetensors", struct.pack("<Q", len(header)) + header)


def deep_header(w: World) -> Path:
    header = DEEP.encode()
    return w.write("w.safetensors", struct.pack("<Q", len(header)) + header)


def zip_of(w: World) -> Path:
    with zipfile.ZipFile(w.here / "w.pth", "w") as packed:
        packed.writestr("hello.txt", "hello")
    return w.here / "w.pth"


def torchscript(w: World) -> Path:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), w.here / "w.pt")
    return w.here / "w.pt"


def tensors(**named: torch.Tensor) -> Callable[[World], Path]:
    def write(w: World) -> Path:
        save_file(named, w.here / "w.safetensors")
        return w.here / "w.safetensors"

    return write


WEIGHTS: dict[str, Callable[[World], Path]] = {
    "sparse": saved(lambda s: first(s, lambda t: t.to_sparse())),
    "sparse rows": saved(lambda s: s.update(x=torch.eye(3).to_sparse_csr())),
    "quantised": saved(
        lambda s: first(s, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8))
    ),
    "meta": saved(lambda s: first(s, lambda t: t.to("meta"))),
    "all meta": saved(lambda s: {name: value.to("meta") for name, value in s.items()}),
    "int8": saved(lambda s: first(s, lambda t: t.to(torch.int8))),
    "all int8": saved(lambda s: {name: value.to(torch.int8) for name, value in s.items()}),
    "int64": saved(lambda s: first(s, lambda t: t.to(torch.int64))),
    "bool": saved(lambda s: first(s, lambda t: t > 0)),
    "complex": saved(lambda s: first(s, lambda t: t.to(torch.complex64))),
    "all complex": saved(lambda s: {name: value.to(torch.complex64) for name, value in s.items()}),
    "float8": saved(lambda s: first(s, lambda t: t.to(torch.float8_e4m3fn))),
    "nan": saved(lambda s: first(s, lambda t: t * float("nan"))),
    "infinity": saved(lambda s: first(s, lambda t: t / 0)),
    "numbers as keys": saved(lambda s: dict(enumerate(s.values()))),
    "a list": saved(lambda s: list(s.values())),
    "a tensor": saved(lambda s: next(iter(s.values()))),
    "a number": saved(lambda s: 7),
    "text": saved(lambda s: "weights"),
    "empty dict": saved(lambda s: {}),
    "nested deep": saved(lambda s: {"a": {"b": {"c": {"d": {"e": {"f": {"g": s}}}}}}}),
    "two models": saved(lambda s: {"one": s, "two": s}),
    "numpy": saved(lambda s: {name: value.numpy() for name, value in s.items()}),
    "strings": saved(lambda s: dict.fromkeys(s, "x")),
    "none": saved(lambda s: dict.fromkeys(s)),
    "one layer lacks": saved(lambda s: {name: s[name] for name in list(s)[1:]}),
    "other shapes": saved(lambda s: first(s, lambda t: t[:, :1])),
    "no dimensions": saved(lambda s: first(s, lambda t: t.sum())),
    "too many dimensions": saved(lambda s: first(s, lambda t: t[None, None])),
    "no channels": saved(lambda s: first(s, lambda t: t[:0])),
    "another model": saved(lambda s: {f"conv_stem.{i}": torch.ones(2, 3) for i in range(5)}),
    "a whole model": saved(lambda s: torch.nn.Linear(2, 2)),
    "a pickle that acts": saved(lambda s: Payload()),
    "a pickle that acts inside": saved(
        lambda s: {"state_dict": s, "more": Payload()} and {"x": Payload()}
    ),
    "an onnx file": onnx_file,
    "an empty file": lambda w: w.write("w.pth"),
    "garbage": lambda w: w.write("w.pth", b"\x80\x02garbage" * 9),
    "text file": lambda w: w.write("w.pth", "hello"),
    "cut short": lambda w: w.write("w.pth", saved(lambda s: None, "x.pth")(w).read_bytes()[:-100]),
    "a zip of something": zip_of,
    "torchscript": torchscript,
    "an html page": lambda w: w.write("w.pth", "<!doctype html><title>Not found</title>"),
    "a git-lfs pointer": lambda w: w.write(
        "w.pth", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "safetensors, empty": lambda w: w.write("w.safetensors"),
    "safetensors, garbage": lambda w: w.write("w.safetensors", b"\xff" * 64),
    "safetensors, huge header": huge_header,
    "safetensors, hungry": hungry_header,
    "safetensors, deep": deep_header,
    "safetensors, none": tensors(),
    "safetensors, foreign": tensors(x=torch.ones(2), y=torch.ones(3, 3)),
    "safetensors, int8": lambda w: tensors(
        **{name: value.to(torch.int8) for name, value in state().items()}
    )(w),
    "a folder": lambda w: w.folder("w"),
}


def start_from(w: World, weights: object) -> list[object]:
    return [
        "train",
        w.data,
        "--model",
        "tests.small_models:tiny",
        "--size",
        16,
        "--weights",
        weights,
        "--out",
        w.here / "out",
    ]


FILES = [
    Case(
        f"weights: {name}",
        lambda w, make=make: start_from(w, make(w)),
        "neither a run" if name == "a folder" else "/w.",
    )
    for name, make in WEIGHTS.items()
]
FILES += [
    Case("weights: imagenet of one's own", lambda w: start_from(w, "imagenet"), "tiny"),
    Case(
        "weights: for an audit",
        lambda w: [
            "audit",
            w.data,
            "--model",
            "resnet18",
            "--weights",
            w.write("w.pth"),
            "--out",
            "x",
        ],
        "w",
    ),
]


# --- images, manifests and shards -------------------------------------------------------------------------------------------------


def image(seed: int = 0) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
        packed, "PNG"
    )
    return packed.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A header that asks for so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def with_one(name: str, content: bytes) -> Callable[[World], Path]:
    """Class folders with one bad image."""

    def write(w: World) -> Path:
        for label in ("crack", "sound"):
            for number in range(8):
                w.write(f"images/{label}/{number}.png", image(number + 100 * (label == "sound")))
        w.write(f"images/crack/{name}", content)
        return w.here / "images"

    return write


IMAGES: dict[str, tuple[str, bytes]] = {
    "empty": ("bad.png", b""),
    "text": ("bad.png", b"hello"),
    "cut short": ("bad.png", image()[:-200]),
    "flipped": ("bad.png", image()[:60] + bytes(20) + image()[80:]),
    "a bomb": ("bad.png", png_of(100_000, 100_000)),
    "no pixels": ("bad.png", png_of(0, 0)),
    "html": ("bad.jpg", b"<html>not found</html>"),
    "another kind": ("bad.tif", b"II*\0" + b"\xff" * 40),
    "a jpeg's beginning": ("bad.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"),
    "eps": ("bad.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
}


def manifest(text: str | bytes, *images: str) -> Callable[[World], Path]:
    def write(w: World) -> Path:
        for number, name in enumerate(images or [f"{i}.png" for i in range(16)]):
            w.write(f"m/{name}", image(number))
        return w.write("m/manifest.csv", text)

    return write


def rows(*lines: str) -> str:
    return (
        "\n".join(
            ["path,label", *(f"{i}.png,{'crack' if i % 2 else 'sound'}" for i in range(16)), *lines]
        )
        + "\n"
    )


MANIFESTS: dict[str, str | bytes] = {
    "empty": "",
    "no columns": "a,b\n1,2\n",
    "no rows": "path,label\n",
    "a zero in a name": rows("a\0b.png,crack"),
    "a zero in the header": "path\0,label\n",
    "a long name": rows(f"{LONG}.png,crack"),
    "a longer name": rows("/".join([LONG[:200]] * 30) + ".png,crack"),
    "a missing image": rows("nowhere.png,crack"),
    "no label": rows("0.png,"),
    "a split that is none": "path,label,split\n0.png,crack,holdout\n",
    "no bytes of text": b"path,label\n\xff\xfe.png,crack\n",
    "one class": "path,label\n0.png,crack\n1.png,crack\n",
    "twice": rows("0.png,crack"),
    "a quote that never ends": 'path,label\n"0.png,crack\n' + "x" * 200_000,
    "a huge field": "path,label\n" + "x" * 200_000 + ",crack\n",
    "a list as label": 'path,label\n0.png,"[1, 2]"\n1.png,"[3, 4]"\n',
    "a folder as image": rows(".,crack"),
    "utf-16": "path,label\n0.png,crack\n".encode("utf-16"),
}


def shard(*members: tuple[str, bytes], cut: int = 0, mode: str = "w") -> Callable[[World], Path]:
    def write(w: World) -> Path:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as tar:
            for name, content in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        content = packed.getvalue()
        return w.write("x.tar", content[: len(content) - cut] if cut else content)

    return write


GOOD = [(f"{i}.png", image(i)) for i in range(8)]
SHARDS: dict[str, Callable[[World], Path]] = {
    "deep json": shard(*GOOD, *((f"{i}.json", DEEP[: 60_000 - i].encode()) for i in range(8))),
    "deep objects": shard(*GOOD, *((f"{i}.json", b'{"label":' * 9_000) for i in range(8))),
    "large json": shard(
        *GOOD, *((f"{i}.json", b'{"label": "' + b"x" * 300_000 + b'"}') for i in range(8))
    ),
    "no json": shard(*GOOD, *((f"{i}.json", b"{") for i in range(8))),
    "json of another kind": shard(*GOOD, *((f"{i}.json", b"[1]") for i in range(8))),
    "a huge number": shard(
        *GOOD, *((f"{i}.json", b'{"label": ' + b"9" * 6_000 + b"}") for i in range(8))
    ),
    "no number": shard(*GOOD, *((f"{i}.json", b'{"label": NaN}') for i in range(8))),
    "no labels": shard(*GOOD),
    "no images": shard(("0.cls", b"1"), ("1.cls", b"0")),
    "a class that is none": shard(*GOOD, *((f"{i}.cls", b"\xff\xfe") for i in range(8))),
    "cut short": shard(*GOOD, *((f"{i}.cls", b"1") for i in range(8)), cut=11_000),
    "compressed": shard(*GOOD, mode="w:gz"),
    "empty": lambda w: w.write("x.tar"),
    "garbage": lambda w: w.write("x.tar", b"\x01" * 5_000),
    "an image that is none": shard(
        *((f"{i}.png", b"x") for i in range(8)), *((f"{i}.cls", b"%d" % (i % 2)) for i in range(8))
    ),
}
TOLD = (
    "a long name",
    "a longer name",
    "a missing image",
    "a folder as image",
)  # a check lists them with all else
DATA = [
    *(
        Case(
            f"train: image {n}",
            lambda w, g=g: ["train", with_one(*g)(w), *training(w)[2:]],
            "bad",
        )
        for n, g in IMAGES.items()
    ),
    *(
        Case(f"inspect: image {n}", lambda w, g=g: ["inspect", w.edge, w.write(*g)], "bad")
        for n, g in IMAGES.items()
    ),
    *(
        Case(f"evaluate: image {n}", lambda w, g=g: evaluating_alone(w, *g), "bad")
        for n, g in IMAGES.items()
    ),
    *(Case(f"patches: photo {n}", lambda w, g=g: cut_bad(w, *g), "bad") for n, g in IMAGES.items()),
    *(
        Case(
            f"check: manifest {n}",
            lambda w, t=t: ["check", manifest(t)(w), "--size", 16, "--strict"],
            "manifest",
        )
        for n, t in MANIFESTS.items()
        if n not in TOLD
    ),
    *(
        Case(
            f"train: manifest {n}", lambda w, t=t: ["train", manifest(t)(w), *training(w)[2:]], "m"
        )
        for n, t in MANIFESTS.items()
    ),
    *(
        Case(f"train: shard {n}", lambda w, m=m: ["train", m(w), *training(w)[2:]], "x.tar")
        for n, m in SHARDS.items()
    ),
]


def cut_bad(w: World, name: str, content: bytes) -> list[object]:
    w.write(f"p/{name}", content)
    w.write(f"q/{Path(name).stem}.png", image())
    return ["patches", w.here / "p", w.here / "q", "--out", w.here / "out", "--size", 16]


# --- bundles --------------------------------------------------------------------------------------------------------------------------


def told(change: Callable[[dict[str, Any]], Any]) -> Callable[[World], Path]:
    """A bundle whose manifest was changed by its maker."""

    def write(w: World) -> Path:
        target = altered(w.edge, w.here / "b")
        found = json.loads((target / "manifest.json").read_text())
        changed = change(found)
        (target / "manifest.json").write_text(json.dumps(found if changed is None else changed))
        return target

    return write


def raw(text: str | bytes, name: str = "manifest.json") -> Callable[[World], Path]:
    def write(w: World) -> Path:
        target = altered(w.edge, w.here / "b")
        w.write(f"b/{name}", text)
        return target

    return write


def model(make: Callable[[], bytes]) -> Callable[[World], Path]:
    return lambda w: altered(
        w.edge, w.here / "b", lambda folder: (folder / "model.onnx").write_bytes(make())
    )


def hungry_onnx() -> bytes:
    """A model of a few bytes that asks for 160 GB."""
    import onnx
    from onnx import TensorProto, helper

    size = helper.make_tensor("size", TensorProto.INT64, [1], [40_000_000_000])
    nodes = [
        helper.make_node(
            "ConstantOfShape",
            ["size"],
            ["large"],
            value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]),
        ),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=1),
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Add", ["flat", "sum"], ["added"]),
        helper.make_node("Slice", ["added", "from", "to", "along"], ["logits"]),
    ]
    more = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("from", 0), ("to", 2), ("along", 1))
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 16, 16])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "hungry", inputs, outputs, [size, *more])
    return onnx.helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def hungry_weights() -> bytes:
    """A model whose weights are said to be 160 GB."""
    from onnx import TensorProto, helper

    large = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[40_000_000_000])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["large"], ["logits"])],
        "hungry",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [large],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def outside_onnx() -> bytes:
    """A model that would read its weights from a file elsewhere."""
    from onnx import StringStringEntryProto, TensorProto, helper

    large = TensorProto(
        name="large", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL
    )
    large.external_data.append(
        StringStringEntryProto(key="location", value="../../../../etc/passwd")
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", ["large"], ["logits"])],
        "outside",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [large],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def npz(**named: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **named)
    return packed.getvalue()


def selftest(content: bytes) -> Callable[[World], Path]:
    return lambda w: altered(
        w.edge, w.here / "b", lambda folder: (folder / "selftest.npz").write_bytes(content)
    )


def pickled_npz() -> bytes:
    packed = io.BytesIO()
    np.savez(packed, pixels=np.array([Payload()], dtype=object), outputs=np.zeros((1, 2)))
    return packed.getvalue()


def lying_npz() -> bytes:
    """An array of a few bytes whose header asks for 160 GB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as folder:
        text = "{'descr': '|u1', 'fortran_order': False, 'shape': (160000000000, 16, 16, 3), }"
        head = text.ljust(117) + "\n"
        folder.writestr(
            "pixels.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
        )
        folder.writestr(
            "outputs.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
        )
    return packed.getvalue()


def file_named(name: str) -> Callable[[World], Path]:
    return told(lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))


BUNDLES: dict[str, Callable[[World], Path]] = {
    "deep manifest": raw(DEEP),
    "deep objects": raw('{"a":' * 100_000),
    "deep about": raw('{"about": {"x": ' + DEEP + "}}"),
    "empty manifest": raw(""),
    "a list": raw("[]"),
    "null": raw("null"),
    "no text": raw(b"\xff\xfe\x00"),
    "a huge manifest": raw(" " * (17 * 2**20)),
    "nan": raw('{"format": NaN}'),
    "another format": told(lambda m: m.update(format=9)),
    "format 1": raw('{"format": 1}'),
    "format 2": raw('{"format": 2, "sha256": "0"}'),
    "more than there is": told(lambda m: m.update(more=1)),
    "no classes": told(lambda m: m["task"].update(classes=[])),
    "classes of another kind": told(lambda m: m["task"].update(classes="crack")),
    "too many classes": told(
        lambda m: m["task"].update(classes=[f"crack{i or ''}" for i in range(7)])
    ),
    "size 0": told(lambda m: m["task"].update(size=[0, 16])),
    "size huge": told(lambda m: m["task"].update(size=[10**9, 16])),
    "another size": told(lambda m: m["task"].update(size=[32, 32])),
    "a size that is a side": told(lambda m: m["task"].update(size=16)),
    "a task that is not known": told(lambda m: m["task"].update(name="boxes\x1b[2J")),
    "a resize that is none": told(lambda m: m["task"].update(resize="squeeze")),
    "no task": told(lambda m: m.pop("task") and None),
    "no mean": told(lambda m: m.update(mean=[])),
    "no forms": told(lambda m: m.update(forms={})),
    "a form that is none": told(lambda m: m["forms"].update(tflite=m["forms"].pop("onnx"))),
    "a form of no file": told(lambda m: m["forms"]["onnx"].update(files=["none.onnx"])),
    "a form without files": told(lambda m: m["forms"]["onnx"].update(files=[])),
    "no self-test": told(lambda m: m["files"].pop("selftest.npz") and None),
    "negative bytes": told(lambda m: m["files"]["model.onnx"].update(bytes=-1)),
    "no checksum": told(lambda m: m["files"]["model.onnx"].update(sha256="x")),
    "another checksum": told(lambda m: m["files"]["model.onnx"].update(sha256="0" * 64)),
    "a file that is missing": file_named("missing.bin"),
    "a file outside": file_named("../outside"),
    "an absolute file": file_named("/etc/passwd"),
    "a zero in a name": file_named("a\0b"),
    "a long name": file_named(LONG),
    "a deep name": file_named("/".join("d" * 1500)),
    "a name of escapes": file_named("\x1b[2J"),
    "a backslash": file_named("a\\b"),
    "greys upside down": told(lambda m: m.update(greys={"low": 9, "high": 1})),
    "a view without sides": told(
        lambda m: m.update(view={"kind": "patch", "width": 0, "height": 0})
    ),
    "a model that is empty": model(bytes),
    "a model of garbage": model(lambda: b"\xff" * 99),
    "a model that asks for 160 GB": model(hungry_onnx),
    "weights that are said to be 160 GB": model(hungry_weights),
    "a model that reads elsewhere": model(outside_onnx),
    "a self-test that is empty": selftest(b""),
    "a self-test of garbage": selftest(b"\xff" * 99),
    "a self-test that acts": lambda w: selftest(pickled_npz())(w),
    "a self-test that asks for 160 GB": selftest(lying_npz()),
    "a self-test without answers": selftest(npz(pixels=np.zeros((1, 16, 16, 3), np.uint8))),
    "a self-test of another size": selftest(
        npz(pixels=np.zeros((1, 8, 8, 3), np.uint8), outputs=np.zeros((1, 2)))
    ),
    "a self-test of another kind": selftest(
        npz(pixels=np.zeros((1, 16, 16, 3)), outputs=np.zeros((1, 2)))
    ),
    "a self-test of no images": selftest(
        npz(pixels=np.zeros((0, 16, 16, 3), np.uint8), outputs=np.zeros((0, 2)))
    ),
    "a self-test of other classes": selftest(
        npz(pixels=np.zeros((1, 16, 16, 3), np.uint8), outputs=np.zeros((1, 5)))
    ),
}
# The agent and the signer don't run a model before it is asked for; a bench runs it in a process of its own.
RUN = [
    name
    for name in BUNDLES
    if name.startswith(("a self-test", "a model", "weights", "another size", "too many classes"))
]
DEVICES = [
    *(
        Case(
            f"inspect: bundle, {n}",
            lambda w, m=m: ["inspect", m(w), w.photos, "--damage", "crack"],
            "b",
        )
        for n, m in BUNDLES.items()
    ),
    *(
        Case(f"sign: bundle, {n}", lambda w, m=m: ["sign", m(w), *signing(w)[2:]], "b")
        for n, m in BUNDLES.items()
        if n not in RUN
    ),
    *(
        Case(f"agent: bundle, {n}", lambda w, m=m: ["agent", m(w), *watching(w)[2:]], "b")
        for n, m in BUNDLES.items()
        if n not in RUN
    ),
]


# --- runs, studies and what is asked of them -----------------------------------------------------------------------------------------


def grid(text: str) -> Line:
    return lambda w: ["study", w.write("grid.toml", text), "--out", w.here / "out"]


def recipe(text: str | bytes) -> Callable[[World], Path]:
    return lambda w: w.write("r/config.toml", text).parent


RECIPES: dict[str, str | bytes] = {
    "empty": "",
    "garbage": b"\xff\xfe",
    "no toml": "model: resnet18",
    "unknown key": 'data = "x"\nmodel = "resnet18"\nmodle = 1\n',
    "a number as model": 'data = "x"\nmodel = 7\n',
    "a list as data": 'data = [1]\nmodel = "resnet18"\n',
    "deep": "data = " + "[" * 5_000,
    "not a date": 'data = "x"\nmodel = "resnet18"\nseed = 2026-99-99\n',
    "nan": 'data = "x"\nmodel = "resnet18"\nlr = nan\n',
    "half a surrogate": 'data = "\\ud83d"\nmodel = "resnet18"\n',
}
VERBS = {"show": [], "report": [], "audit": [], "export": ["--out", "x"]}
JOBS = [
    *(
        Case(f"{verb}: recipe, {n}", lambda w, v=verb, t=t: [v, recipe(t)(w), *VERBS[v]], "r")
        for verb in VERBS
        for n, t in RECIPES.items()
    ),
    Case("study: empty", grid(""), "grid"),
    Case("study: garbage", grid("x ="), "grid"),
    Case("study: no model", grid('data = "x"'), "model"),
    Case("study: unknown key", grid('data = "x"\nmodel = "resnet18"\nmodle = 1'), "modle"),
    Case("study: an empty list", grid('data = "x"\nmodel = []'), "model"),
    Case("study: nan", grid('data = "x"\nmodel = "resnet18"\nstep_ratio = nan'), "step"),
    Case("study: deep", grid("data = " + "[" * 5_000), "grid"),
    Case(
        "study: too many", grid('data = "x"\nmodel = "resnet18"\nseed = [' + "0," * 3 + "]"), "/x"
    ),
    Case(
        "export into a folder that holds something",
        lambda w: ["export", w.run, "--out", w.write("o/x").parent],
        "o",
    ),
    Case(
        "train into a folder that holds something",
        lambda w: [*training(w)[:-1], w.write("o/x").parent],
        "o",
    ),
    Case("train into a file", lambda w: [*training(w)[:-1], w.write("o")], "o"),
    Case("prune into a file", lambda w: [*pruning(w)[:-1], w.write("o")], "o"),
    Case(
        "patches into a folder that holds something",
        lambda w: ["patches", w.photos, w.masks, "--out", w.write("o/x").parent, "--size", 16],
        "o",
    ),
    Case(
        "inspect into a folder that holds something",
        lambda w: [*looking(w), "--out", w.write("o/x").parent, "--damage", "crack"],
        "o",
    ),
    Case("a bundle as a run", lambda w: ["show", w.bundle], "bundle"),
    Case("a run as a bundle", lambda w: ["bench", w.run], "run"),
    Case("images as a run", lambda w: ["export", w.data, "--out", w.here / "out"], "data"),
    Case(
        "prune from a run and a model",
        lambda w: ["prune", "--from", w.run, "--model", "resnet18", "--out", w.here / "out"],
        "--model",
    ),
    Case("prune without a model", lambda w: ["prune", w.data, "--out", w.here / "out"], "model"),
    Case("train without images", lambda w: ["train", "--out", w.here / "out"], "images"),
    Case("train without a folder", lambda w: ["train", w.data], "--out"),
    Case(
        "train an unknown model",
        lambda w: ["train", w.data, "--model", "resnt18", "--out", w.here / "out"],
        "resnet18",
    ),
    Case(
        "train a module that is none",
        lambda w: ["train", w.data, "--model", "no.such:net", "--out", w.here / "out"],
        "no.such",
    ),
    Case(
        "train what is no function",
        lambda w: [
            "train",
            w.data,
            "--model",
            "json:decoder",
            "--weights",
            "none",
            "--out",
            w.here / "out",
        ],
        "json",
    ),
    Case(
        "train a file that is none",
        lambda w: [
            "train",
            w.data,
            "--model",
            f"{LONG}:x",
            "--weights",
            "none",
            "--out",
            w.here / "out",
        ],
        "xxx",
    ),
    Case(
        "train nothing in the name",
        lambda w: ["train", w.data, "--model", ":", "--weights", "none", "--out", w.here / "out"],
        ":",
    ),
    Case(
        "train a name that leads up",
        lambda w: [
            "train",
            w.data,
            "--model",
            "..x:y",
            "--weights",
            "none",
            "--out",
            w.here / "out",
        ],
        "x",
    ),
    Case("groups of nothing", lambda w: ["groups"], "--model"),
    Case("groups of two", lambda w: ["groups", "--model", "resnet18", "--from", w.run], "--model"),
    Case(
        "predict into an address",
        lambda w: ["predict", w.edge, w.photos, "--out", "s3://bucket/x"],
        "bucket",
    ),
    Case("predict nothing", lambda w: ["predict", w.edge, "--out", w.here / "out"], "images"),
    Case("bench of nothing", lambda w: ["bench"], "bundle"),
    Case(
        "export both",
        lambda w: ["export", w.run, "--out", w.here / "out", "--step-ratio", 0, "--baseline"],
        "--step-ratio",
    ),
    Case(
        "export a batch that no form has",
        lambda w: [
            *("export", w.run, "--out", w.here / "out"),
            *("--format", "torch-export", "--fixed-batch", 4),
        ],
        "--fixed-batch",
    ),
    Case("resume by another verb", lambda w: ["prune", "--resume", w.run], "run"),
    Case(
        "resume as another model",
        lambda w: ["train", "--resume", w.run, "--model", "resnet18"],
        "model",
    ),
    Case(
        "resume into another folder",
        lambda w: ["train", "--resume", w.run, "--out", w.here / "out"],
        "--out",
    ),
    Case("an unknown verb", lambda w: ["prnue", w.data], "prnue"),
    Case("an unknown option", lambda w: ["show", w.run, "--jsn"], "--jsn"),
    Case("an argument too many", lambda w: ["show", w.run, w.run], "run"),
    Case("an argument too few", lambda w: ["export"], "export"),
    Case("a zero in an option", lambda w: ["export", w.run, "--out", "a\0b"], "a"),
    Case("a long name for the result", lambda w: ["export", w.run, "--out", w.here / LONG], "xxx"),
    Case("a long name for a run", lambda w: [*training(w)[:-1], w.here / LONG], "xxx"),
    Case(
        "a long name for a drawing",
        lambda w: ["groups", "--model", "resnet18", "--size", 32, "--svg", w.here / f"{LONG}.svg"],
        "xxx",
    ),
    Case(
        "a camera that is not there",
        lambda w: ["inspect", w.edge, "camera:97", "--damage", "crack"],
        "camera",
    ),
    Case(
        "a video that is none",
        lambda w: ["inspect", w.edge, w.write("v.mp4", b"x"), "--damage", "crack"],
        "v.mp4",
    ),
]

CASES = [*OPTIONS, *PLACES, *ADDRESSES, *FILES, *DATA, *DEVICES, *JOBS]


def test_there_are_three_hundred_of_them_over_every_verb() -> None:
    from prunedge.cli.verbs import VERBS as ALL

    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.name.split()[0].rstrip(":") for case in CASES} >= set(ALL) - {"demo"}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: case.name.encode("ascii", "backslashreplace").decode()[:70]
)
def test_bad_input_is_one_line(
    case: Case,
    shared: World,
    tmp_path: Path,
    said: Callable[[list[object]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_everything", True)  # or all runs would be refused for that
    world = World(**{**vars(shared), "here": tmp_path})
    line = case.line(world)
    before = state_of(
        shared.run, shared.bundle, shared.edge, shared.data, shared.photos, shared.masks, tmp_path
    )
    told = said(line)
    plain = told.lower().replace("-", "_")
    # The option or its value, or what the file is called.
    words = [case.word, *([case.name.partition("=")[2]] if case.name.partition("=")[2] else [])]
    assert any(word.lower().replace("-", "_") in plain for word in words), told
    after = state_of(
        shared.run, shared.bundle, shared.edge, shared.data, shared.photos, shared.masks, tmp_path
    )
    kept = {
        name: content
        for name, content in after.items()
        if "/state" not in name.removeprefix(str(tmp_path))
    }
    assert kept == before
    assert not os.path.exists(os.path.join(os.environ["PRUNEDGE_CACHE"], "pickled"))
