"""From a folder, a manifest or shards to a Dataset: list, decode (all that can't be read is known
here), group, split.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prunedge.config import AnySize, as_size
from prunedge.data.cache import Decoded, decode_all
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.decode import Progress, appearance
from prunedge.data.gray_range import Shade, choose_range, known_survey, refuse_idle_range, survey
from prunedge.data.groups import group_ids, sources
from prunedge.data.listing import list_data, list_folder, list_manifest
from prunedge.data.records import SPLITS, Listing
from prunedge.data.splits import assign
from prunedge.edge.image.read import COLOURS, DeepGreys, parse_range
from prunedge.edge.image.size import Resize, Size
from prunedge.errors import DataError
from prunedge.utils.advice import option

log = logging.getLogger(__name__)

_NAMED = 5  # images of a set that can't be read at all


def load(
    data: Path | str,
    *,
    size: AnySize = 224,
    resize: Resize = "stretch",
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    folds: int | None = None,
    fold: int = 0,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | tuple[float, float] | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The Dataset of class folders, of a folder with a `manifest.csv`, of a CSV manifest, or of
    shards.

    Shards (WebDataset) are one `x.tar`, several as `train-{000000..000012}.tar`, a folder of them,
    or an fsspec URL of any of these.

    Images become `size` pixels large (`224`, `"128x384"` or `(128, 384)`: height and width), those
    of another shape as `resize` says: `stretch` scales their sides apart, `pad` scales them alike
    and adds grey borders, `crop` scales them alike and keeps the middle. Greys of more than eight
    bits become eight: `range` (`LOW:HIGH`, or two numbers) are the values that become black and
    white, or else what the training images need (`prunedge.data.gray_range`), the same for all
    images.

    `val` and `test` are the shares of those splits where the data doesn't come split; a missing val
    or test is cut out of train. Splits are stratified, grouped by source (`group_by`: see
    `prunedge.data.groups`), and depend on `seed` alone. With `folds` all images are shared out
    anew, whatever split they come with: number `fold` (from 0) of so many equal parts is the test
    split, and `val` is cut out of the rest. `progress(done, total, what)` is called while images
    are decoded. Raises DataError for whatever can't be used: all unreadable images are named at
    once, unless `skip_unreadable`.
    """
    listing = list_data(data, cache_dir, progress)
    return _load(
        listing,
        as_size(size),
        resize,
        seed,
        (val, test),
        group_by,
        skip_unreadable,
        cache_dir,
        progress,
        range,
        None if folds is None else (fold, folds),
    )


