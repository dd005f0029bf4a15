"""A network and pictures in, the same network trained and its metrics out: `fit`, `transfer`, `evaluate`."""

from prunedge.train.engine import Engine, make_engine, measure_engine
from prunedge.train.evaluate import METRICS, Metrics, evaluate, measure, predict
from prunedge.train.fit import Collector, Epoch, FitResult, Halfway, Penalty, Progress, Snapshot, fit
from prunedge.train.learning_rate import Rate, find_rate
from prunedge.train.optim import OptimState, flattened, unflattened
from prunedge.train.schedule import FitRecipe
from prunedge.train.sparsity import STRENGTH, penalty
from prunedge.train.transfer import transfer, transfer_rate, transfer_recipe

__all__ = [
    "METRICS",
    "STRENGTH",
    "Collector",
    "Engine",
    "Epoch",
    "FitRecipe",
    "FitResult",
    "Halfway",
    "Metrics",
    "OptimState",
    "Penalty",
    "Progress",
    "Rate",
    "Snapshot",
    "evaluate",
    "find_rate",
    "fit",
    "flattened",
    "make_engine",
    "measure",
    "measure_engine",
    "penalty",
    "predict",
    "transfer",
    "transfer_rate",
    "transfer_recipe",
    "unflattened",
]
