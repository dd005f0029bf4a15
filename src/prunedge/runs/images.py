"""The images of a run where they lie now; where they are gone, how to name their new place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.data.paths import has_braces, is_url
from prunedge.edge.tasks.base import scales_in
from prunedge.errors import DataError
from prunedge.runs.task import refuse_own_trainer
from prunedge.utils.advice import command

Progress = Callable[[int, int, str], None]


def images_of(config: RunConfig, *moved: object, progress: Progress | None = None) -> Dataset:
    """The images of a config. DataError where their place is gone; `moved` are the words of a
    command that names another with DATA. RunError where the user's own functions know the data.
    """
    refuse_gone(config, *moved)
    data = images.load(config.data.path, progress=progress, **config.image_settings())
    # A model that was trained on other images answers by their scales.
    return data.judged_by(config.task.metric).scaled(scales_in(config.data.scales))


def refuse_gone(config: RunConfig, *moved: object) -> None:
    """DataError where the images of a run have no place any more; RunError where it has none."""
    refuse_own_trainer(config)
    place = config.data.path
    if not moved or is_url(place) or has_braces(place) or Path(place).exists():
        return
    remedy = f"put them back, or name their place as DATA: {command(*moved)}"
    raise DataError("the images of this run are gone", where=place, remedy=remedy)
