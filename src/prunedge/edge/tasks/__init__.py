"""What a model's outputs mean on the device, a module for each task.

Every module of this folder that has a `DEFINITION` is a task.
"""

from __future__ import annotations

from prunedge.edge.tasks.base import Decoder, DecoderDefinition, TaskSpec
from prunedge.errors import BundleError
from prunedge.utils.definitions import definitions_in
from prunedge.utils.sanitize import shown

DECODERS: dict[str, DecoderDefinition] = definitions_in(__name__, __path__)


def decoder_of(spec: TaskSpec) -> Decoder:
    """What a task makes of a model's outputs. Raises BundleError when it is not known here."""
    if spec.name not in DECODERS:
        raise BundleError(
            f"this prunedge knows no task '{shown(spec.name)}', but {', '.join(DECODERS)}",
            remedy="update prunedge, or export the model again with this one",
        )
    return DECODERS[spec.name].make(spec)
