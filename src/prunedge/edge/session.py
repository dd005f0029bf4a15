"""A bundle at work: pixels in, probabilities out, and the proof that it answers here as it did
where it was exported.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np

from prunedge.edge.bundle import SELFTEST, Bundle
from prunedge.edge.image.read import normalise
from prunedge.edge.probabilities import LOUD, is_share, is_sigmoid, squash_of, told
from prunedge.edge.runtimes import Model, missing, runtime_of
from prunedge.edge.targets import TARGETS, Target
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.tracing import span

TOLERANCE = 1e-3  # of the largest output
MOST_THREADS = 1024  # each takes a stack, and no machine has so many cores for one model


@dataclass(frozen=True)
class SelfTest:
    """What a model answers here to the bundle's own images, beside what torch answered where it
    was exported.

    `relative_difference` is the largest difference of an output, as a share of the largest output;
    `agreement` the share of images with the same label, those that torch itself can't tell apart
    within that difference counted as the same.
    """

    images: int
    relative_difference: float
    agreement: float


@dataclass(frozen=True)
class Session:
    """A loaded model. `threads` is what one inference may use."""

    bundle: Bundle
    target: Target
    threads: int
    runtime: str
    _model: Model

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (n, classes) float32 for inputs (n, 3, size, size) float32."""
        return self._model(inputs)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float32 for images (n, size, size, 3) uint8."""
        manifest = self.bundle.manifest
        with span("preprocess"):
            inputs = normalise(pixels, manifest.mean, manifest.std)
        with span("model"):
            values = self.logits(inputs)
        with span("probabilities"):
            exponents = np.exp(values - values.max(1, keepdims=True))
            return exponents / exponents.sum(1, keepdims=True)

    def warning(self) -> str | None:
        """What is wrong with its probabilities, if the model's answers to the bundle's own
        images are probabilities already.

        Export refuses such models; bundles that others made may hold one.
        """
        pixels, outputs = _read_selftest(self.bundle)
        inputs = normalise(pixels, self.bundle.manifest.mean, self.bundle.manifest.std)
        squash = squash_of(outputs)
        if squash is None and is_share(outputs):
            loud = np.concatenate([self.logits(LOUD * one[None]) for one in inputs])
            squash = "sigmoid" if is_sigmoid(outputs, loud) else None
        return (
            None
            if squash is None
            else f"{told(squash)}: export it again from a model that returns logits"
        )

    def self_test(self) -> SelfTest:
        """Classify the bundle's own images; BundleError when the answers are not those of the
        model that was exported.

        An exact target must give torch's outputs to `TOLERANCE` and its labels; the others must
        give finite numbers, and what they differ by is told.
        """
        pixels, wanted = _read_selftest(self.bundle)
        found = self.logits(normalise(pixels, self.bundle.manifest.mean, self.bundle.manifest.std))
        result = compare(found, wanted)
        if self.target.is_exact and (
            result.relative_difference > TOLERANCE or result.agreement < 1
        ):
            raise BundleError(
                (
                    "on this device the model's outputs differ by "
                    f"{result.relative_difference:.1%} from those of the one that was exported"
                ),
                where=self.bundle.model(self.target.name),
                remedy="try another --runtime, and report this device to prunedge",
            )
        return result


def compare(found: np.ndarray, wanted: np.ndarray) -> SelfTest:
    """Outputs (n, classes) of an exported model beside torch's; BundleError when they can't be
    compared.
    """
    if found.shape != wanted.shape or not np.isfinite(found).all():
        what = (
            f"outputs of shape {found.shape} instead of {wanted.shape}"
            if found.shape != wanted.shape
            else "outputs that are not numbers"
        )
        raise BundleError(f"the model gives {what}", remedy="export the bundle again")
    difference = float(np.abs(found - wanted).max())
    margin = np.take_along_axis(wanted, wanted.argmax(1)[:, None], 1) - np.take_along_axis(
        wanted, found.argmax(1)[:, None], 1
    )
    same = margin[:, 0] <= (
        2 * difference if difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())) else 0
    )
    return SelfTest(
        len(found), difference / max(1.0, float(np.abs(wanted).max())), float(same.mean())
    )


def open_session(bundle: Bundle, threads: int = 1, target: str | None = None) -> Session:
    """Load a bundle's model for a target (None: the bundle's first).

    Raises BundleError when there can't be so many threads, when it was not exported, can't be
    loaded or doesn't fit the manifest, ExtraMissing when its runtime is missing.
    """
    if not 1 <= threads <= MOST_THREADS:
        remedy = f"give 1 to {MOST_THREADS:,}; more threads than cores make nothing faster"
        raise BundleError(f"{threads:,} threads", where="--threads", remedy=remedy)
    file, size = bundle.model(target), bundle.manifest.input_size
    chosen = TARGETS[target or bundle.target]
    runtime = runtime_of(chosen)
    try:
        model, shape = runtime.load(file, threads)
        said = runtime.version()
    except ImportError as error:
        raise missing(chosen, error) from None
    if list(shape[1:]) != [3, size, size] or (chosen.batches and isinstance(shape[0], int)):
        raise BundleError(
            f"the model wants {shape}, the manifest says {size} pixels",
            where=file,
            remedy="export the bundle again",
        )
    session = Session(bundle, chosen, threads, said, model)
    classes = session.logits(np.zeros((1, 3, size, size), np.float32)).shape
    if classes != (1, len(bundle.manifest.classes)):
        raise BundleError(
            f"the model gives {classes}, the manifest has {len(bundle.manifest.classes)} classes",
            where=file,
            remedy="export the bundle again",
        )
    return session


def _read_selftest(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, size, size, 3) uint8 and torch's outputs (n, classes) float32."""
    file, size = bundle.path / SELFTEST, bundle.manifest.input_size
    try:
        with zipfile.ZipFile(file) as opened:
            if sum(one.file_size for one in opened.infolist()) > 64 * 2**20:
                raise ValueError("too large")
        with np.load(file, allow_pickle=False) as found:
            pixels, outputs = found["pixels"], found["outputs"]
        if (
            pixels.dtype != np.uint8
            or pixels.shape != (len(outputs), size, size, 3)
            or outputs.shape[1:] != (len(bundle.manifest.classes),)
        ):
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
