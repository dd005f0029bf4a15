"""What a model's outputs mean on the device, a module for each task."""

from __future__ import annotations

from collections.abc import Callable

from prunedge.edge.tasks.base import Decoder, TaskSpec
from prunedge.edge.tasks.classification import Classification
from prunedge.errors import BundleError
from prunedge.utils.sanitize import shown

DECODERS: dict[str, Callable[[TaskSpec], Decoder]] = {"classification": Classification}


def decoder_of(spec: TaskSpec) -> Decoder:
    """What a task makes of a model's outputs. Raises BundleError when it is not known here."""
    if spec.name not in DECODERS:
        raise BundleError(
            f"this prunedge knows no task '{shown(spec.name)}', but {', '.join(DECODERS)}",
            remedy="update prunedge, or export the model again with this one",
        )
    return DECODERS[spec.name](spec)
