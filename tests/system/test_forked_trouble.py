"""A full disk, a read-only place, no memory, from the n-th write of a verb on: one line, exit code 2; mended, it ends as it would have.

A fork of this process gets into the trouble (`trouble/sitecustomize.py`); the limits of the system itself make it.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import random
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.runs.run import open_run
from tests.data.test_patches import mask, photo
from tests.system.test_forked_kills import contents, left_over

SHIM = Path(__file__).parent / "trouble" / "sitecustomize.py"
CAUSES = {
    "full": "File too large",
    "readonly": "Read-only file system",
    "memory": "there is not enough memory",
}
TINY = (
    "--model",
    "tests.runs.test_run:small",
    "--weights",
    "none",
    "--size",
    16,
    "--batch-size",
    8,
    "--precision",
    "32",
)
PATIENCE_S = 300  # for a command; what waits for ever says where
PRUNE = (*TINY, "--train-epochs", 3, "--step-ratio", 0.3, "--max-drop", 60, "--max-steps", 2)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the trouble is made with Linux's limits"
)


def forked(*arguments: object, stdout: int | None = None, **environment: str) -> tuple[int, str]:
    """The exit code of a command, negative where a signal ended it, and all that it says; run in a fork with more in its environment.

    With `stdout`, a descriptor, what it prints goes there, and it says only the rest.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code, ends = 70, list[Callable[[], object]]()
        try:
            os.close(reading)
            # What the tests' own libraries do at their end is not for a fork.
            atexit.register = lambda work, *more, **named: (
                ends.append(partial(work, *more, **named)) or work
            )
            os.environ |= environment
            # What it starts, and what libraries of C++ say, goes there as well.
            os.dup2(writing if stdout is None else stdout, 1)
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            sys.stdout = sys.stderr if stdout is None else os.fdopen(1, "w")
            faulthandler.dump_traceback_later(PATIENCE_S, exit=True, file=sys.stderr)
            runpy.run_path(str(SHIM))
            main([str(one) for one in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            for end in reversed(ends):  # os._exit wouldn't
                end()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


def told(kind: str, root: Path, code: int, said: str) -> bool:
    """Whether the trouble stopped a command; if so it was told in one line, with the file, the cause and the remedy."""
    assert "Traceback" not in said, said
    if code == 0:
        return False
    if kind == "memory" and code < 0:
        return True  # a library of C++ gave up by itself, and nobody could say so
    last = said.strip().splitlines()[-1]
    assert code == 2, (code, said)
    assert re.match(rf"error: .*{CAUSES[kind]}", last), (code, said)
    assert kind == "memory" or str(root) in last, said
    assert (
        "go on with prunedge" in last
        or "give the same command again" in last
        or "PRUNEDGE_CACHE" in last
        or "choose another" in last
        or "free space" in last
    )
    return True


def moments(count: int) -> list[int]:
    return sorted(random.Random(11).sample(range(1, 12), count))


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    code, said = forked("prune", tiny_data, *PRUNE, "--out", out)
    assert code == 0, said
    return out


@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", CAUSES)
@pytest.mark.parametrize("verb", ["train", "prune"])
def test_a_run_goes_on_to_the_same_models(
    verb: str, kind: str, count: int, tiny_data: Path, whole: Path, tmp_path: Path
) -> None:
    new = (verb, tiny_data, *(PRUNE if verb == "prune" else (*TINY, "--epochs", 3)), "--out")
    troubles = 0
    for at in moments(count):
        root = tmp_path / str(at)
        root.mkdir()
        trouble = {
            "TROUBLE": f"{kind}:{at}",
            "TROUBLE_ROOT": str(root),
            "PRUNEDGE_CACHE": str(root / "cache"),
        }
        troubles += told(kind, root, *forked(*new, root / "run", **trouble))
        begun = (root / "run" / "config.toml").exists()
        # A second trouble on the way, and then none.
        again = (verb, "--resume", root / "run") if begun else (*new, root / "run")
        told(kind, root, *forked(*again, **{**trouble, "TROUBLE": f"{kind}:{at // 2 + 1}"}))
        begun = (root / "run" / "config.toml").exists()
        code, said = forked(
            *((verb, "--resume", root / "run") if begun else (*new, root / "run")),
            PRUNEDGE_CACHE=str(root / "cache"),
        )
        assert code == 0, said
        if verb == "prune":
            assert contents(root / "run") == contents(whole)
            assert open_run(root / "run").test() == open_run(whole).test()
        else:
            name = "checkpoints/step-000/model.safetensors"
            assert contents(root / "run")[name] == contents(whole)[name]
        assert left_over(root) == []
    assert troubles or kind == "memory" or verb == "train"


@pytest.mark.parametrize("kind", CAUSES)
@pytest.mark.parametrize("verb", ["export", "patches", "audit", "report"])
def test_a_target_is_there_whole_or_not_at_all(
    verb: str, kind: str, whole: Path, tmp_path: Path
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for number in range(2):
        photo(photos / f"{number}.png", seed=number)
        mask(masks / f"{number}.png", (0, 0, 16, 16))
    out = tmp_path / "out"
    commands = {
        "export": ("export", whole, "--out", out),
        "patches": ("patches", photos, masks, "--size", 16, "--out", out),
        "audit": (
            "audit",
            whole,
            "--out",
            out,
            "--criterion",
            "weight-l1",
            "--channels",
            2,
            "--images",
            8,
        ),
        "report": ("report", whole),
    }
    root = whole if verb == "report" else tmp_path
    trouble = {"TROUBLE": f"{kind}:1", "TROUBLE_ROOT": str(root)}
    stopped = told(kind, root, *forked(*commands[verb], **trouble))
    assert stopped or kind == "memory"
    if stopped and verb in ("export", "patches"):
        assert not out.exists()
    if stopped or verb in ("audit", "report"):
        code, said = forked(*commands[verb])
        assert code == 0, said
    assert left_over(tmp_path, whole) == []
