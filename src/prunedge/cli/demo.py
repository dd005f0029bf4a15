"""`prunedge demo`: the main job on real photographs, from images to report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunedge.cli.options import Flag

if TYPE_CHECKING:
    from prunedge.cli.console import Advance
    from prunedge.runs.run import Run

PATCHES = 200  # that each bundle is timed on


def demo(*, out: Path = Path("demo-run"), json: Flag = False) -> None:
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
    from prunedge.runs.demo import refuse_other
    from prunedge.runs.export import time_bundles

    refuse_other(out)
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
        f"{speed.after_ms:.2f} ms for an image ({speed.words()})"
    )
    tell(f"report: {page}")


def _run(out: Path, advance: Advance, quiet: bool) -> Run:
    """The pruned run, begun or gone on with."""
    from prunedge.cli.console import say
    from prunedge.cli.pruning_lines import callbacks
    from prunedge.data import write_elpv
    from prunedge.report.metric_text import metric_of
    from prunedge.runs import execute
    from prunedge.runs.demo import demo_config, images_beside
    from prunedge.runs.run import open_run

    if (out / "config.toml").exists():
        metric = metric_of(open_run(out).config)
        return execute.resume(out, callbacks(metric, advance, quiet))

    images = write_elpv(images_beside(out))
    config = demo_config(images)
    if not quiet:
        say(
            f"training ResNet18 from random weights for {config.train.epochs} epochs on "
            "photographs of solar cells, then pruning"
        )
    return execute.prune(config, out, callbacks(metric_of(config), advance, quiet))
