"""`prunedge export`: a bundle that a device needs and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


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
    from prunedge.deliver import write_bundle
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
