"""The loop: rank, choose, cut, recover, judge; and again, until the policy says that it is enough.

It writes nothing. Each step's randomness comes from the seed and the step's number alone, so a loop
that is cut off and goes on from its last good state makes the same steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prunedge.data import Dataset
from prunedge.data.dataset import require_dataset
from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, derive, trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores, rank, refuse_without_norms
from prunedge.models.final_activation import refuse_probabilities
from prunedge.pruning.context import Device, PruneContext, RecoveryConfig
from prunedge.pruning.gathered import gathered, kept_scores
from prunedge.pruning.planner import StepPlanner
from prunedge.pruning.policy import Continue, Finished, Outcome, StopPolicy
from prunedge.pruning.recover import compensated, faded, recover
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.steps import Clock, Iteration, State, Step, last_good
from prunedge.surgery import OptimState, operate, slice_state
from prunedge.tasks import Metrics, Task, make_task, metric_named
from prunedge.train import Engine, TrainConfig, evaluate
from prunedge.train.collapse import one_class_warning
from prunedge.utils import distributed
from prunedge.utils.advice import command
from prunedge.utils.tracing import phase

log = logging.getLogger(__name__)

NOTHING_LEFT = "no channel is left"


def iterate(
    context: PruneContext,
    policy: StopPolicy,
    history: Sequence[Step],
    state: State,
    *,
    finished: Callable[[Finished], None] | None = None,
) -> Iterator[Iteration]:
    """Make one step after the other and yield each, until the policy ends it. `state` is that of
    the last good step.

    Why it ended goes to `finished`.
    """
    history = list(history)
    action = policy.next_action(history, context.first)

    while isinstance(action, Continue):
        with phase(f"step {len(history)}"):
            iteration = one_step(context, policy, history, state, action.ratio)
        if iteration is None:
            action = _nothing_left(context, history)
            break

        history.append(iteration.step)
        if iteration.step.accepted:
            state = iteration.state
        yield iteration
        action = policy.next_action(history, context.first)

    if finished is not None and isinstance(action, Finished):
        finished(action)


def one_step(
    context: PruneContext, policy: StopPolicy, history: Sequence[Step], state: State, ratio: float
) -> Iteration | None:
    """Remove this share of the channels and recover; None where no channel is left that may go."""
    number = len(history)
    seed = context.seed * 10_000 + number
    clock = Clock()

    graph = state.graph or trace(state.model, context.data.example())
    clock.lap("surgery")

    # Rank.
    kept = kept_scores(context, history, state)
    scores = kept or rank(
        state.model,
        graph,
        context.data.train,
        context.criterion,
        task=context.task,
        seed=seed,
        engine=context.engine,
    )
    clock.lap("rank")

    # Choose.
    refused = _refused(context, history, graph, scores)
    planner = StepPlanner(context, policy, history, state.model, graph, scores, refused)
    plan = planner.plan(ratio)
    if context.recovery.sparsity == "growing" and plan.keep:
        state = faded(context, state, graph, plan, seed)
        clock.lap("finetune")

    # Cut, with the proof that nothing else changed.
    surgery = operate(state.model, graph, plan)
    removed_ratio = ratio
    latency: float | None = None
    if context.device is not None:
        clock.lap("surgery")
        surgery, latency, removed_ratio = planner.faster(state.model, surgery, ratio)
        clock.lap("evaluate")
    distributed.require_same("which channels go", surgery.plan.to_json())
    if not surgery.plan.keep:
        return None

    # Recover.
    small = surgery.model
    compensated(context, state.model, graph, surgery)
    small_graph = derive(graph, surgery.plan, small)
    momentum = slice_state(state.momentum, graph, surgery.plan) if state.momentum else None
    clock.lap("surgery")
    recovered = recover(context, policy, history, small, small_graph, momentum, seed, clock)

    # Judge.
    limited = planner.limited(surgery.plan, removed_ratio)
    if limited:
        log.warning("step %d: %s", number, limited)
    step = _step(
        small_graph,
        context.reference(history),
        context.task,
        policy.metric.name,
        recovered.before,
        recovered.after,
        clock.seconds,
        index=number,
        removed=surgery.plan.removes(graph),
        accepted=recovered.accepted,
        reason=recovered.reason,
        fraction_asked=ratio,
        frozen=_frozen({**refused, **surgery.refused}),
        rounds=recovered.rounds,
        scored="while training" if kept else "in a pass",
        limited=limited,
    )
    if context.device is not None:
        predicted = context.device.predict(state.model, graph, surgery.plan)
        step = replace(step, latency_ms=latency, predicted_ms=predicted)

    scores_after = gathered(
        context, recovered.model, recovered.scores, distill=context.finetune.distill
    )
    plan_after = state.plan.then(surgery.plan)
    return Iteration(
        step, State(recovered.model, plan_after, scores_after, recovered.momentum, small_graph)
    )


def baseline(
    context: PruneContext,
    model: nn.Module,
    policy: StopPolicy,
    scores: Scores | None = None,
    momentum: OptimState | None = None,
    *,
    plan: Plan | None = None,
    graph: ChannelGraph | None = None,
) -> Iteration:
    """Step 0: the model to start from, measured on the validation split.

    `scores` are used when their provenance says that they are what this loop would gather
    (`gathered`), and left otherwise. `plan` says how it was pruned before, if it was; `graph` is
    its channel graph, where that is known. It is compared with the context's `first` model.
    """
    graph = graph or trace(model, context.data.example())
    clock = Clock()
    metrics = evaluate(model, context.data.val, context.engine, context.task)
    clock.lap("evaluate")

    reason = "the unpruned model"
    if context.first is not None:
        outcome = Outcome.of_metrics(metrics, policy.metric, context.task)
        _, judged = policy.accepts(context.first, outcome, context.sources())
        reason = f"the start, which was pruned before: {judged}"
    step = _step(
        graph,
        context.first,
        context.task,
        policy.metric.name,
        metrics,
        metrics,
        clock.seconds,
        index=0,
        removed=0,
        accepted=True,
        reason=reason,
    )
    if context.device is not None:
        latency = distributed.broadcast_object(
            context.device.measure(model, context.data.example())
        )
        step = replace(step, latency_ms=latency, predicted_ms=context.device.predict(model, graph))
    return Iteration(step, State(model, plan or Plan({}), scores, momentum, graph))


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
    from prunedge.train import measure_engine

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
        engine or measure_engine(model, data.example()),
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
    start = baseline(context, model, policy)
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


def _nothing_left(context: PruneContext, history: Sequence[Step]) -> Finished:
    """The end where nothing may be removed any more."""
    why = "that makes it faster on the device" if context.device else "that may be removed"
    return Finished(f"{NOTHING_LEFT} {why}", last_good(history).index)


def _refused(
    context: PruneContext, history: Sequence[Step], graph: ChannelGraph, scores: Scores
) -> dict[str, str]:
    """Groups that stay whole, with the reason: the criterion can't judge them, or a removal could
    not be proven.
    """
    refused = {}
    for group in graph.groups:
        if group.name not in scores.values:
            refused[group.name] = f"the criterion {context.criterion} can't judge it"
    for step in history:
        for frozen in step.frozen:
            refused[frozen["name"]] = frozen["reason"]
    return refused


def _frozen(refused: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "reason": reason} for name, reason in refused.items()]


def _step(
    graph: ChannelGraph,
    first: Step | None,
    task: Task,
    metric: str,
    before: Metrics,
    after: Metrics,
    seconds: Mapping[str, Any],
    *,
    fraction_asked: float = 0.0,
    **known: Any,
) -> Step:
    """A line of the history: what the model costs and does, compared with the `first` one; `known`
    are other fields.
    """
    widths = graph.widths()
    original_channels = first.channels if first else graph.channels
    constant = task.constant(after, metric)
    return Step(
        channels=graph.channels,
        fraction_asked=fraction_asked,
        fraction_removed=1 - graph.channels / original_channels if original_channels else 0.0,
        metrics_before=_values(before),
        metrics=_values(after),
        metric_before=before.value(metric),
        metric_after=after.value(metric),
        macs=graph.macs(),
        params=graph.params(),
        size_mb=size_mb(graph),
        kept=widths,
        original=first.original if first else widths,
        correct=after.correct,
        majority=constant.score,
        largest=constant.answer,
        only=task.only_answer(after),
        **seconds,
        **known,
    )


def _values(metrics: Metrics) -> dict[str, float | None]:
    return {"loss": metrics.loss, **metrics.values}


def size_mb(graph: ChannelGraph) -> float:
    """Megabytes (10^6) of the float32 parameters and buffers."""
    return sum(torch.Size(shape).numel() for shape in graph.shapes.values()) * 4 / 1e6
