"""Which images an evaluation judges by: a run's own where nothing else is asked for, or what lies
where the user says.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from prunedge.data.decode import Progress
from prunedge.data.judged import JudgedImages, own_judged, read_judged
from prunedge.data.mask_sources import refuse_unmasked
from prunedge.data.paths import absolute
from prunedge.data.stored import looks_of
from prunedge.edge.image.size import LARGEST, SMALLEST
from prunedge.edge.manifest import View
from prunedge.edge.tasks import DEFINITIONS
from prunedge.errors import DataError, PrunedgeError
from prunedge.runs.judged_model import JudgedModel
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

log = logging.getLogger(__name__)


def evaluation_images(
    model: JudgedModel,
    data: Path | str,
    *,
    view: View | None = None,
    masks: Path | str | None = None,
    tile: int | None = None,
    side: str | None = None,
    group_by: str | None = None,
    progress: Progress | None = None,
) -> JudgedImages:
    """The run's own images where `data` is their place and neither `masks` nor `tile` are others
    than its own; else whatever lies there. `view` is what a bundle says of its training images.

    Raises DataError for masks where the model's task reads none, for a `tile` where there are no
    masks, and where images can't be had.
    """
    own_masks = None if model.run is None else model.run.config.data.masks
    is_at_home = model.run is not None and absolute(data) == absolute(model.run.config.data.path)
    if is_at_home and masks is None:
        masks = own_masks
    task = model.task.targets.task
    reads_masks = DEFINITIONS[task].reads_masks
    if tile is not None and not reads_masks:
        raise DataError(
            f"{option('tile')} cuts photographs with {option('masks')} alone",
            where=data,
            remedy="leave it out, or name the folder of the masks",
        )
    refuse_unmasked(task, data, masks)
    has_own_masks = masks is None or (own_masks is not None and _is_same(masks, own_masks))
    if is_at_home and has_own_masks and tile in (None, model.sight.tile):
        return _own(model, side, group_by)
    sight = model.sight if tile is None else replace(model.sight, tile=tile)
    images = read_judged(data, sight, masks=masks, side=side, group_by=group_by, progress=progress)
    if reads_masks and sight.tile is None:
        _warn_of_whole(view, images)
    return images


def refuse_tile(tile: int | None) -> None:
    """DataError for a side that the setting of a run can't have either."""
    if tile is not None and not SMALLEST <= tile <= LARGEST:
        raise DataError(
            f"tiles of {tile:,} pixels",
            where=option("tile"),
            remedy=f"give sides from {SMALLEST} to {LARGEST:,}",
        )


def _warn_of_whole(view: View | None, images: JudgedImages) -> None:
    """Say where a model of tiles is shown whole photographs, in which damage is smaller."""
    if view is None or view.kind != "patch":
        return
    looks = looks_of(images.split)
    others = sum(not view.is_like(look.width, look.height) for look in looks)
    if others:
        log.warning(
            "the model learned from images of %d x %d pixels, and %s of %s others, which are "
            "judged whole at that size: %s cuts them",
            view.width,
            view.height,
            f"{others:,}",
            counted(len(looks), "photograph is", "photographs are"),
            option("tile", max(view.width, view.height)),
        )


def _own(model: JudgedModel, side: str | None, group_by: str | None) -> JudgedImages:
    """The run's own images, on the sides that it has them on."""
    # Without those that can't be read any more, others would lie on other sides.
    if isinstance(model.own, PrunedgeError):
        remedy = "put the images of the run back as they were, or name others"
        raise DataError(model.own.what, where=model.own.where, remedy=remedy)
    assert model.own is not None
    return own_judged(model.own, side, group_by)


def _is_same(place: Path | str, other: Path | str) -> bool:
    return absolute(place) == absolute(other)
