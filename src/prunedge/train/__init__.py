"""A model and images in, the same model trained and its metrics out.

`fit`, `transfer`, `evaluate`.
"""

from prunedge.train.config import TrainConfig
from prunedge.train.engine import Engine, make_engine, measure_engine, require_engine
from prunedge.train.evaluate import evaluate, observe
from prunedge.train.extras import Penalty, Progress, TrainExtras, TrainingCollector
from prunedge.train.fit import FitResult, fit
from prunedge.train.learning_rate import Rate, find_rate
from prunedge.train.optim import OptimState, flattened, unflattened
from prunedge.train.sparsity import STRENGTH, penalty
from prunedge.train.state import Checkpointer, Epoch, Snapshot, TrainingCheckpoint
from prunedge.train.transfer import TransferSettings, transfer, transfer_rate

__all__ = [
    "STRENGTH",
    "Checkpointer",
    "Engine",
    "Epoch",
    "FitResult",
    "OptimState",
    "Penalty",
    "Progress",
    "Rate",
    "Snapshot",
    "TrainConfig",
    "TrainExtras",
    "TrainingCheckpoint",
    "TrainingCollector",
    "TransferSettings",
    "evaluate",
    "find_rate",
    "fit",
    "flattened",
    "make_engine",
    "measure_engine",
    "observe",
    "penalty",
    "require_engine",
    "transfer",
    "transfer_rate",
    "unflattened",
]
