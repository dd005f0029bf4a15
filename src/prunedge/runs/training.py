"""How a run was taught: its learning rate, found once and kept for the runs that go on from it, and
whether it learned anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.errors import TrainError
from prunedge.pruning.steps import Step
from prunedge.runs.run import Run
from prunedge.tasks import Task
from prunedge.train import (
    Engine,
    FitResult,
    Progress,
    Rate,
    TrainConfig,
    transfer_rate,
)
from prunedge.train.collapse import Taught, one_class_warning
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

NAME = "lr.json"
PATIENCE = "patience.json"


def kept_rate(run: Run) -> Rate | None:
    """The rate that the run's model was trained with; None before it is known."""
    return run.read_as(NAME, Rate.from_json)


def rate_of(
    run: Run,
    model: nn.Module,
    data: Dataset,
    how: TrainConfig,
    engine: Engine,
    *,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> Rate:
    """The rate for training `model`: the user's, the one that was found before the run was cut
    off, or one that is found now.
    """
    if (kept := kept_rate(run)) is not None:
        return kept
    rate = first_rate(run.config, model, data, how, engine, progress=progress)
    run.write(NAME, rate.to_json())
    tell(f"{rate.sentence()}; {option('lr')} overrides it" if rate.curve else rate.sentence())
    return rate


def first_rate(
    config: RunConfig,
    model: nn.Module,
    data: Dataset,
    how: TrainConfig,
    engine: Engine,
    *,
    progress: Progress | None,
) -> Rate:
    """The rate for the first training of `model`: the user's, or one that is found."""
    if config.train.lr is not None:
        return Rate(config.train.lr, "as it was asked for", optimizer=how.optimizer)
    if not config.train.epochs:
        why = "the usual one, since nothing was trained"
        return Rate(how.lr, why, optimizer=how.optimizer)
    rate = transfer_rate(
        model,
        data,
        how,
        pretrained=config.model.weights != "none",
        engine=engine,
        seed=config.data.seed,
        progress=progress,
    )
    return distributed.broadcast_object(rate)


def inherit_rate(run: Run, source: Run) -> None:
    """Keep the rate of the run that this one goes on from, where that knows it and has the same
    optimizer.
    """
    rate = kept_rate(source)
    if rate is not None and rate.optimizer == (run.config.train.optimizer or "sgd"):
        run.write(NAME, rate.to_json())


def with_rate(config: RunConfig, run: Run, how: TrainConfig) -> RunConfig:
    """The config whose fine-tuning, which goes like `how`, goes by the rate that the model was
    trained with, unless it names one itself, or has another optimizer.

    What a pretrained model bears in the first training it bears afterwards; a model that
    learned from these images alone has no older knowledge that bold steps could spoil.
    """
    rate = kept_rate(run)
    if config.recover.lr is not None or rate is None or rate.optimizer != how.optimizer:
        return config
    return config.with_values(finetune_lr=replace(how, lr=rate.lr).recovery_lr)


def note_patience(run: Run, fitted: FitResult) -> str | None:
    """Keep in the run that patience ended its training before all epochs, where it did; gives what
    is to be said.
    """
    asked = run.config.train.epochs
    if run.config.train.patience is None or len(fitted.history) >= asked:
        return None
    record = {"epochs": len(fitted.history), "best": fitted.best_epoch + 1}
    run.write(PATIENCE, record)
    return ended_early(run)


def ended_early(run: Run) -> str | None:
    """That patience ended the run's training, in a sentence; None where it did not."""
    record = run.read(PATIENCE)
    if record is None:
        return None
    asked = counted(run.config.train.epochs, "epoch")
    return (
        f"the training ended after {record['epochs']} of {asked}: none after epoch "
        f"{record['best']} was better ({option('patience', run.config.train.patience)})"
    )


def taught(run: Run, elsewhere: str | None = None) -> Taught:
    """How a run's model was taught; `elsewhere` names the run where it is another that goes on
    from it.
    """
    rate, config = kept_rate(run), run.config
    epochs = config.train.schedule_epochs if config.model.start else config.train.epochs
    fell = bool(rate and rate.silenced)
    return Taught(
        epochs,
        config.model.weights != "none",
        rate.lr if rate else None,
        elsewhere or config.model.start,
        fell,
        rate.optimizer if rate else config.train.optimizer or "sgd",
    )


def refuse_one_class(step: Step, task: Task, how: Taught) -> None:
    """Raise TrainError where the model of a step answers one class whatever it sees: its channels
    tell nothing of the task.
    """
    if step.only_answer is not None:
        what, _, remedy = one_class_warning(task.answer_name(step.only_answer), how).partition(": ")
        raise TrainError(what, remedy=remedy)
