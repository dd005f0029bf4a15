"""`prunedge demo`: the main job on real photographs, from images to report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from prunedge.cli.console import Advance
    from prunedge.config import RunConfig
    from prunedge.runs.run import Run

SIZE = 128
STEP = 0.5
MAX_STEPS = 3
PATCHES = 200
# As many epochs as this machine trains in about two minutes, so that the demo is short on a slow
# one and good on a fast one.
TRAIN_SECONDS = 130.0
LEAST_EPOCHS = 2
MOST_EPOCHS = 8
IMAGES = 1837


def demo(
    *, out: Path = Path("demo-run"), json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Run the main job on 2,624 photographs of solar cells (functional or defective): train, prune,
    export, measure, report.

    ResNet18 at 128 pixels from random weights, a few minutes on two cores; every figure comes from
    this machine.

    Example: `prunedge demo --out demo-run`

    Parameters
    ----------
    out
        The run folder to make; a demo that was interrupted goes on where it was.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, tell
    from prunedge.edge.bench.ratios import speed_of
    from prunedge.report import write_report
    from prunedge.report.text import pruned
    from prunedge.runs.export import time_bundles

    _refuse_other(out)
    with progress("demo", quiet=json) as advance:
        run = _run(out, advance, json)
        measured = time_bundles(run, PATCHES, advance)
    page = write_report(run)
    if json:
        print_json({**run.summary(), "report": str(page)})
        return
    speed = speed_of(measured.to_json())
    tell(pruned(run).rsplit("\n", 1)[0])
    tell(
        f"ONNX Runtime, 1 thread, batch 1: {speed.before_ms:.2f} ms -> "
        f"{speed.after_ms:.2f} ms for an image ({speed.said()})"
    )
    tell(f"report: {page}")


def _run(out: Path, advance: Advance, quiet: bool) -> Run:
    """The pruned run, begun or gone on with."""
    from prunedge.cli.console import say
    from prunedge.cli.prune import callbacks
    from prunedge.data import write_elpv
    from prunedge.report.metric_text import metric_of
    from prunedge.runs import execute
    from prunedge.runs.run import open_run

    if (out / "config.toml").exists():
        metric = metric_of(open_run(out).config)
        return execute.resume(out, callbacks(metric, advance, quiet))

    images = write_elpv(_images(out))
    config = _config(images)
    if not quiet:
        say(
            f"training ResNet18 from random weights for {config.train.epochs} epochs on "
            "photographs of solar cells, then pruning"
        )
    return execute.prune(config, out, callbacks(metric_of(config), advance, quiet))


def _config(images: Path) -> RunConfig:
    """What the demo asks for."""
    from prunedge.config import RunConfig
    from prunedge.utils.files import real_path

    return RunConfig.make(
        "prunedge demo",
        data=str(real_path(images)),
        model="resnet18",
        weights="none",
        size=SIZE,
        train_epochs=_affordable_epochs(),
        step_ratio=STEP,
        max_steps=MAX_STEPS,
        max_drop=3.0,
    )


def _images(out: Path) -> Path:
    """The folder of the demo's images, beside its run."""
    return out.with_name(f"{out.name}-images")


def _refuse_other(out: Path) -> None:
    """PrunedgeError where the demo can't be made in a folder: it holds something else, or another
    run.
    """
    from prunedge.edge.image.size import square
    from prunedge.errors import PrunedgeError, RunError
    from prunedge.runs.new import refuse_full
    from prunedge.runs.run import open_run
    from prunedge.utils.files import real_path

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
    manifest = str(real_path(_images(out) / "manifest.csv"))
    if asked != (manifest, "resnet18", "none", square(SIZE), STEP):
        raise RunError("this is another run than a demo", where=out, remedy="choose another --out")


def _affordable_epochs() -> int:
    import torch

    from prunedge.models import build
    from prunedge.train import measure_engine

    engine = measure_engine(build("resnet18", 2, "none"), torch.zeros(8, 3, SIZE, SIZE))
    seconds = engine.timings[engine.name] / 1e3 * IMAGES
    return int(min(MOST_EPOCHS, max(LEAST_EPOCHS, TRAIN_SECONDS // seconds)))
