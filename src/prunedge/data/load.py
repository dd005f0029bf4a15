"""From a folder, a manifest or shards to a Dataset: what the library, the command line and runs
call.
"""

from __future__ import annotations

from pathlib import Path

from prunedge.config import AnySize, as_size
from prunedge.data.assemble import LoadOptions, assemble
from prunedge.data.dataset import Dataset
from prunedge.data.decode import Progress
from prunedge.data.listing import list_data, list_folder, list_manifest
from prunedge.data.records import Listing
from prunedge.data.sides import Fold
from prunedge.edge.image.size import Resize


def load(
    data: Path | str,
    *,
    task: str = "classification",
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

    `task` says what the labels are: `classification`, one class an image.

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
    return _assembled(
        listing,
        task=task,
        size=size,
        resize=resize,
        seed=seed,
        val=val,
        test=test,
        fold=None if folds is None else Fold(fold, folds),
        group_by=group_by,
        skip_unreadable=skip_unreadable,
        range=range,
        cache_dir=cache_dir,
        progress=progress,
    )


def load_folder(
    root: Path | str,
    *,
    task: str = "classification",
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
    return _assembled(
        listing,
        task=task,
        size=size,
        resize=resize,
        seed=seed,
        val=val,
        test=test,
        group_by=group_by,
        skip_unreadable=skip_unreadable,
        range=range,
        cache_dir=cache_dir,
        progress=progress,
    )


def load_manifest(
    csv: Path | str,
    *,
    root: Path | str | None = None,
    task: str = "classification",
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
    return _assembled(
        listing,
        task=task,
        size=size,
        resize=resize,
        seed=seed,
        val=val,
        test=test,
        group_by=group_by,
        skip_unreadable=skip_unreadable,
        range=range,
        cache_dir=cache_dir,
        progress=progress,
    )


def _assembled(
    listing: Listing,
    *,
    task: str,
    size: AnySize,
    resize: Resize,
    seed: int,
    val: float,
    test: float,
    group_by: str | None,
    skip_unreadable: bool,
    range: str | tuple[float, float] | None,
    cache_dir: Path | str | None,
    progress: Progress | None,
    fold: Fold | None = None,
) -> Dataset:
    """The Dataset of listed images, by the arguments of `load`."""
    options = LoadOptions(
        task=task,
        size=as_size(size),
        resize=resize,
        seed=seed,
        shares=(val, test),
        fold=fold,
        group_by=group_by,
        skip_unreadable=skip_unreadable,
        range=range,
        cache_dir=cache_dir,
        progress=progress,
    )
    return assemble(listing, options)
