"""A bundle at work: pixels in, predictions out, and the proof that it answers here as it did
where it was exported.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np

from prunedge.edge.bundle import SELFTEST, Bundle
from prunedge.edge.image.normalise import normalise
from prunedge.edge.probabilities import LOUD
from prunedge.edge.runtimes import Model, missing, runtime_of
from prunedge.edge.targets import TARGETS, TOLERANCE, Target
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import Decoder, TaskSpec
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.tracing import span
from prunedge.utils.wording import counted

LARGEST_SELFTEST = 64 * 2**20  # bytes, unpacked, unless a single image takes more
MOST_THREADS = 1024  # each takes a stack, and no machine has so many cores for one model


@dataclass(frozen=True)
class SelfTest:
    """What a model answers here to the bundle's own images, beside what torch answered where it
    was exported.

    `relative_difference` is the largest difference of an output, as a share of the largest output;
    `agreement` the share of images that get the same prediction, those that torch itself can't tell
    apart within that difference counted as the same.
    """

    images: int
    relative_difference: float
    agreement: float


@dataclass(frozen=True)
class Session:
    """A loaded model. `threads` is what one inference may use, `decoder` what its outputs mean."""

    bundle: Bundle
    target: Target
    threads: int
    runtime: str
    decoder: Decoder
    _model: Model

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """The model's outputs (n, ...) float32 for inputs (n, channels, height, width) float32: for
        classification (n, classes).
        """
        return self._model(inputs)

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """The model's outputs (n, ...) float32 for images (n, height, width, channels) uint8, which
        are normalised as the model's training images were.
        """
        with span("preprocess"):
            inputs = self._inputs(pixels)
        with span("model"):
            return self.outputs(inputs)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predictions for images (n, height, width, channels) uint8: for classification
        probabilities (n, classes) float32.
        """
        outputs = self.answer(pixels)
        with span("decode"):
            return self.decoder.decode(outputs)

    def warning(self) -> str | None:
        """What is wrong with its predictions, if the model's answers to the bundle's own images are
        decoded already.

        Export refuses such models; bundles that others made may hold one.
        """
        pixels, outputs = _read_selftest(self.bundle, self.decoder)
        inputs = self._inputs(pixels)

        def loud() -> np.ndarray:
            return np.concatenate([self.outputs(LOUD * image[None]) for image in inputs])

        fault = self.decoder.warning(outputs, loud)
        if fault is None:
            return None
        return f"{fault}: export it again from a model that returns logits"

    def self_test(self) -> SelfTest:
        """Predict the bundle's own images; BundleError when the answers are not those of the model
        that was exported.

        An exact target must give torch's outputs to its tolerance and its predictions; the others
        must give finite numbers, and what they differ by is told.
        """
        pixels, wanted = _read_selftest(self.bundle, self.decoder)
        outputs = self.outputs(self._inputs(pixels))
        tolerance = self.target.tolerance
        result = compare(self.decoder, outputs, wanted, tolerance)

        is_same = result.relative_difference <= tolerance and result.agreement >= 1
        if self.target.is_exact and not is_same:
            raise BundleError(
                (
                    "on this device the model's outputs differ by "
                    f"{result.relative_difference:.1%} from those of the one that was exported"
                ),
                where=self.bundle.model(self.target.name),
                remedy="try another --runtime, and report this device to prunedge",
            )
        return result

    def _inputs(self, pixels: np.ndarray) -> np.ndarray:
        manifest = self.bundle.manifest
        return normalise(pixels, manifest.mean, manifest.std)


