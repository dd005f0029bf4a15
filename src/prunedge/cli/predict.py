"""`prunedge predict`: what a model answers to images, as a table. Needs no torch for a bundle."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.options import Flag, TrustCode

if TYPE_CHECKING:
    from prunedge.edge.predict import Predictor

STDOUT = "-"


def predict(
    model: Path,
    *images: str,
    out: Annotated[str, Parameter(allow_leading_hyphen=True)],
    masks: Path | None = None,
    runtime: str | None = None,
    step: int | None = None,
    baseline: Flag = False,
    threads: int | None = None,
    trust_code: TrustCode = False,
    json: Flag = False,
) -> None:
    """Answer whole images: a CSV with a row for each, its answer, and the probability of each class
    (or the numbers).

    Images are decoded, resized and normalised as those that the model was trained on. One that
    can't be read has a row that says why; the exit code is 1 then.

    Example: `prunedge predict bundles/cracks photos/ --out predictions.csv`

    Parameters
    ----------
    model
        A bundle that `prunedge export` made, or a run folder (which needs torch).
    images
        Images, folders of them, and patterns ('photos/*.jpg').
    out
        The CSV file to make; - for stdout.
    masks
        A folder to make, with the mask of each image by its name and as large as itself: of a model
        that finds damage pixel by pixel. White is the second of two classes; of more classes pixels
        have their numbers. What a model with --resize crop hasn't seen is black between two
        classes, and 255 among more.
    runtime
        Which of a bundle's forms to run (onnx, onnx-int8, openvino, ...). Without it, its first.
    step
        Of a run, the model after this step instead of the best, by the number that `show` prints.
    baseline
        Of a run, the unpruned model.
    threads
        Threads that the model may use; all cores, unless given.
    json
        Print JSON to stdout (--out -) instead of a table. IMAGES may then be a .npy file of pixels
        as the model sees them, (n, height, width, channels) uint8, to which it has the outputs.
    """
    from prunedge.cli.console import say
    from prunedge.edge.predict import images_in, is_pixels, require_masks
    from prunedge.errors import DataError
    from prunedge.utils import trust
    from prunedge.utils.files import refuse_url
    from prunedge.utils.systems import cores, limit_memory_to_machine
    from prunedge.utils.wording import counted

    if out != STDOUT:
        refuse_url(Path(out))
        if Path(out).exists():
            raise DataError("there is a file already", where=out, remedy="name another --out")
    if json and out != STDOUT:
        raise DataError("--json prints to stdout", remedy="give --out -")
    if not images:
        raise DataError("no images are named", remedy="prunedge predict BUNDLE IMAGES --out FILE")
    trust.trust_everything(trust_code)
    limit_memory_to_machine()
    if json and is_pixels(images):
        if masks is not None:
            raise DataError(
                "pixels in a .npy file have no masks",
                where="--masks",
                remedy="leave it out, or name images",
            )
        count = cores() if threads is None else threads
        _print_outputs(_predictor(model, runtime, step, count, baseline=baseline), images[0])
        return
    files = images_in(images, lambda line: say(f"mind: {line}"))
    count = cores() if threads is None else threads
    predictor = _predictor(model, runtime, step, count, baseline=baseline)

    if masks is not None:
        require_masks(predictor.spec)
        _make_folder_of(masks, files)
    if json:
        answered, failed = _print_predictions(predictor, files, masks)
    else:
        answered, failed = _write(predictor, files, out, masks)
    place = "" if out == STDOUT else f": {out}"
    say(f"{counted(answered, 'image')} answered{place}")
    if failed:
        say(f"{counted(failed, 'image')} can't be read: the column error says why")
        raise SystemExit(1)


def _print_outputs(predictor: Predictor, file: str) -> None:
    """The outputs for pixels in a file, as JSON."""
    from prunedge.cli.console import print_json
    from prunedge.edge.predict import BATCH, read_pixels

    pixels = read_pixels(file, predictor.spec)
    outputs = []
    for start in range(0, len(pixels), BATCH):
        outputs += predictor.outputs(pixels[start : start + BATCH]).tolist()
    print_json({"outputs": outputs})


def _print_predictions(
    predictor: Predictor, files: list[str], masks: Path | None
) -> tuple[int, int]:
    """The predictions as JSON. How many images were answered, and how many can't be read."""
    from prunedge.cli.console import print_json
    from prunedge.edge.predict import columns_of
    from prunedge.edge.predict import predict as answers_of

    predictions = list(answers_of(predictor, files, masks=masks))
    columns = columns_of(predictor.spec)
    rows = []
    for each in predictions:
        values = dict(zip(columns, each.values, strict=False))  # none of one that can't be read
        rows.append({"path": each.path, "answer": each.answer, **values, "error": each.error})
    print_json(rows)
    failed = sum(bool(each.error) for each in predictions)
    return len(predictions) - failed, failed


def _make_folder_of(masks: Path, files: list[str]) -> None:
    """The folder of the masks; DataError where it holds something, or two images have one name."""
    from collections import Counter

    from prunedge.edge.predict import mask_file
    from prunedge.errors import DataError
    from prunedge.utils.files import make_folder, refuse_url
    from prunedge.utils.wording import first_of

    refuse_url(masks)
    if masks.exists() and (not masks.is_dir() or any(masks.iterdir())):
        raise DataError("there is something already", where=masks, remedy="name another --masks")
    times = Counter(mask_file(masks, file).name for file in files)
    twice = [name for name, count in times.items() if count > 1]
    if twice:
        raise DataError(
            f"several images would have the mask {first_of(twice)}",
            where=masks,
            remedy="answer one folder at a time",
        )
    make_folder(masks)


def _write(predictor: Predictor, files: list[str], out: str, masks: Path | None) -> tuple[int, int]:
    """Write the table, to a file as a whole or not at all. How many images were answered, and how
    many can't be read.
    """
    from prunedge.cli.console import progress
    from prunedge.edge.predict import predict as answers_of
    from prunedge.edge.predict import write_predictions
    from prunedge.utils.files import written

    with ExitStack() as stack:
        advance = stack.enter_context(progress("predicting"))
        predictions = answers_of(predictor, files, advance, masks)
        if out == STDOUT:
            return write_predictions(sys.stdout, predictor.spec, predictions)
        hidden = stack.enter_context(written(Path(out)))
        opened = hidden.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        return write_predictions(stack.enter_context(opened), predictor.spec, predictions)


def _predictor(
    place: Path, runtime: str | None, step: int | None, threads: int, *, baseline: bool
) -> Predictor:
    """The model of a run or a bundle; torch is imported for a run alone."""
    from prunedge.edge import open_bundle
    from prunedge.edge.predict import Predictor
    from prunedge.edge.session import open_session
    from prunedge.errors import BundleError
    from prunedge.utils.signs import CONFIG

    if (place / CONFIG).is_file():
        from prunedge.runs.judged_model import predictor_of

        return predictor_of(place, target=runtime, step=step, baseline=baseline, threads=threads)
    if step is not None or baseline:
        raise BundleError(
            "--step and --baseline are for runs: a bundle holds one model",
            where=place,
            remedy="leave them out, or name the run that it was exported from",
        )
    return Predictor.of(open_session(open_bundle(place), threads, runtime))
