"""What an audit is of: a run's model or one by name, with images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from prunedge import data as images
from prunedge.config import IMAGE_KEYS, settings
from prunedge.data import Dataset
from prunedge.edge.tasks.base import scales_in
from prunedge.models import build
from prunedge.runs.images import refuse_gone
from prunedge.runs.run import Run
from prunedge.tasks import make_task

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Subject:
    """A model, the images that it is audited on, its name, and the seed that decides what is drawn
    of both.
    """

    model: nn.Module
    data: Dataset
    name: str
    seed: int


def subject_of_run(
    run: Run,
    data: Path | None,
    step: int | None,
    values: Mapping[str, Any],
    progress: Progress | None = None,
) -> Subject:
    """The model of a run's step (None: the best), on its own images or on `data`. `values` are
    settings of the images (`IMAGE_KEYS`) that are other than the run's.

    DataError where the run's images are gone, RunError where no model is kept of the step.
    """
    config = run.config
    if data is None:
        refuse_gone(config, "audit", run.path, "DATA")
    model = run.load(step)
    chosen = {**config.image_settings(), **values}
    dataset = images.load(data or Path(config.data.path), progress=progress, **chosen)
    dataset = dataset.scaled(scales_in(config.data.scales))
    return Subject(model, dataset, config.model.name, chosen["seed"])


def subject_named(
    name: str,
    weights: str,
    data: Path,
    values: Mapping[str, Any],
    progress: Progress | None = None,
) -> Subject:
    """The model of a name with these weights, on `data`; `values` are settings of the images."""
    usual = {key: settings()[key].default for key in IMAGE_KEYS}
    chosen = {**usual, **values}
    dataset = images.load(data, progress=progress, **chosen)
    model = build(
        name,
        make_task(dataset.spec).outputs,
        weights,
        seed=chosen["seed"],
        in_channels=dataset.in_channels,
        image_norm=dataset.image_norm,
    )
    return Subject(model, dataset, name, chosen["seed"])
