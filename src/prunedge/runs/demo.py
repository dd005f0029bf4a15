"""The demo's run: what is trained, for how long on this machine, and in which folder."""

from __future__ import annotations

from pathlib import Path

import torch

from prunedge.config import RunConfig
from prunedge.edge.image.size import square
from prunedge.errors import PrunedgeError, RunError
from prunedge.models import build
from prunedge.runs.new import refuse_full
from prunedge.runs.run import open_run
from prunedge.train import measure_engine
from prunedge.utils.files import real_path

SIZE = 128
STEP = 0.5
MAX_STEPS = 3
POLISH = 2
# As many epochs as this machine trains in about two minutes, so that the demo is short on a slow
# one and good on a fast one.
TRAIN_SECONDS = 130.0
LEAST_EPOCHS = 2
MOST_EPOCHS = 8
IMAGES = 1837


def demo_config(images: Path) -> RunConfig:
    """What the demo asks for."""
    return RunConfig.make(
        "prunedge demo",
        data=str(real_path(images)),
        model="resnet18",
        weights="none",
        size=SIZE,
        train_epochs=_affordable_epochs(),
        step_ratio=STEP,
        epochs=1,
        polish=POLISH,
        max_steps=MAX_STEPS,
        max_drop=3.0,
        operate="recall >= 0.8",
    )


def images_beside(out: Path) -> Path:
    """The folder of the demo's images, beside its run."""
    return out.with_name(f"{out.name}-images")


def refuse_other(out: Path) -> None:
    """PrunedgeError where the demo can't be made in a folder: it holds something else, or another
    run.
    """
    if out.name in ("", ".."):
        raise PrunedgeError(
            f"'{out}' is no new folder", where="--out", remedy="name one: --out demo-run"
        )
    if not (out / "config.toml").exists():
        refuse_full(out)
        return
    config = open_run(out).config
    asked = (
        config.data.path,
        config.model.name,
        config.model.weights,
        config.data.size,
        config.prune.step_ratio,
    )
    manifest = str(real_path(images_beside(out) / "manifest.csv"))
    if asked != (manifest, "resnet18", "none", square(SIZE), STEP):
        raise RunError("this is another run than a demo", where=out, remedy="choose another --out")


def _affordable_epochs() -> int:
    engine = measure_engine(build("resnet18", 2, "none"), torch.zeros(8, 3, SIZE, SIZE))
    seconds = engine.timings[engine.name] / 1e3 * IMAGES
    return int(min(MOST_EPOCHS, max(LEAST_EPOCHS, TRAIN_SECONDS // seconds)))
