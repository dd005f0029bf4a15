"""What a model's outputs mean on the device, a module for each task.

Every module of this folder that has a `DEFINITION` is a task.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from prunedge.edge.tasks.base import Decoder, DecoderDefinition, TaskSpec
from prunedge.errors import BundleError
from prunedge.utils.sanitize import shown


def _definitions() -> dict[str, DecoderDefinition]:
    definitions = {}
    for module in iter_modules(__path__):
        definition = getattr(import_module(f"{__name__}.{module.name}"), "DEFINITION", None)
        if definition is not None:
            definitions[definition.name] = definition
    return definitions


DECODERS = _definitions()


def decoder_of(spec: TaskSpec) -> Decoder:
    """What a task makes of a model's outputs. Raises BundleError when it is not known here."""
    if spec.name not in DECODERS:
        raise BundleError(
            f"this prunedge knows no task '{shown(spec.name)}', but {', '.join(DECODERS)}",
            remedy="update prunedge, or export the model again with this one",
        )
    return DECODERS[spec.name].make(spec)
