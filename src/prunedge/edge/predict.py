"""What a model answers to whole images, a row of a table each. Needs no torch."""

from __future__ import annotations

import csv
import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from prunedge.edge.folders import DEEPEST, walk
from prunedge.edge.image.read import SUFFIXES, Greys, read_and_look
from prunedge.edge.session import Session
from prunedge.edge.tasks import DEFINITIONS, decoder_of
from prunedge.edge.tasks.base import Decoder, TaskSpec
from prunedge.errors import BundleError, DataError, MachineError
from prunedge.utils.files import require_regular, write_bytes
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.systems import cores
from prunedge.utils.wording import words_of

BATCH = 32
OWN = ("path", "answer", "error")  # columns that no class has to itself
REMEDY = "name images, a folder of them, or a pattern such as 'photos/*.jpg'"

Failed = Callable[[str], None]


@dataclass(frozen=True)
class Predictor:
    """A model that answers images: `outputs` gives its outputs (n, ...) float32 for pixels (n,
    height, width, channels) uint8. `greys` is the range of greys of more than eight bits.
    """

    spec: TaskSpec
    greys: Greys | None
    outputs: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, session: Session) -> Predictor:
        """A bundle's."""
        return cls(session.bundle.manifest.task, session.bundle.greys, session.answer)


@dataclass(frozen=True)
class Prediction:
    """What was answered to an image: in the words of its labels, and `values`, one for each of the
    task's classes: its probability, its share of the pixels, or the number. `error` says why there
    is none.
    """

    path: str
    answer: str = ""
    values: tuple[float, ...] = ()
    error: str = ""


def is_pixels(places: Sequence[str]) -> bool:
    """Whether a single .npy file is named instead of images."""
    return len(places) == 1 and places[0].endswith(".npy")


