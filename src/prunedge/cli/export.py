"""`prunedge export`: a bundle that a device needs and no more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from prunedge.edge import Bundle
    from prunedge.runs import Run

PICTURES = 32


def export(
    run: Path,
    *,
    out: Path,
    step: int | None = None,
    baseline: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Export the best network of a run (or another step's) as a bundle: ONNX, labels, preprocessing, checksums.

    The exported network is compared with torch on real pictures of the run's validation split before it is kept.

    Example: `prunedge export runs/cracks --out bundles/cracks`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`.
    out
        The bundle's folder to make.
    step
        Export the network after this step instead of the best.
    baseline
        Export the unpruned network.
    json
        Print the manifest as JSON.
    """
    from prunedge.cli.console import print_json
    from prunedge.errors import PrunedgeError
    from prunedge.runs import open_run

    if baseline and step not in (None, 0):
        raise PrunedgeError("--step and --baseline exclude each other", remedy="use one of them")
    bundle = write_bundle(open_run(run), out, 0 if baseline else step)
    if json:
        print_json(bundle.manifest.model_dump())
        return
    check = bundle.manifest.check
    print(
        f"{bundle.path}: {bundle.size_bytes / 1e6:.2f} MB of ONNX, differs from torch by at most {check.max_abs_difference:.1e} "
        f"on {check.pictures} pictures, labels {'identical' if check.labels_identical else 'identical but for ties'}\n"
        f"next: prunedge bench {bundle.path}"
    )


def write_bundle(run: Run, out: Path, step: int | None = None) -> Bundle:
    """Export a step (None: the best; 0: the unpruned network) of a run."""
    from prunedge import data as pictures
    from prunedge.export import export_bundle
    from prunedge.recipe import PICTURE_KEYS

    chosen = run.best() if step is None else next((s for s in run.steps() if s.index == step), None)
    checkpoint = run.checkpoint(step if chosen is None else chosen.index)  # type: ignore[arg-type]
    assert chosen is not None
    recipe = run.recipe
    data = pictures.load(recipe["data"], **{key: recipe[key] for key in PICTURE_KEYS})
    test = (run.test() or {}).get("baseline" if chosen.index == 0 else "best") if chosen.index in (0, run.best().index) else None
    metrics = {"validation": {recipe["metric"]: chosen.metric_after}}
    if test:
        metrics["test"] = {key: test[key] for key in ("accuracy", "f1", "auroc")}
    inputs = next(iter(data.val.take(PICTURES).batches(PICTURES)))[0]
    return export_bundle(
        checkpoint.network, out, model=recipe["model"], classes=recipe["classes"], size=recipe["size"], pictures=inputs, macs=chosen.macs,
        params=chosen.params, plan=checkpoint.plan.keep, about={"run_step": chosen.index, "data_fingerprint": recipe["data_fingerprint"]},
        metrics=metrics,
    )  # fmt: skip
