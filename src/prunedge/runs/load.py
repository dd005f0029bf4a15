"""A run or a bundle in, the pruned model out, with nothing unpickled."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from prunedge.edge import open_bundle
from prunedge.errors import BundleError
from prunedge.export.bundle import WEIGHTS
from prunedge.models import rebuild
from prunedge.runs.run import open_run
from prunedge.surgery import restore_model
from prunedge.tasks import make_task
from prunedge.utils import trust
from prunedge.utils.arguments import require_path


def load(path: Path | str, device: str = "cpu", *, trust_code: bool = False) -> nn.Module:
    """The best model of a run folder, or the model of a bundle, as an nn.Module in evaluation
    mode.

    It is built by its name and given the saved weights, whose shapes say how wide each layer is.
    Raises RunError or BundleError when the folder is neither, WeightsError when the weights don't
    fit the model of that name.

    A model of somebody's own (`package.module:function`) is imported from the working directory:
    PrunedgeError unless you built a model of that name there before, or `trust_code` says that
    you trust who made the folder.
    """
    require_path("path", path)
    trust.trust_everything(trust_code)
    folder = Path(path)
    if (folder / "config.toml").is_file():
        return open_run(folder).load(device=device)
    bundle = open_bundle(folder)
    if not (bundle.path / WEIGHTS).exists():
        raise BundleError(
            "the bundle was made small for a device, without torch's weights",
            where=folder,
            remedy="load the one that was exported",
        )
    trust.check(bundle.manifest.model, folder)
    spec = bundle.manifest.task
    outputs = make_task(spec).outputs
    model = rebuild(bundle.manifest.model, outputs, in_channels=spec.in_channels)
    return restore_model(model, bundle.path / WEIGHTS).to(device).eval()