def read_pixels(file: str, spec: TaskSpec) -> np.ndarray:
    """Pixels as a model sees them, (n, height, width, channels) uint8. DataError where a file holds
    none.
    """
    require_regular(Path(file), DataError)
    try:
        pixels: np.ndarray = np.load(file, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        pass_on_reading(error, file)
        raise DataError("no .npy file of pixels", where=file, remedy=REMEDY) from None
    wanted = (*spec.size, spec.in_channels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != wanted:
        what = f"{pixels.dtype} of shape {pixels.shape}, not uint8 of (n, {str(wanted)[1:]}"
        raise DataError(what, where=file, remedy="give pixels as the model sees them")
    return pixels


def images_in(places: Sequence[str], failed: Failed) -> list[str]:
    """The files that files, folders and patterns name, each once, those of a folder or pattern
    sorted. `failed` hears of folders that are left out.

    Raises DataError where a place names none.
    """
    found: list[str] = []
    for place in places:
        path = Path(place)
        if path.is_dir():
            files = _images_below(path, failed)
        elif path.exists():
            require_regular(path, DataError)
            files = [place]
        else:
            files = sorted(name for name in glob.glob(place, recursive=True) if _is_image(name))
        if not files:
            what = "no images" if path.is_dir() or glob.has_magic(place) else "no such image"
            raise DataError(what, where=place, remedy=REMEDY)
        found += files
    return list(dict.fromkeys(found))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and Path(name).is_file()


def _images_below(folder: Path, failed: Failed) -> list[str]:
    levels = walk(
        folder,
        failed=lambda path, error: failed(f"{path} can't be opened ({error.strerror})"),
        too_deep=lambda path: failed(f"{path} is left out: more than {DEEPEST} folders down"),
    )
    files = []
    try:
        for level in levels:
            for name in level.files:
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    files.append(str(Path(level.path, name)))
    except OSError as error:
        what = f"the folder can't be read ({error.strerror})"
        raise MachineError(what, where=folder, remedy="mend that") from None
    return files


def predict(
    predictor: Predictor,
    images: Sequence[str],
    progress: Callable[[int, int, str], None] | None = None,
    masks: Path | None = None,
) -> Iterator[Prediction]:
    """The prediction of each image, in their order; of one that can't be read the reason.

    In the folder `masks`, where it is named, each image has its mask, by its name and as large as
    itself: white for the second of two classes, else the numbers of the classes. What a model that
    crops its images has not seen is black between two classes, else `IGNORE`
    (`prunedge.edge.tasks.segmentation`). BundleError where the model answers whole images.

    Images are read a few at a time. Raises MachineError where the machine can't read one now,
    BundleError where the model's outputs are none of its task.
    """
    if masks is not None:
        require_masks(predictor.spec)
    with ThreadPoolExecutor(min(cores(), 16)) as pool:
        for start in range(0, len(images), BATCH):
            chosen = images[start : start + BATCH]
            seen = list(pool.map(lambda path: _seen(path, predictor), chosen))
            yield from _answered(predictor, chosen, seen, masks)
            if progress is not None:
                progress(start + len(chosen), len(images), "predicting")


def require_masks(spec: TaskSpec) -> None:
    """BundleError where a model answers whole images."""
    if not DEFINITIONS[spec.name].reads_masks:
        raise BundleError(
            "the model answers whole images, and has no masks", remedy="leave --masks out"
        )


class _Seen(NamedTuple):
    """An image as the model sees it, `pixels` (height, width, channels) uint8, and its own `size`,
    width and height as it is seen upright.
    """

    pixels: np.ndarray
    size: tuple[int, int]


def _seen(path: str, predictor: Predictor) -> _Seen | str:
    """The image as the model sees it, or why it can't be read."""
    spec = predictor.spec
    try:
        if Path(path).stat().st_size == 0:
            return "empty file"
        pixels, look = read_and_look(
            path, spec.size, predictor.greys, spec.resize, spec.in_channels
        )
        return _Seen(pixels, (look.width, look.height))
    except DataError as error:
        return error.what
    except MachineError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        pass_on_reading(error, path)
        return words_of(error)


def _answered(
    predictor: Predictor,
    paths: Sequence[str],
    seen: Sequence[_Seen | str],
    masks: Path | None,
) -> Iterator[Prediction]:
    """The predictions of a batch, whose masks are written where they are asked for."""
    decoder = decoder_of(predictor.spec)
    readable = [each for each in seen if not isinstance(each, str)]
    rows: Iterator[tuple[str, list[float]]] = iter(())
    if readable:
        sizes = [each.size for each in readable]
        outputs = predictor.outputs(np.stack([each.pixels for each in readable]))
        wrong = decoder.check(outputs, len(readable))
        predictions = decoder.decode(outputs)
        wrong = wrong or decoder.check_predictions(predictions, len(readable))
        if wrong:
            raise BundleError(wrong, remedy="export the model again, or try another --runtime")
        if masks is not None:
            answered = [
                path for path, each in zip(paths, seen, strict=True) if not isinstance(each, str)
            ]
            _write_masks(masks, decoder, answered, predictions, sizes)
        values = decoder.values(predictions, sizes).tolist()
        rows = zip(decoder.answers(predictions, sizes), values, strict=True)
    for path, each in zip(paths, seen, strict=True):
        if isinstance(each, str):
            yield Prediction(path, error=each)
        else:
            answer, values = next(rows)
            yield Prediction(path, answer, tuple(values))


def _write_masks(
    folder: Path,
    decoder: Decoder,
    paths: Sequence[str],
    predictions: np.ndarray,
    sizes: Sequence[tuple[int, int]],
) -> None:
    """Write the mask of each image, of its size."""
    for path, prediction, size in zip(paths, predictions, sizes, strict=True):
        mask = decoder.mask(prediction, *size)
        assert mask is not None  # after `require_masks`
        if len(prediction) == 2:
            mask = np.where(mask == 1, 255, 0).astype(np.uint8)
        content = BytesIO()
        Image.fromarray(mask).save(content, "PNG")
        write_bytes(mask_file(folder, path), content.getvalue())


def mask_file(folder: Path, image: str) -> Path:
    """Where the mask of an image is written."""
    return folder / f"{Path(image).stem}.png"


def write_predictions(
    file: IO[str], spec: TaskSpec, predictions: Iterator[Prediction]
) -> tuple[int, int]:
    """Write a CSV: path, answer, a column for each of the task's classes, and error. How many
    images were answered, and how many could not be read.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("path", "answer", *columns_of(spec), "error"))
    answered = 0
    failed = 0
    for each in predictions:
        values = [f"{value:.7g}" for value in each.values] or [""] * len(spec.classes)
        table.writerow((each.path, each.answer, *values, each.error))
        answered += not each.error
        failed += bool(each.error)
    return answered, failed


def columns_of(spec: TaskSpec) -> list[str]:
    """What the columns of the classes are called: as these, but for the names of other columns."""
    return [f"{name} (class)" if name in OWN else name for name in spec.classes]