def load_folder(
    root: Path | str,
    *,
    size: AnySize = 224,
    resize: Resize = "stretch",
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | tuple[float, float] | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The Dataset of a folder: class folders, with or without train/val/test over them, or shards,
    as `load` describes.
    """
    listing = list_folder(Path(root), cache_dir, progress)
    return _load(
        listing,
        as_size(size),
        resize,
        seed,
        (val, test),
        group_by,
        skip_unreadable,
        cache_dir,
        progress,
        range,
    )


def load_manifest(
    csv: Path | str,
    *,
    root: Path | str | None = None,
    size: AnySize = 224,
    resize: Resize = "stretch",
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | tuple[float, float] | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The Dataset of a CSV (path or file, label, and if wanted source and split), as `load`
    describes.

    Paths are relative to `root`, by default the folder of the CSV.
    """
    listing = list_manifest(Path(csv), None if root is None else Path(root))
    return _load(
        listing,
        as_size(size),
        resize,
        seed,
        (val, test),
        group_by,
        skip_unreadable,
        cache_dir,
        progress,
        range,
    )


def _load(
    listing: Listing,
    size: Size,
    resize: Resize,
    seed: int,
    shares: tuple[float, float],
    group_by: str | None,
    skip_unreadable: bool,
    cache_dir: Path | str | None,
    progress: Progress | None,
    asked: str | tuple[float, float] | None = None,
    fold: tuple[int, int] | None = None,
) -> Dataset:
    if fold is not None and not (fold[1] >= 2 and 0 <= fold[0] < fold[1]):
        raise DataError(
            f"fold {fold[0]} of {fold[1]}",
            where=option("fold"),
            remedy="give at least 2 folds, and one from 0 to folds - 1",
        )
    if min(shares) <= 0 or sum(shares) >= 1:
        what = f"shares of val {shares[0]} and test {shares[1]} leave nothing for one of the splits"
        raise DataError(what, remedy="both must be above 0 and below 1 together")
    if seed < 0:
        raise DataError(
            f"a seed of {seed}", where=option("seed"), remedy="give a whole number of at least 0"
        )
    span = parse_range(asked) if isinstance(asked, str) else asked
    found = sources(listing, group_by)

    def sided(kept: Sequence[int], digests: Sequence[str]) -> list[str]:
        groups = group_ids(found, digests)
        return (
            _sides(listing, kept, groups, shares, seed)
            if fold is None
            else _folded(listing, kept, groups, shares[0], seed, fold)
        )

    paths = [row.path for row in listing.rows]
    shades = known_survey(paths, cache_dir)
    greys, extremes = None, None
    if shades is None:
        try:
            decoded = decode_all(paths, size, resize=resize, folder=cache_dir, progress=progress)
        except DeepGreys:
            shades = survey(paths, cache_dir, progress)
    if shades is None:
        refuse_idle_range(span, listing.where)
        kept = _readable(listing, decoded.unreadable, skip_unreadable)
        sides = sided(kept, decoded.digests)
    else:
        # The split can't wait for the pixels: these depend on the range of greys, and that on which
        # images are trained on.
        kept = _readable(
            listing,
            {i: why for i, why in enumerate(shades) if isinstance(why, str)},
            skip_unreadable,
        )
        sides = sided(kept, [shade.digest if isinstance(shade, Shade) else "" for shade in shades])
        labels = [listing.classes.index(row.label) for row in listing.rows]
        training = [i for i, side in zip(kept, sides, strict=True) if side == "train"]
        greys = choose_range(shades, labels, training, span, listing.where)
        deep = [shade for shade in shades if isinstance(shade, Shade) and shade.is_deep]
        extremes = min(shade.least for shade in deep), max(shade.most for shade in deep)
        decoded = decode_all(paths, size, greys, resize=resize, folder=cache_dir, progress=progress)
    _warn_of_colours(listing, decoded)
    label_of = {name: i for i, name in enumerate(listing.classes)}
    samples = [
        Sample(row.path, label_of[row.label], source)
        for row, source in zip(listing.rows, found, strict=True)
    ]
    splits = {}
    for side in SPLITS:
        rows = tuple(i for i, s in zip(kept, sides, strict=True) if s == side)
        splits[side] = Split(
            tuple(samples[i] for i in rows), size, decoded.cache, rows, greys, resize
        )
    _check_splits(listing, list(splits.values()))
    fingerprint = _fingerprint(listing, decoded, kept, sides, appearance(size, resize))
    skipped = tuple(listing.rows[i].path for i in sorted(decoded.unreadable))
    return Dataset(
        listing.root,
        listing.classes,
        **splits,
        size=size,
        resize=resize,
        fingerprint=fingerprint,
        skipped=skipped,
        greys=greys,
        extremes=extremes,
    )


def _readable(listing: Listing, unreadable: dict[int, str], skip: bool) -> list[int]:
    """Indices of the images that can be read. Raises DataError with all the others, unless they
    may be skipped and are not all.
    """
    bad = [f"{listing.rows[i].name} ({why})" for i, why in sorted(unreadable.items())]
    if bad and len(bad) == len(listing.rows):
        named = ", ".join(bad[:_NAMED]) + (" ..." if len(bad) > _NAMED else "")
        what = f"none of {len(bad)} images can be read: {named}"
        raise DataError(what, where=listing.where, remedy="replace them, or name others")
    if bad and not skip:
        what = f"{len(bad)} of {len(listing.rows)} images can't be read: {', '.join(bad)}"
        remedy = f"replace or remove them, or go on without them: {option('skip_unreadable', True)}"
        raise DataError(what, where=listing.where, remedy=remedy)
    for line in bad:
        log.warning("skipped an unreadable image: %s", line)
    return [i for i in range(len(listing.rows)) if i not in unreadable]


def _warn_of_colours(listing: Listing, decoded: Decoded) -> None:
    """Pillow drops the lower half of deep colours: better said than found out."""
    cut = sum(look is not None and look.depth == COLOURS for look in decoded.looks)
    if cut:
        text = (
            "%s: %d images have colours of 16 bits, of which only the upper 8 are read; "
            "`prunedge check` says what is left"
        )
        log.warning(text, listing.where, cut)


def _sides(
    listing: Listing,
    kept: Sequence[int],
    groups: np.ndarray,
    shares: tuple[float, float],
    seed: int,
) -> list[str]:
    """The split of each kept image: the user's own, with what is missing from it cut out of
    train.
    """
    given = np.array([listing.rows[i].split or "train" for i in kept])
    asked = [
        (side, share)
        for side, share in zip(("val", "test"), shares, strict=True)
        if side not in given
    ]
    if not asked:
        return given.tolist()
    labels = np.array([listing.classes.index(listing.rows[i].label) for i in kept])
    free = np.flatnonzero(given == "train")
    names = ["train", *(side for side, _ in asked)]
    parts = [1 - sum(share for _, share in asked), *(share for _, share in asked)]
    given[free] = np.array(names)[assign(labels[free], groups[np.array(kept)][free], parts, seed)]
    return given.tolist()


def _folded(
    listing: Listing,
    kept: Sequence[int],
    groups: np.ndarray,
    val: float,
    seed: int,
    fold: tuple[int, int],
) -> list[str]:
    """The split of each kept image in cross-validation."""
    number, folds = fold
    labels, ids = (
        np.array([listing.classes.index(listing.rows[i].label) for i in kept]),
        groups[np.array(kept)],
    )
    tested = assign(labels, ids, [1 / folds] * folds, seed) == number
    sides = np.where(tested, "test", "train").astype("<U5")
    rest = np.flatnonzero(~tested)
    # The fold's number is no part of the seed's draw: what validates one fold says nothing about
    # another.
    sides[rest] = np.array(["train", "val"])[
        assign(labels[rest], ids[rest], [1 - val, val], seed * folds + number)
    ]
    return sides.tolist()


def _check_splits(listing: Listing, splits: Sequence[Split]) -> None:
    """Refuse splits that can't be trained on; warn of those that can't be judged by."""
    for side, split in zip(SPLITS, splits, strict=True):
        have = set(split.labels().tolist())
        missing = [name for i, name in enumerate(listing.classes) if i not in have]
        if missing and (side == "train" or not have):
            what = f"no images of {', '.join(missing)} for {side}"
            raise DataError(
                what,
                where=listing.where,
                remedy="more images, or more sources: a source is never split",
            )
        if missing:
            log.warning("%s: no images of %s for %s", listing.where, ", ".join(missing), side)
    sources_of = [{s.source for s in split.samples if s.source is not None} for split in splits]
    both = (
        (sources_of[0] & sources_of[1])
        | (sources_of[0] & sources_of[2])
        | (sources_of[1] & sources_of[2])
    )
    if both:
        log.warning(
            "%s: the given splits have %d sources on two sides: see `prunedge check`",
            listing.where,
            len(both),
        )


def _fingerprint(
    listing: Listing, decoded: Decoded, kept: Sequence[int], sides: Sequence[str], seen: str
) -> str:
    """Stands for pixels, labels and splits; not for where the files lie nor when they were
    written.
    """
    digest = hashlib.sha256(f"{seen} {listing.classes}".encode())
    for i, side in zip(kept, sides, strict=True):
        row = listing.rows[i]
        digest.update(
            f"\n{row.name}\t{row.label}\t{side}\t{decoded.digests[i]}".encode(
                errors="surrogateescape"
            )
        )
    return digest.hexdigest()[:32]
