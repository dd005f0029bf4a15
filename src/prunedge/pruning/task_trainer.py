"""prunedge's own trainer: images, a task, and the engine that computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from prunedge.data import Dataset
from prunedge.edge.tasks.metric import Metric
from prunedge.graph import ChannelGraph
from prunedge.importance import Provenance, Scores, identity, rank
from prunedge.pruning.trainer import FineTuned, FineTuning, Judgement
from prunedge.tasks import Task, make_task
from prunedge.train import Engine, TrainConfig, TrainExtras, evaluate, fit
from prunedge.train.learning_rate import lower_rate


@dataclass(frozen=True)
class TaskTrainer:
    """Fine-tunes on `data.train` as `config` says, and judges on `data.val`. With a `teacher` the
    fine-tunings imitate it.
    """

    data: Dataset
    engine: Engine
    config: TrainConfig
    teacher: nn.Module | None = None
    progress: Callable[..., Any] | None = None

    @property
    def task(self) -> Task:
        """What is predicted of the images."""
        return make_task(self.data.spec)

    def example(self) -> torch.Tensor:
        """An image, (1, channels, S, S) float32."""
        return self.data.example()

    def fit(self, model: nn.Module, work: FineTuning) -> FineTuned:
        """Train `model` in place, by the last epoch.

        A model that came to one answer is trained at the next lower learning rate; a polish has a
        schedule of its own from the start.
        """
        config = replace(self.config, start=0.0) if work.is_polish else self.config
        note = ""
        if work.is_gentler:
            config = replace(config, lr=lower_rate(config))
            note = f"learning rate {config.lr:g}, since {self.config.lr:g} ended in one answer"
        extras = TrainExtras(
            optimizer_state=work.optimizer_state,
            collector=work.collector,
            progress=self.progress,
            teacher=self.teacher,
            penalty=work.penalty,
        )
        fitted = fit(
            model,
            self.data.train,
            epochs=work.epochs,
            config=config,
            engine=self.engine,
            seed=work.seed,
            task=self.task,
            extras=extras,
        )
        return FineTuned(
            fitted.model, fitted.optimizer_state, fitted.collected, fitted.history, note
        )

    def evaluate(self, model: nn.Module, metric: Metric) -> Judgement:
        """The task's metrics on the validation split."""
        task = self.task
        metrics = evaluate(model, self.data.val, self.engine, task)
        return Judgement(
            values={"loss": metrics.loss, **metrics.values},
            value=metrics.value(metric.name),
            correct=metrics.correct,
            only_answer=task.only_answer(metrics),
            constant=task.constant(metrics, metric.name),
        )

    def rank(self, model: nn.Module, graph: ChannelGraph, criterion: str, seed: int) -> Scores:
        """The scores of all channels on the training split."""
        return rank(
            model,
            graph,
            self.data.train,
            criterion,
            task=self.task,
            seed=seed,
            engine=self.engine,
        )

    def calibration(self, examples: int, seed: int) -> Iterable[Any]:
        """Batches of training images."""
        return self.data.train.take(examples, seed).batches(32)

    def sources(self) -> Sequence[str | None]:
        """Those of the validation images."""
        return [sample.source for sample in self.data.val.samples]

    def provenance(self, criterion: str, *, distills: bool) -> Provenance | None:
        """What scores are of that are gathered while this trains any model; None where the
        criterion can't be told.
        """
        name = identity(criterion)
        if name is None:
            return None
        config = self.config
        settings: dict[str, Any] = {
            "augment": config.augment,
            "batch_size": config.batch_size,
            "label_smoothing": config.label_smoothing,
        }
        if distills and config.distill:
            settings |= {"distill": config.distill, "temperature": config.temperature}
        return Provenance(name, "", self.data.train_fingerprint(), json.dumps(settings))
