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
from typing import Protocol

import numpy as np

from prunedge.edge.bundle import Bundle, open_bundle
from prunedge.edge.image.read import read_image
from prunedge.edge.session import Session, open_session
from prunedge.edge.tasks.base import Decoder
from prunedge.edge.update.pace import Unreachable
from prunedge.errors import AgentError, MachineError, PrunedgeError
from prunedge.utils.machine import machine_error
from prunedge.utils.systems import limit_memory_to_machine

TIMEOUT_S = 180.0
NOISE = 4


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
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise AgentError(
            f"the self-test died (exit code {done.returncode}, {last})",
            where=bundle,
            remedy="export the bundle again",
        ) from None
    if "trouble" in answer:
        raise Unreachable(
            f"the self-test can't be done now: {answer['trouble']}",
            remedy="is there enough memory?",
        )
    if "error" in answer:
        raise AgentError(
            f"the self-test failed: {answer['error']}", remedy="export the bundle again"
        )
    return answer["milliseconds"]


class Predictor(Protocol):
    """What a trial needs of a session."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predictions for images (n, height, width, channels) uint8."""


def try_out(session: Predictor, decoder: Decoder, pixels: np.ndarray) -> str | None:
    """What is wrong with a model's answers to pixels (n, height, width, channels) uint8, or
    None.

    They must be predictions of the decoder's task, and the same for an image alone, again, and
    among others.
    """
    together = np.asarray(session.predict(pixels))
    wrong = decoder.check_predictions(together, len(pixels))
    if wrong is not None:
        return wrong
    alone = np.concatenate([session.predict(pixels[i : i + 1]) for i in range(len(pixels))])
    if not decoder.is_near(alone, together):
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
        session = open_session(bundle, target=sys.argv[2] or None)
        session.self_test()
        task = bundle.manifest.task
        shape = (NOISE, *task.size, task.in_channels)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        pixels = [noise]
        for name in sys.argv[3:]:
            with suppress(PrunedgeError):  # it has gone meanwhile, or is of another depth
                pixels.append(_seen(Path(name), bundle)[None])
        images = np.concatenate(pixels)
        answer = _tried(session, images)
    except Exception as error:  # whatever the model does, it is told in one line
        known = error if isinstance(error, PrunedgeError) else machine_error(error)
        why = f"{type(error).__name__}: {error}" if known is None else known.what
        kind = "trouble" if isinstance(known, MachineError) else "error"
        answer = {kind: " ".join(why.split())[:300]}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _seen(image: Path, bundle: Bundle) -> np.ndarray:
    """An image as the bundle's model sees it, (height, width, channels) uint8."""
    task = bundle.manifest.task
    return read_image(image, task.size, bundle.greys, task.resize, task.in_channels)


def _tried(session: Session, images: np.ndarray) -> dict[str, str | float]:
    started = perf_counter()
    wrong = try_out(session, session.decoder, images)
    if wrong is not None:
        return {"error": wrong}
    return {"milliseconds": (perf_counter() - started) * 1e3 / (2 * len(images))}


if __name__ == "__main__":
    main()