def compare(
    decoder: Decoder, outputs: np.ndarray, wanted: np.ndarray, tolerance: float = TOLERANCE
) -> SelfTest:
    """Outputs (n, ...) of an exported model beside torch's, which it may differ from by `tolerance`
    of the largest; BundleError when they can't be compared.
    """
    if outputs.shape != wanted.shape:
        what = f"the model gives outputs of shape {outputs.shape} instead of {wanted.shape}"
        raise BundleError(what, remedy="export the bundle again")
    if not np.isfinite(outputs).all():
        what = "the model gives outputs that are not numbers"
        raise BundleError(what, remedy="export the bundle again")

    difference = float(np.abs(outputs - wanted).max())
    largest = max(1.0, float(np.abs(wanted).max()))
    # What the outputs of two predictions may have come nearer to each other by.
    nearer = 2 * difference if difference <= tolerance * largest else 0.0
    agreement = decoder.agreement(outputs, wanted, nearer)
    return SelfTest(len(outputs), difference / largest, float(agreement.mean()))


def require_threads(threads: int) -> None:
    """BundleError when there can't be so many threads."""
    if not 1 <= threads <= MOST_THREADS:
        remedy = f"give 1 to {MOST_THREADS:,}; more threads than cores make nothing faster"
        raise BundleError(f"{threads:,} threads", where="--threads", remedy=remedy)


def open_session(
    bundle: Bundle, threads: int = 1, target: str | None = None, *, flush: bool = True
) -> Session:
    """Load a bundle's model for a target (None: the bundle's first). With `flush` the runtime is
    asked to take denormal numbers for zeros.

    Raises BundleError when there can't be so many threads, when it was not exported, can't be
    loaded or doesn't fit the manifest, ExtraMissing when its runtime is missing.
    """
    require_threads(threads)
    file = bundle.model(target)
    bundle = bundle.seen_as(target)
    task = bundle.manifest.task
    chosen = TARGETS[bundle.target if target is None else target]
    runtime = runtime_of(chosen)
    try:
        model, shape = runtime.load(file, threads, flush=flush)
        version = runtime.version()
    except ImportError as error:
        raise missing(chosen, error) from None
    if list(shape[1:]) != [*task.image_shape]:
        raise BundleError(
            f"the model wants {shape}, the manifest says {task.size} pixels and "
            f"{counted(task.in_channels, 'channel')}",
            where=file,
            remedy="export the bundle again",
        )

    session = Session(bundle, chosen, threads, version, decoder_of(task), model)
    outputs = session.outputs(np.zeros((1, *task.image_shape), np.float32))
    if wrong := session.decoder.check(outputs, 1):
        raise BundleError(wrong, where=file, remedy="export the bundle again")
    return session


def selftest_bytes(task: TaskSpec) -> int:
    """What an image of a self-test takes at most with its outputs, unpacked: four bytes for each
    class of each pixel, where the outputs are maps.
    """
    pixels = task.size.height * task.size.width
    return pixels * (task.in_channels + 4 * len(task.classes)) + 4096


def _read_selftest(bundle: Bundle, decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, channels) uint8 and torch's outputs (n, ...) float32."""
    file = bundle.path / SELFTEST
    try:
        with zipfile.ZipFile(file) as opened:
            largest = max(LARGEST_SELFTEST, selftest_bytes(bundle.manifest.task))
            if sum(entry.file_size for entry in opened.infolist()) > largest:
                raise ValueError("too large")
        with np.load(file, allow_pickle=False) as arrays:
            pixels = arrays["pixels"]
            outputs = arrays["outputs"]
        count = len(outputs) if outputs.ndim else 0
        task = bundle.manifest.task
        wanted = (count, *task.size, task.in_channels)
        is_image = pixels.dtype == np.uint8 and pixels.shape == wanted
        if not is_image or decoder.check(outputs, count) is not None:
            raise ValueError(
                f"images of shape {pixels.shape} with outputs of shape {outputs.shape}"
            )
        if not len(pixels):
            raise ValueError("it holds no images")
    except MemoryError as error:
        pass_on_reading(error, file)
        what = "the self-test asks for more memory than there is"
        raise BundleError(what, where=file, remedy="don't trust this bundle") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        pass_on_reading(error, file)
        raise BundleError(
            f"the self-test can't be read: {error}", where=file, remedy="export the bundle again"
        ) from None
    return pixels, outputs.astype(np.float32)
