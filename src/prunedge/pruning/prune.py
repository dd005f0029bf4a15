"""`pe.prune`: the whole loop on a trained model, without a run folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from prunedge.data import Dataset
from prunedge.data.dataset import require_dataset
from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import refuse_without_norms
from prunedge.models.final_activation import refuse_probabilities
from prunedge.pruning.context import Device, PruneContext, RecoveryConfig
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.record import step_zero
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.steps import Step
from prunedge.tasks import make_task, metric_named
from prunedge.train import Engine, TrainConfig, measure_engine
from prunedge.train.collapse import one_class_warning
from prunedge.utils.advice import command

log = logging.getLogger(__name__)


def prune(
    model: nn.Module,
    data: Dataset,
    *,
    criterion: str = "taylor",
    max_drop: float = 3.0,
    step_ratio: float = 0.1,
    epochs: int = 1,
    target_macs: float | None = None,
    target_params: float | None = None,
    max_steps: int | None = None,
    metric: str = "accuracy",
    seed: int = 0,
    engine: Engine | None = None,
    finetune: TrainConfig | None = None,
    constraints: PlanConstraints | None = None,
    extra_rounds: int = 1,
    scaling: ScoreScaling | None = None,
    recovery: RecoveryConfig | None = None,
    device: Device | None = None,
    target_latency: float | None = None,
    confidence: float | None = None,
) -> Iterator[tuple[Step, nn.Module]]:
    """The whole loop on a trained model: yields (Step, model) for the unpruned model and after each
    step.

    `model` is not changed; one that answers a single class is pruned with a warning. With a
    `device` (`prunedge.latency.steer`) channels cost milliseconds instead of nothing, and the loop
    ends at `target_latency` of them. With `confidence` (0.5 to 1, of accuracy) only a sure drop
    breaks the rule. The best model is that of the last step whose `accepted` is true. ValueError
    for a confidence outside of its range, or of another metric; ModelError when the model gives
    probabilities instead of logits.
    """
    require_dataset(data)
    if extra_rounds < 0:
        raise ValueError(f"extra_rounds must be 0 or more, not {extra_rounds}")
    if target_latency is not None and device is None:
        raise ValueError("target_latency needs a device: prunedge.steer(...) makes one")
    task = make_task(data.spec)
    watched = metric_named(metric, data.spec.name)
    if confidence is not None and not (watched.has_interval and 0.5 <= confidence < 1):
        known = " or ".join(name for name, other in task.metrics.items() if other.has_interval)
        raise ValueError(
            f"confidence is that of {known}, from 0.5 to below 1, not {confidence} of {metric}"
        )
    policy = StopPolicy(
        max_drop=max_drop,
        step_ratio=step_ratio,
        metric=watched,
        target_macs=target_macs,
        target_params=target_params,
        max_steps=max_steps,
        confidence=confidence,
        target_latency=target_latency,
    )
    recovery = recovery or RecoveryConfig()
    refuse_probabilities(model, data.example(4), type(model).__name__)
    graph = trace(model, data.example())
    refuse_unprunable(graph, type(model).__name__)
    if recovery.sparsity == "bn-l1":
        refuse_without_norms(
            model,
            graph,
            "sparsity='bn-l1'",
            remedy="use another, such as group-lasso",
        )
    context = PruneContext(
        data,
        engine or measure_engine(model, data.example(), task=task),
        replace(finetune or TrainConfig(metric=metric), called="finetune_lr"),
        criterion,
        epochs,
        seed,
        constraints=constraints or PlanConstraints(),
        extra_rounds=extra_rounds,
        scaling=scaling or ScoreScaling(),
        recovery=recovery,
        device=device,
    )
    start = step_zero(context, model, policy)
    if start.step.only is not None:
        log.warning("%s", one_class_warning(task.answer_name(start.step.only)))
    yield start.step, start.state.model
    for iteration in iterate(context, policy, (start.step,), start.state):
        yield iteration.step, iteration.state.model


def refuse_unprunable(graph: ChannelGraph, name: str) -> None:
    """PrunedgeError where no channel of a model can be pruned; `name` is the model's."""
    if not graph.groups:
        remedy = f"`{command('groups', '--model', name)}` says why"
        raise PrunedgeError(
            "this model has no channels that could be pruned", where=name, remedy=remedy
        )
