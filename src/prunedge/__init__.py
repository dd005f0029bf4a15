"""prunedge: from pictures of damage to a small network, proven on the device that will run it.

The public names load lazily: `import prunedge` never imports torch, so the device doesn't need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load_folder": "prunedge.data",
    "load_manifest": "prunedge.data",
    "build": "prunedge.models",
    "cost": "prunedge.models",
    "trace": "prunedge.graph",
    "rank": "prunedge.importance",
    "criterion": "prunedge.importance",
    "Plan": "prunedge.graph.plan",
    "PlanConstraints": "prunedge.pruning.select",
    "ScoreScaling": "prunedge.pruning.select",
    "choose": "prunedge.pruning.select",
    "remove": "prunedge.surgery",
    "operate": "prunedge.surgery",
    "register_size_attribute": "prunedge.surgery",
    "prune": "prunedge.pruning.loop",
    "fit": "prunedge.report.library",
    "evaluate": "prunedge.report.library",
    "export_bundle": "prunedge.report.library",
    "write_report": "prunedge.report.library",
    "RecoveryConfig": "prunedge.pruning.context",
    "TrainConfig": "prunedge.train",
    "make_engine": "prunedge.train",
    "Timer": "prunedge.latency",
    "steer": "prunedge.latency",
    "open_run": "prunedge.runs.run",
    "load": "prunedge.runs.load",
    "open_bundle": "prunedge.edge",
    "Contestant": "prunedge.edge",
    "bench": "prunedge.edge",
    "PrunedgeError": "prunedge.errors",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prunedge' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
