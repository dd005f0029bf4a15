"""From a folder, a manifest or shards to a Dataset: what the library, the command line and runs
call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from prunedge.config import IMAGE_KEYS
from prunedge.config.keyword_types import DataKeywords
from prunedge.config.keywords import with_keywords
from prunedge.data.assemble import LoadOptions, assemble
from prunedge.data.coco import is_coco, list_coco
from prunedge.data.dataset import Dataset
from prunedge.data.decode import Progress
from prunedge.data.listing import list_folder, list_manifest
from prunedge.data.mask_listing import MaskOptions, list_images
from prunedge.data.mask_sources import refuse_unmasked
from prunedge.data.records import Listing
from prunedge.edge.tasks import DEFINITIONS
from prunedge.errors import DataError
from prunedge.utils.arguments import require_path

# Shares of the images, where they don't come split.
VAL = 0.15
TEST = 0.15


@with_keywords(IMAGE_KEYS)
def load(
    data: Path | str,
    *,
    val: float = VAL,
    test: float = TEST,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[DataKeywords],
) -> Dataset:
    """The Dataset of class folders, of a folder with a `manifest.csv`, of a CSV manifest, of
    shards, or of photographs with masks.

    Shards (WebDataset) are one `x.tar`, several as `train-{000000..000012}.tar`, a folder of them,
    or an fsspec URL of any of these.

    `task` says what the labels are: `classification`, one class an image; `multilabel`, any number
    of classes an image; `ordinal`, one of several degrees, whose `order` is that of numbers or is
    given; `regression`, one number or several, in their own units; `segmentation`, the class of
    each pixel, which masks say: `masks` is the folder of these, or annotations (COCO, YOLO,
    LabelMe, CVAT, Label Studio). Without it shards hold them beside the images, and a CSV names
    them in a column `mask`.

    Images become `size` pixels large (`224`, `"128x384"` or `(128, 384)`: height and width), those
    of another shape as `resize` says. Greys of more than eight bits become eight: `range`
    (`LOW:HIGH`, or two numbers) are the values that become black and white, or else what the
    training images need (`prunedge.data.gray_range`), the same for all images.

    `val` and `test` are the shares of those splits where the data doesn't come split; a missing val
    or test is cut out of train. Splits are stratified, grouped by source (`group_by`: see
    `prunedge.data.groups`), and depend on `seed` alone. With `folds` all images are shared out
    anew, whatever split they come with: number `fold` (from 0) of so many equal parts is the test
    split, and `val` is cut out of the rest. `progress(done, total, what)` is called while images
    are decoded.

    Raises DataError for whatever can't be used: all unreadable images are named at once, unless
    `skip_unreadable`.
    """
    require_path("data", data)
    options = LoadOptions.of(settings, (val, test), cache_dir, progress)
    return assemble(_listed(data, options), options)


def _listed(data: Path | str, options: LoadOptions, root: Path | None = None) -> Listing:
    """The images, with their masks where these are asked for. `root` is what a manifest's paths are
    relative to.
    """
    refuse_unmasked(options.task, data, options.masks)
    how = MaskOptions(
        skips=options.skip_unreadable,
        tile=options.tile,
        overlap=options.overlap,
        cache_dir=options.cache_dir,
        progress=options.progress,
        is_wanted=_reads_masks(options),
    )
    return list_images(data, options.masks, how, root)


def _reads_masks(options: LoadOptions) -> bool:
    """Whether the task learns from masks."""
    return DEFINITIONS[options.task].reads_masks


@with_keywords(IMAGE_KEYS)
def load_folder(
    root: Path | str,
    *,
    val: float = VAL,
    test: float = TEST,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[DataKeywords],
) -> Dataset:
    """The Dataset of a folder: class folders, with or without train/val/test over them, or shards.

    `val` and `test` are the shares of those splits where the folder doesn't come split; `cache_dir`
    is where decoded images are kept; `progress(done, total, what)` is called while they are
    decoded. Raises DataError for whatever can't be used.

    Example: `data = pe.load_folder("cracks/", size=224, seed=0)`
    """
    require_path("root", root)
    options = LoadOptions.of(settings, (val, test), cache_dir, progress)
    if options.masks is not None or _reads_masks(options):
        return assemble(_listed(root, options), options)
    return assemble(list_folder(Path(root), cache_dir, progress), options)


@with_keywords(IMAGE_KEYS)
def load_manifest(
    csv: Path | str,
    *,
    root: Path | str | None = None,
    val: float = VAL,
    test: float = TEST,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[DataKeywords],
) -> Dataset:
    """The Dataset of a CSV (path or file, label, and if wanted source and split).

    With `task="multilabel"` a label may be several (`crack;rust`) or empty; in place of the column
    there may be one of 0 and 1 for each class. With `task="regression"` it is a number, or there is
    a column of numbers for each. A COCO file (`.json`) will do as well: an image has the categories
    of its annotations. With `task="segmentation"` a column `mask` names the mask of each. Paths are
    relative to `root`, by default the folder of the file. The other arguments are those of
    `load_folder`. Raises DataError for whatever can't be used.

    Example: `data = pe.load_manifest("cracks.csv", root="images", size=224)`
    """
    require_path("csv", csv)
    options = LoadOptions.of(settings, (val, test), cache_dir, progress)
    if options.masks is not None:
        remedy = "name the folder of the photographs, not a manifest"
        raise DataError("masks belong to a folder of photographs", where=csv, remedy=remedy)
    base = None if root is None else Path(root)
    file = Path(csv)
    if _reads_masks(options):
        return assemble(_listed(file, options, base), options)
    return assemble(list_coco(file, base) if is_coco(file) else list_manifest(file, base), options)
