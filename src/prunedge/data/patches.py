"""Labelled patches from photographs and masks of their damage: planned from the masks, then cut."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from prunedge.config import AnySize, as_size, plain_size
from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.masks import Pair, damage, pair_up, photo_size, read_photo
from prunedge.edge.image.read import is_deep
from prunedge.edge.image.size import LARGEST, SMALLEST, Size, square
from prunedge.errors import DataError
from prunedge.utils.files import behind_links, make_folder, written_folder
from prunedge.utils.machine import pass_on_reading

Unmasked = Literal["error", "skip", "intact"]


@dataclass(frozen=True)
class PatchReport:
    """What was cut: where the manifest lies, photographs used, patches per label, and what was left
    out and why.

    `faint` patches have some damage, but less than asked for; `surplus` ones are intact and more
    than asked for; `small` are the photographs with a side shorter than a patch, `unmasked` those
    without a mask that were skipped.
    """

    manifest: Path
    photos: int
    counts: dict[str, int]
    faint: int
    surplus: int
    small: tuple[str, ...]
    unmasked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        return {**asdict(self), "manifest": str(self.manifest)}


@dataclass(frozen=True)
class _Squares:
    """The squares of one photograph: corners (n, 2) as x, y in pixels, and the damaged share of
    each (n,).
    """

    pair: Pair
    source: str
    corners: np.ndarray
    shares: np.ndarray

    def at(self, keep: np.ndarray) -> _Squares:
        return _Squares(self.pair, self.source, self.corners[keep], self.shares[keep])


def cut_patches(
    photos: Path | str,
    masks: Path | str,
    out: Path | str,
    *,
    size: AnySize = 224,
    stride: int | None = None,
    min_damage: float = 0.01,
    damaged: str = "damaged",
    intact: str = "intact",
    threshold: int | None = None,
    unmasked: Unmasked = "error",
    intact_per_damaged: float | None = None,
    group_by: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PatchReport:
    """Cut photographs into squares and label each by its mask; writes `out/patches/<label>/*.png`
    and `out/manifest.csv`.

    Patches keep the greys of their photographs: those of more than eight bits are written with as
    many (integers above sixteen bits and floats as TIFF).

    A mask has its photograph's name (any suffix; also name_mask, name_label, name_gt) and size, in
    the same folder or another. Bright pixels are damage: above `threshold` (0 to 255), by default
    above 127, or above 0 where a lossless mask holds class numbers. Patches of `size` pixels
    (`224`, `"128x384"` or `(128, 384)`: height and width) lie `stride` apart (default: side by
    side) and reach every edge. One is `damaged` when at least the share `min_damage` of it is,
    `intact` when none is, and left out in between. `intact_per_damaged` keeps at most that many
    intact patches for each damaged one, drawn by `seed`. Photographs without a mask are an error,
    skipped, or taken for intact (`unmasked`).

    The manifest's `source` is the photograph, or what `group_by` (a regular expression) finds in
    its path, so that no split parts its patches; x, y, size and damage say what each was. `out`
    appears whole or not at all. Raises DataError, which names every photograph that is unreadable
    or doesn't fit its mask at once.
    """
    if seed < 0:
        raise DataError(f"a seed of {seed}", where="--seed", remedy="give 0 or more")
    _check_numbers(
        size,
        1 if stride is None else stride,
        min_damage,
        threshold,
        intact_per_damaged,
        (damaged, intact),
    )
    shape = as_size(size)
    strides = shape if stride is None else square(stride)
    target = Path(out)
    _refuse_full(target)
    pairs, bare = _masked(pair_up(Path(photos), Path(masks)), unmasked, masks)
    found, small = _plan(pairs, _grouping(group_by, pairs), shape, strides, threshold, progress)
    chosen, faint, surplus = _choose(found, min_damage, intact_per_damaged, seed)
    n_damaged = sum(int((squares.shares > 0).sum()) for squares in chosen)
    counts = {
        damaged: n_damaged,
        intact: sum(len(squares.shares) for squares in chosen) - n_damaged,
    }
    if not all(counts.values()):
        missing = " and ".join(f"no {name}" for name, n in counts.items() if not n)
        raise DataError(
            f"{missing} patches in {len(pairs)} photographs",
            where=photos,
            remedy="see the masks, --size, --min-damage",
        )
    _write(target, chosen, shape, (damaged, intact), progress)
    used = sum(len(squares.shares) > 0 for squares in chosen)
    return PatchReport(target / "manifest.csv", used, counts, faint, surplus, small, bare)


def corners(width: int, height: int, size: Size, strides: Size) -> np.ndarray:
    """Upper left corners (n, 2) as x, y of the patches that cover a photograph; the last of a row
    or column is flush with the edge.
    """
    x, y = np.meshgrid(
        _along(width, size.width, strides.width), _along(height, size.height, strides.height)
    )
    return np.stack([x.reshape(-1), y.reshape(-1)], axis=1)


def _along(side: int, size: int, stride: int) -> np.ndarray:
    """Where patches begin along one side of a photograph, (n,) int64."""
    last = side - size
    return np.unique([*range(0, last + 1, stride), last])


def damaged_shares(mask: np.ndarray, at: np.ndarray, size: Size) -> np.ndarray:
    """The share (n,) of each patch that is damaged, from a mask (height, width) bool and corners
    (n, 2).
    """
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # pixels above and left of each point
    x, y = at[:, 0], at[:, 1]
    below, right = y + size.height, x + size.width
    damaged = sums[below, right] - sums[y, right] - sums[below, x] + sums[y, x]
    return damaged / (size.height * size.width)


def _check_numbers(
    size: AnySize,
    stride: int,
    min_damage: float,
    threshold: int | None,
    ratio: float | None,
    labels: tuple[str, str],
) -> None:
    is_a_folder = re.compile(r"[^/\\.\s\0][^/\\\0]*")
    wrong_names = [
        option
        for option, name in zip(("--damaged", "--intact"), labels, strict=True)
        if not is_a_folder.fullmatch(name) or len(name) > 100
    ]
    rules = (
        (
            not _is_size(size),
            "--size",
            f"patches of {size} pixels: sides of {SMALLEST} to {LARGEST:,}, as 224 or 128x384",
        ),
        (stride < 1, "--stride", f"a stride of {stride} pixels: at least 1"),
        (
            not 0 < min_damage <= 1,
            "--min-damage",
            f"a damaged share of {min_damage}: above 0 and at most 1",
        ),
        (
            threshold is not None and threshold < 0,
            "--threshold",
            f"a threshold of {threshold}: at least 0",
        ),
        (
            ratio is not None and not 0 < ratio < inf,
            "--intact-per-damaged",
            f"{ratio} intact patches for a damaged one: above 0, and finite",
        ),
        (
            labels[0] == labels[1],
            "--damaged, --intact",
            f"both labels are '{labels[0]}': two different names",
        ),
        (
            bool(wrong_names),
            ", ".join(wrong_names),
            "labels become folders: no slashes, no dots before them, 100 letters at most",
        ),
    )
    faults = [(option, text) for is_wrong, option, text in rules if is_wrong]
    if faults:
        where = ", ".join(option for option, _ in faults)
        raise DataError(
            "; ".join(text for _, text in faults), where=where, remedy="mend these values"
        )


def _is_size(size: AnySize) -> bool:
    try:
        as_size(size)
    except DataError:
        return False
    return True


def _refuse_full(target: Path) -> None:
    target = behind_links(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(
            "there is something already",
            where=target,
            remedy="give a folder that is empty or not there yet",
        )


def _masked(
    pairs: list[Pair], unmasked: Unmasked, masks: Path | str
) -> tuple[list[Pair], tuple[str, ...]]:
    """The pairs to cut, and the names of those that were left out for want of a mask."""
    bare = [pair.name for pair in pairs if pair.mask is None]
    if bare and unmasked == "error":
        remedy = "add them, or say what they are: --unmasked skip or --unmasked intact"
        what = f"{len(bare)} of {len(pairs)} photographs have no mask: {', '.join(bare)}"
        raise DataError(what, where=masks, remedy=remedy)
    if unmasked == "intact":
        return pairs, ()
    return [pair for pair in pairs if pair.mask is not None], tuple(bare)


def _grouping(group_by: str | None, pairs: Sequence[Pair]) -> dict[str, str]:
    """The source of each photograph by its name."""
    if group_by is None:
        return {pair.name: pair.name for pair in pairs}
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        remedy = r"give a pattern such as '(bridge\d+)'"
        raise DataError(
            f"'{group_by}' is no regular expression: {error}", where="--group-by", remedy=remedy
        ) from None
    found = {pair.name: pattern.search(pair.name) for pair in pairs}
    missed = [name for name, match in found.items() if match is None]
    if missed:
        what = (
            f"'{group_by}' doesn't match {len(missed)} of {len(pairs)} photographs, "
            f"{missed[0]} first"
        )
        raise DataError(
            what,
            where="--group-by",
            remedy="it is searched in the path from PHOTOS, without suffix",
        )
    return {
        name: (match[1] if pattern.groups else match[0]) or name
        for name, match in found.items()
        if match
    }


def _plan(
    pairs: Sequence[Pair],
    source: dict[str, str],
    size: Size,
    strides: Size,
    threshold: int | None,
    progress: Progress | None,
) -> tuple[list[_Squares], tuple[str, ...]]:
    """All squares of all photographs, and the names of the photographs that are too small for
    one.
    """

    def work(pair: Pair) -> _Squares | str | None:
        try:
            width, height = photo_size(pair.photo)
            mask = None if pair.mask is None else damage(pair.mask, pair.photo, threshold)
        except Exception as error:  # a damaged file can make a decoder raise anything
            pass_on_reading(error, pair.photo)
            return f"{pair.name} ({reason(error, pair.photo, pair.mask)})"
        if width < size.width or height < size.height:
            return None
        at = corners(width, height, size, strides)
        return _Squares(
            pair,
            source[pair.name],
            at,
            np.zeros(len(at)) if mask is None else damaged_shares(mask, at, size),
        )

    found: list[_Squares] = []
    bad, small = [], []
    for i, squares in enumerate(at_once(work, pairs)):
        if isinstance(squares, _Squares):
            found.append(squares)
        elif squares is None:
            small.append(pairs[i].name)
        else:
            bad.append(squares)
        if progress is not None:
            progress(i + 1, len(pairs), "reading masks")
    if bad:
        what = f"{len(bad)} of {len(pairs)} photographs can't be used: {', '.join(bad)}"
        raise DataError(what, remedy="each must be readable and have a mask of its size")
    return found, tuple(small)


def _choose(
    found: Sequence[_Squares], min_damage: float, ratio: float | None, seed: int
) -> tuple[list[_Squares], int, int]:
    """The squares to cut, and how many are too faintly damaged and how many intact ones too
    many.
    """
    clear = [
        squares.at((squares.shares == 0) | (squares.shares >= min_damage)) for squares in found
    ]
    faint = sum(len(squares.shares) for squares in found) - sum(
        len(squares.shares) for squares in clear
    )
    shares = np.concatenate([np.zeros(0), *(squares.shares for squares in clear)])
    intact = np.flatnonzero(shares == 0)
    wanted = (
        len(intact) if ratio is None else min(len(intact), round(ratio * int((shares > 0).sum())))
    )
    dropped = np.random.default_rng(seed).permutation(intact)[wanted:]
    keep = np.ones(len(shares), bool)
    keep[dropped] = False
    ends = np.cumsum([len(squares.shares) for squares in clear])[:-1]
    return (
        [squares.at(part) for squares, part in zip(clear, np.split(keep, ends), strict=True)],
        faint,
        len(dropped),
    )


def _write(
    target: Path,
    chosen: Sequence[_Squares],
    size: Size,
    labels: tuple[str, str],
    progress: Progress | None,
) -> None:
    """Cut into a folder beside `target` that takes its name when all is done."""
    with written_folder(behind_links(target), "set of patches") as temporary:
        _refuse_full(target)  # another process may have been faster
        with (temporary / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "source", "x", "y", "size", "damage"))
            bad = []
            for i, rows in enumerate(
                at_once(lambda squares: _cut(squares, temporary, size, labels), chosen)
            ):
                bad += [rows] if isinstance(rows, str) else []
                writer.writerows([] if isinstance(rows, str) else rows)
                if progress is not None:
                    progress(i + 1, len(chosen), "cutting patches")
        if bad:
            raise DataError(
                f"{len(bad)} photographs can't be read: {', '.join(bad)}",
                remedy="replace or remove them",
            )


def _cut(
    squares: _Squares, out: Path, size: Size, labels: tuple[str, str]
) -> list[tuple[object, ...]] | str:
    """Write the squares of one photograph; their rows of the manifest, or why it can't be read."""
    if not len(squares.shares):
        return []
    try:
        photo = read_photo(squares.pair.photo)
    except Exception as error:  # a damaged file can make a decoder raise anything
        pass_on_reading(error, squares.pair.photo)
        return f"{squares.pair.name} ({reason(error, squares.pair.photo)})"
    rows: list[tuple[object, ...]] = []
    for (x, y), share in zip(squares.corners.tolist(), squares.shares.tolist(), strict=True):
        label = labels[0] if share else labels[1]
        patch, suffix = _storable(photo.crop((x, y, x + size.width, y + size.height)))
        name = f"patches/{label}/{squares.pair.name}_{x}_{y}{suffix}"
        make_folder((out / name).parent)
        patch.save(out / name)
        rows.append((name, label, squares.source, x, y, plain_size(size), round(share, 5)))
    return rows


def _storable(patch: Image.Image) -> tuple[Image.Image, str]:
    """A patch in a mode that keeps every value, and the suffix of a format for it."""
    if patch.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(patch).astype(np.uint16)), ".png"
    return patch, ".tif" if is_deep(patch) else ".png"
