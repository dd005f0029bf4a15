"""Whether a run would judge by images that the model it starts from was taught with: its
figures would be too good, silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.data import Dataset, Split
from prunedge.data.duplicates import look_alikes
from prunedge.data.stored import digests_of
from prunedge.errors import PrunedgeError
from prunedge.runs.data_record import MOST_COMPARED
from prunedge.runs.run import Run, open_run
from prunedge.utils.advice import option

# What decides on which side an image lies.
SIDES = ("data", "seed", "folds", "fold", "group_by")


def refuse_seen(config: RunConfig, data: Dataset) -> list[str]:
    """PrunedgeError where test or validation images of this run taught the model that it starts
    from, by `start` or `weights`.

    An image teaches as a training image, and, to the test split, as a validation image that
    chose the model. Images are the same by their pixels, wherever they lie. All runs are looked
    at that the start goes back to, as far as they are still there. Gives a line for each of which
    nobody can tell any more what it was taught with.
    """
    unknown = []
    for run in _taught_by(config):
        if run.config.data.fingerprint == data.fingerprint:
            continue  # the same images on the same sides
        other, why = _data_of(run.config)
        if other is None or other.fingerprint != run.config.data.fingerprint:
            why = why or "its images are no longer what they were"
            unknown.append(
                f"what {run.path} was taught with can't be told ({why}): test images may "
                "be among it"
            )
            continue
        _refuse_common(config, run, other, _alike(config, data, other))
    return unknown


@dataclass(frozen=True)
class Seen:
    """How many images a model has seen before: `trained` taught it, `chosen` are validation images,
    which chose it, and `alike` look like training images (copies that were compressed or scaled
    anew); None where there are too many to compare. `unknown` has a line for each run of which
    nobody can tell what it saw.
    """

    trained: int
    chosen: int
    alike: int | None
    unknown: tuple[str, ...] = ()


def seen_by(run: Run, split: Split) -> Seen:
    """How many of these images a run's model, and those that it goes back to, were taught with or
    chosen by: the same to the pixel in the model's size, wherever they lie.
    """
    digests = digests_of(split)
    trained: set[str] = set()
    chosen: set[str] = set()
    alike: set[int] | None = set()
    unknown = []
    for each in (run, *_taught_by(run.config)):
        other, why = _data_of(each.config)
        if other is not None and other.fingerprint != each.config.data.fingerprint:
            why = "its images are no longer what they were"
        elif other is not None and _seen_as(other.train) != _seen_as(split):
            why = "it saw images in another way"
        if other is None or why:
            unknown.append(f"what {each.path} was taught with can't be told ({why})")
            continue
        trained |= set(digests_of(other.train))
        chosen |= set(digests_of(other.val))
        if alike is not None:
            is_few = len(other.train) + len(split) <= MOST_COMPARED
            alike = alike | set(look_alikes(other.train, split)) if is_few else None
    taught = [digest in trained for digest in digests]
    picked = [digest in chosen - trained for digest in digests]
    nearly = None
    if alike is not None:
        nearly = sum(not taught[place] for place in alike)
    return Seen(sum(taught), sum(picked), nearly, tuple(unknown))


def _seen_as(split: Split) -> tuple[object, ...]:
    """What equal images have equal pixels by."""
    return split.size, split.resize, split.in_channels, split.greys


def _taught_by(config: RunConfig) -> Iterator[Run]:
    """The runs whose training made the model that this one starts from, the last first, as far as
    they are there.
    """
    before = config
    passed: set[Path] = set()
    while True:
        folder = Path(before.model.start or before.model.weights)
        if folder in passed or not (folder / "config.toml").is_file():
            return
        passed.add(folder)
        run = open_run(folder)
        yield run
        before = run.config


def _data_of(config: RunConfig) -> tuple[Dataset | None, str]:
    """The images of a run as they are now; or None, and why they can't be had."""
    try:
        return images.load(config.data.path, **config.image_settings()), ""
    except PrunedgeError as error:
        return None, error.what


def _alike(config: RunConfig, data: Dataset, other: Dataset) -> Dataset:
    """This run's images, on their own sides, in the size and range of another's: equal images
    have equal pixels then.
    """
    if (data.size, data.resize, data.greys) == (other.size, other.resize, other.greys):
        return data
    span = None if other.greys is None or data.greys is None else str(other.greys)
    seen = {"size": other.size, "resize": other.resize, "range": span}
    resized = images.load(config.data.path, **{**config.image_settings(), **seen})
    where: dict[Path, tuple[Split, int]] = {}
    for split in resized.splits().values():
        where |= {sample.path: (split, index) for index, sample in enumerate(split.samples)}

    def moved(split: Split) -> Split:
        rows = tuple(
            split_there.rows[index]
            for sample in split.samples
            for split_there, index in (where[sample.path],)
            if split_there.rows
        )
        return replace(
            split,
            size=other.size,
            resize=other.resize,
            cache=resized.train.cache,
            rows=rows,
            greys=resized.greys,
        )

    return replace(data, train=moved(data.train), val=moved(data.val), test=moved(data.test))


def _refuse_common(config: RunConfig, run: Run, other: Dataset, own: Dataset) -> None:
    trained = set(digests_of(other.train))
    chosen = trained | set(digests_of(other.val))
    tested = sum(digest in chosen for digest in digests_of(own.test))
    validated = sum(digest in trained for digest in digests_of(own.val))
    if not tested and not validated:
        return
    what = (
        f"{tested} of {len(own.test)} test images and {validated} of {len(own.val)} validation "
        "images taught the model that this "
        f"run starts from, so that its figures would be too good"
    )
    mine = config.flat()
    begun = run.config.flat()
    others = ["DATA" if key == "data" else option(key) for key in SIDES if mine[key] != begun[key]]
    keep = (
        f"keep the split of that run, without {', '.join(others)}; or"
        if others
        else "put its images back as they were; or"
    )
    taken = option("start" if config.model.start else "weights")
    raise PrunedgeError(
        what, where=run.path, remedy=f"{keep} train anew on this split, without {taken}"
    )
