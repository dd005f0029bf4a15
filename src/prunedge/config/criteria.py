"""The names of prunedge's criteria, for whoever lists them without loading torch. What each does is
registered in `prunedge.importance`.
"""

from __future__ import annotations

CRITERION_NAMES = (
    "taylor",
    "taylor-fo",
    "taylor-bn",
    "fisher",
    "feature-distance",
    "weight-l1",
    "weight-l2",
    "fpgm",
    "bn-scale",
    "activation-mean",
    "activation-std",
    "apoz",
    "mutual-information",
    "mutual-information-prediction",
    "random",
)
