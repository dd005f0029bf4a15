"""What a model is shown of a photograph: all of it at once, or patches as large as training's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunedge.edge.image.halved import Box
from prunedge.edge.image.photograph import Photo
from prunedge.edge.image.size import cropped_box
from prunedge.edge.inspect.grid import Grid
from prunedge.edge.inspect.settings import Settings
from prunedge.edge.tasks.base import TaskSpec


@dataclass(frozen=True)
class Tiling:
    """`grid` is what the model sees. `is_whole`: it is given the photograph at once, and a resize
    mode that crops leaves some of it out. `notes` say what is unusual.
    """

    grid: Grid
    is_whole: bool
    notes: tuple[str, ...]

    def boxes(self) -> Iterator[Box]:
        """The part of the photograph that each input is made from, row by row."""
        if self.is_whole:
            return iter([(0, 0, self.grid.width, self.grid.height)])
        return self.grid.boxes()


def tiling_of(photo: Photo, settings: Settings, task: TaskSpec) -> Tiling:
    """How a photograph is shown to a model by settings that were `fitted` to its bundle."""
    view = settings.view
    assert view is not None
    is_like_training = settings.patch is None and view.is_like(photo.width, photo.height)
    if view.kind == "whole" or is_like_training:
        return _whole(photo, settings, task)
    return _patches(photo, settings, task, (view.width, view.height))


def _whole(photo: Photo, settings: Settings, task: TaskSpec) -> Tiling:
    if task.resize != "crop":
        size = (photo.width, photo.height)
        grid = Grid(photo.width, photo.height, size, _stride(size, settings.overlap))
        return Tiling(grid, True, ())

    left, top, right, bottom = map(round, cropped_box(photo.width, photo.height, task.size))
    right = max(right, left + 1)
    bottom = max(bottom, top + 1)
    size = (right - left, bottom - top)
    stride = _stride(size, settings.overlap)
    grid = Grid(photo.width, photo.height, size, stride, seen=(left, top, right, bottom))
    if size == (photo.width, photo.height):
        return Tiling(grid, True, ())
    note = (
        f"only its middle, {size[0]} x {size[1]} pixels from {left}, {top} on, was looked at: "
        "the model's images are cropped"
    )
    return Tiling(grid, True, (note,))


def _patches(photo: Photo, settings: Settings, task: TaskSpec, patch: tuple[int, int]) -> Tiling:
    notes: tuple[str, ...] = ()
    if photo.width < patch[0] or photo.height < patch[1]:
        how = "stretched" if task.resize == "stretch" else "enlarged"
        note = (
            f"{photo.width} x {photo.height} pixels are smaller than a patch of "
            f"{patch[0]} x {patch[1]}: {how} to one"
        )
        notes = (note,)
    if task.resize == "crop":
        # What the model would see of each, so that the patches leave nothing out between them.
        held = (min(patch[0], photo.width), min(patch[1], photo.height))
        left, top, right, bottom = cropped_box(*held, task.size)
        patch = (max(1, round(right - left)), max(1, round(bottom - top)))
    grid = Grid(photo.width, photo.height, patch, _stride(patch, settings.overlap))
    return Tiling(grid, False, notes)


def _stride(patch: tuple[int, int], overlap: float) -> tuple[int, int]:
    across = max(1, round(patch[0] * (1 - overlap)))
    down = max(1, round(patch[1] * (1 - overlap)))
    return across, down
