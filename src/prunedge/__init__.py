"""prunedge: from images of damage to a small model, proven on the device that will run it.

The public names load lazily: `import prunedge` never imports torch, so the device doesn't need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For editors and type checkers; at run time each is imported when it is asked for.
    from prunedge.data import load_folder as load_folder
    from prunedge.data import load_manifest as load_manifest
    from prunedge.edge import Candidate as Candidate
    from prunedge.edge import bench as bench
    from prunedge.edge import open_bundle as open_bundle
    from prunedge.errors import PrunedgeError as PrunedgeError
    from prunedge.graph import trace as trace
    from prunedge.graph.plan import Plan as Plan
    from prunedge.importance import criterion as criterion
    from prunedge.importance.collect import collect as collect
    from prunedge.importance.rank import rank as rank
    from prunedge.latency import Timer as Timer
    from prunedge.latency import steer as steer
    from prunedge.models import build as build
    from prunedge.models import cost as cost
    from prunedge.pruning.select import (
        PlanConstraints as PlanConstraints,
    )
    from prunedge.pruning.select import (
        ScoreScaling as ScoreScaling,
    )
    from prunedge.pruning.select import (
        choose as choose,
    )
    from prunedge.report.library import (
        evaluate as evaluate,
    )
    from prunedge.report.library import (
        export_bundle as export_bundle,
    )
    from prunedge.report.library import (
        fit as fit,
    )
    from prunedge.report.library import (
        write_report as write_report,
    )
    from prunedge.runs.evaluation import evaluate_on as evaluate_on
    from prunedge.runs.load import load as load
    from prunedge.runs.prune import prune as prune
    from prunedge.runs.run import open_run as open_run
    from prunedge.surgery import (
        operate as operate,
    )
    from prunedge.surgery import (
        register_size_attribute as register_size_attribute,
    )
    from prunedge.surgery import (
        remove as remove,
    )
    from prunedge.train import TrainConfig as TrainConfig
    from prunedge.train import make_engine as make_engine

__version__ = "0.2.0"

_HOMES = {
    "load_folder": "prunedge.data",
    "load_manifest": "prunedge.data",
    "build": "prunedge.models",
    "cost": "prunedge.models",
    "trace": "prunedge.graph",
    "rank": "prunedge.importance",
    "collect": "prunedge.importance.collect",
    "criterion": "prunedge.importance",
    "Plan": "prunedge.graph.plan",
    "PlanConstraints": "prunedge.pruning.select",
    "ScoreScaling": "prunedge.pruning.select",
    "choose": "prunedge.pruning.select",
    "remove": "prunedge.surgery",
    "operate": "prunedge.surgery",
    "register_size_attribute": "prunedge.surgery",
    "prune": "prunedge.runs.prune",
    "fit": "prunedge.report.library",
    "evaluate": "prunedge.report.library",
    "export_bundle": "prunedge.report.library",
    "write_report": "prunedge.report.library",
    "TrainConfig": "prunedge.train",
    "make_engine": "prunedge.train",
    "Timer": "prunedge.latency",
    "steer": "prunedge.latency",
    "open_run": "prunedge.runs.run",
    "evaluate_on": "prunedge.runs.evaluation",
    "load": "prunedge.runs.load",
    "open_bundle": "prunedge.edge",
    "Candidate": "prunedge.edge",
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
