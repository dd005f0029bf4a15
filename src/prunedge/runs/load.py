"""A run or a bundle in, the pruned model out, with nothing unpickled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from prunedge.edge import open_bundle
from prunedge.errors import BundleError, RunError
from prunedge.export.bundle import WEIGHTS
from prunedge.models import rebuild
from prunedge.models.build import require_model
from prunedge.runs.run import Run, open_run
from prunedge.surgery import restore_model
from prunedge.tasks import make_task
from prunedge.utils import trust
from prunedge.utils.arguments import require_path


def load(
    path: Path | str,
    device: str = "cpu",
    *,
    trust_code: bool = False,
    model: nn.Module | None = None,
) -> nn.Module:
    """The best model of a run folder, or the model of a bundle, as an nn.Module in evaluation
    mode.

    It is built by its name and given the saved weights, whose shapes say how wide each layer is.
    Raises RunError or BundleError when the folder is neither, WeightsError when the weights don't
    fit the model of that name.

    A model of somebody's own (`package.module:function`) is imported from the working directory:
    PrunedgeError unless you built a model of that name there before, or `trust_code` says that
    you trust who made the folder. Of a run of a training of your own, `model` is the unpruned one
    that it began with (its weights do not matter, and it stays as it is): functions that came from
    Python have no name to make it by.
    """
    require_path("path", path)
    if model is not None:
        require_model(model)
    trust.trust_everything(trust_code)
    folder = Path(path)
    if (folder / "config.toml").is_file():
        return _of_run(open_run(folder), device, model)
    _refuse_model(model, folder)
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
    fresh = rebuild(bundle.manifest.model, outputs, in_channels=spec.in_channels)
    return restore_model(fresh, bundle.path / WEIGHTS).to(device).eval()


def _of_run(run: Run, device: str, model: nn.Module | None) -> nn.Module:
    if not run.config.has_own_trainer:
        _refuse_model(model, run.path)
    return replace(run, template=model).load(device=device)


def _refuse_model(model: nn.Module | None, place: Path) -> None:
    """RunError where a model is given for what has one by its name."""
    if model is not None:
        raise RunError("it makes its model by its name", where=place, remedy="leave model= out")
