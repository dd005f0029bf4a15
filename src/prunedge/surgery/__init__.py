"""Channels removed from a model, with the proof that nothing else changed: `remove`, `operate`."""

from prunedge.surgery.masked_model import masked_outputs
from prunedge.surgery.resize import register_size_attribute
from prunedge.surgery.serialize import adopt, restore_model, save_model, sizes_of
from prunedge.surgery.slicing import OptimState, slice_state
from prunedge.surgery.surgery import Surgery, operate, remove
from prunedge.surgery.verify import TOLERANCE

__all__ = [
    "TOLERANCE",
    "OptimState",
    "Surgery",
    "adopt",
    "masked_outputs",
    "operate",
    "register_size_attribute",
    "remove",
    "restore_model",
    "save_model",
    "sizes_of",
    "slice_state",
]
