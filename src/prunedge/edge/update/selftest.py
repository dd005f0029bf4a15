"""A new bundle's trial, in a process of its own: a model that crashes, hangs or eats all memory
takes this process with it, no other.

python -m prunedge.edge.update.selftest BUNDLE RUNTIME [IMAGE...]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from prunedge.edge.bundle import open_bundle
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.edge.session import open_session
from prunedge.edge.update.pace import Unreachable
from prunedge.errors import AgentError, MachineError, PrunedgeError
from prunedge.utils.machine import machine_error
from prunedge.utils.systems import limit_memory_to_machine

TIMEOUT_S = 180.0
NOISE = 4
TOLERANCE = 1e-3  # of a sum of probabilities
NEAR = 0.05  # between an image alone and among others: quantised models may round by the batch


def selftest(
    bundle: Path, images: Iterable[Path], runtime: str | None = None, timeout: float = TIMEOUT_S
) -> float:
    """Try a bundle on its own images, on noise and on `images`; returns the milliseconds that a
    patch took.

    AgentError says what is wrong with it, Unreachable that it can't be tried now.
    """
    command = [
        sys.executable,
        "-m",
        "prunedge.edge.update.selftest",
        str(bundle),
        runtime or "",
        *map(str, images),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise Unreachable(
            f"the self-test can't be started ({error.strerror})", remedy="is there enough memory?"
        ) from None
    except subprocess.TimeoutExpired:
        raise AgentError(
            f"the self-test did not end in {timeout:.0f} s",
            where=bundle,
            remedy="the bundle is too slow here",
        ) from None
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise AgentError(
            f"the self-test died (exit code {done.returncode}, {last})",
            where=bundle,
            remedy="export the bundle again",
        ) from None
    if "trouble" in found:
        raise Unreachable(
            f"the self-test can't be done now: {found['trouble']}", remedy="is there enough memory?"
        )
    if "error" in found:
        raise AgentError(
            f"the self-test failed: {found['error']}", remedy="export the bundle again"
        )
    return found["milliseconds"]


def try_out(session: Any, classes: int, pixels: np.ndarray) -> str | None:
    """What is wrong with a model's answers to pixels (n, size, size, 3) uint8, or None.

    They must be n rows of probabilities, and the same for an image alone, again, and among others.
    """
    together = np.asarray(session.predict(pixels))
    if together.shape != (len(pixels), classes):
        return f"answers of shape {together.shape}, wanted {(len(pixels), classes)}"
    if not np.isfinite(together).all():
        return "answers that are no numbers"
    if together.min() < -TOLERANCE or np.abs(together.sum(1) - 1).max() > TOLERANCE:
        return "answers that are no probabilities"
    alone = np.concatenate([session.predict(pixels[i : i + 1]) for i in range(len(pixels))])
    if np.abs(alone - together).max() > NEAR:
        return "another answer to an image alone than among others"
    return None


def main() -> None:
    """Try the bundle named on the command line; one line of JSON on stdout."""
    with suppress(OSError):
        # When memory runs out, the system shall end this process and not the agent.
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit_memory_to_machine()
    try:
        bundle = open_bundle(sys.argv[1])
        session, size = open_session(bundle, target=sys.argv[2] or None), bundle.manifest.input_size
        session.self_test()
        pixels = [np.random.default_rng(0).integers(0, 256, (NOISE, size, size, 3), dtype=np.uint8)]
        for name in sys.argv[3:]:
            with suppress(PrunedgeError):  # it has gone meanwhile, or is of another depth
                pixels.append(read_image(name, square(size), bundle.greys)[None])
        tried = np.concatenate(pixels)
        started = perf_counter()
        wrong = try_out(session, len(bundle.manifest.classes), tried)
        answer = (
            {"error": wrong}
            if wrong
            else {"milliseconds": (perf_counter() - started) * 1e3 / (2 * len(tried))}
        )
    except Exception as error:  # whatever the model does, it is told in one line
        told = error if isinstance(error, PrunedgeError) else machine_error(error)
        why = f"{type(error).__name__}: {error}" if told is None else told.what
        answer = {
            "trouble" if isinstance(told, MachineError) else "error": " ".join(why.split())[:300]
        }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
