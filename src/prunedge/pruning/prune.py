"""`pe.prune`: the whole loop on a trained model, without a run folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

from torch import nn

from prunedge.config import RunConfig
from prunedge.config.keyword_types import PruneKeywords
from prunedge.config.keywords import prune_keys, with_keywords
from prunedge.data import Dataset
from prunedge.errors import ConfigError
from prunedge.graph import copied
from prunedge.importance import refuse_without_norms
from prunedge.models.build import require_model
from prunedge.pruning.context import PruneContext
from prunedge.pruning.costs import Device
from prunedge.pruning.from_config import (
    constraints_of,
    context_of,
    policy_of,
    refuse_wrong_metric,
    trainer_of,
)
from prunedge.pruning.function_trainer import FunctionTrainer
from prunedge.pruning.functions import Batches, Evaluate, Fit, Functions, Loss
from prunedge.pruning.judging import judged
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.polish import polish
from prunedge.pruning.prune_with import OwnTraining, start_with
from prunedge.pruning.record import step_zero
from prunedge.pruning.refusals import prunable_graph
from prunedge.pruning.steps import Iteration, Step, may_be_polished
from prunedge.tasks import make_task, refuse_ending
from prunedge.train import Engine, TrainConfig, measure_engine, require_engine
from prunedge.train.collapse import one_class_warning
from prunedge.utils.advice import option
from prunedge.utils.arguments import require

log = logging.getLogger(__name__)

A_DATASET = (
    "a Dataset, such as prunedge.load_folder(...) gives; or, beside fit= and evaluate=, an example "
    "of what the model takes"
)


@with_keywords(prune_keys())
def prune(
    model: nn.Module,
    data: Dataset | Any,
    *,
    engine: Engine | None = None,
    device: Device | None = None,
    finetune: TrainConfig | None = None,
    fit: Fit | None = None,
    evaluate: Evaluate | None = None,
    loss: Loss | None = None,
    batches: Batches | None = None,
    higher_is_better: bool = True,
    **settings: Unpack[PruneKeywords],
) -> Iterator[tuple[Step, nn.Module]]:
    """The whole loop on a trained model, without a run folder; `prunedge.runs.prune` has what users
    call, and says what it takes.
    """
    require_model(model)
    functions = Functions(fit, evaluate, loss, batches)
    require_device(device)
    if functions.given:
        refuse_beside(functions, data, engine, finetune)
        own = own_training(model, data, functions, settings, higher_is_better=higher_is_better)
        _, context, policy, start = start_with(own, settings, device)
    else:
        require("data", data, Dataset, A_DATASET)
        context, policy, start = _start_on(model, data, engine, device, finetune, settings)
    yield start.step, start.state.model

    history = [start.step]
    states = {0: start.state}
    for iteration in iterate(context, policy, history, start.state):
        history.append(iteration.step)
        states[iteration.step.index] = iteration.state
        # The others are not needed any more, and models are large.
        kept = {step.index for step in may_be_polished(history)}
        states = {index: state for index, state in states.items() if index in kept}
        yield iteration.step, iteration.state.model
    for iteration in polish(context, policy, history, states.__getitem__):
        yield iteration.step, iteration.state.model


def require_device(device: Device | None) -> None:
    """TypeError where something else was given than a device that steers."""
    if device is not None and not hasattr(device, "measure"):
        raise TypeError(f"device is what prunedge.steer(...) gives, not {type(device).__name__}")


def own_training(
    model: nn.Module,
    example: Any,
    functions: Functions,
    settings: Mapping[str, Any],
    *,
    higher_is_better: bool,
) -> OwnTraining:
    """The training that functions from Python make."""
    require("higher_is_better", higher_is_better, bool, "True or False")
    trainer = FunctionTrainer(example, functions)
    return OwnTraining(model, trainer, settings.get("metric"), higher_is_better)


def refuse_beside(
    functions: Functions, data: Any, engine: Engine | None, finetune: TrainConfig | None
) -> None:
    """ConfigError for what makes no sense beside a training of the user's own."""
    given = ", ".join(f"{name}=" for name in functions.given)
    if isinstance(data, Dataset):
        raise ConfigError(
            f"{given} beside a dataset, with which prunedge trains by itself",
            where="prune",
            remedy="leave that out, or give an example of the model's input in place of the data",
        )
    beside = {"engine": engine, "finetune": finetune}
    wrong = [f"{name}=" for name, value in beside.items() if value is not None]
    if wrong:
        raise ConfigError(
            f"{' and '.join(wrong)} beside {given}",
            where="prune",
            remedy="leave it out: your own function trains",
        )


def _start_on(
    model: nn.Module,
    data: Dataset,
    engine: Engine | None,
    device: Device | None,
    finetune: TrainConfig | None,
    settings: PruneKeywords,
) -> tuple[PruneContext, StopPolicy, Iteration]:
    """What the loop begins with where prunedge trains: its context, its rule, and step 0."""
    if engine is not None:
        require_engine(engine)
    if finetune is not None:
        require("finetune", finetune, TrainConfig, "a TrainConfig")
    config, data = judged(_config(data, device, finetune, settings), data)
    name = type(model).__name__
    task = make_task(data.spec)
    refuse_ending(model, data.example(4), task, name)
    graph = prunable_graph(model, data.example(), constraints_of(config))
    if config.train.sparsity == "bn-l1":
        refuse_without_norms(
            model,
            graph,
            option("sparsity", "bn-l1"),
            remedy="use another, such as group-lasso",
        )

    trainer = trainer_of(
        config,
        data,
        engine or measure_engine(model, data.example(), task=task),
        model,
        teacher=copied(model).eval() if _distills(config, finetune) else None,
        finetune=finetune,
    )
    context = context_of(config, trainer, device)
    policy = policy_of(config)
    start = step_zero(context, model, policy, graph=graph)
    if start.step.only_answer is not None:
        log.warning("%s", one_class_warning(task.answer_name(start.step.only_answer)))
    return context, policy, start


def _distills(config: RunConfig, finetune: TrainConfig | None) -> bool:
    """Whether the fine-tunings imitate the unpruned model."""
    return bool(config.recover.distill if finetune is None else finetune.distill)


def _config(
    data: Dataset,
    device: Device | None,
    finetune: TrainConfig | None,
    settings: PruneKeywords,
) -> RunConfig:
    """The settings as a run's config, with what none of them says; ConfigError where they can't be
    followed.
    """
    replaced = (
        "finetune_lr",
        "batch_size",
        "augment",
        "distill",
        "optimizer",
        "layer_decay",
        "ema",
        "balance",
        "focal",
        "area_loss",
    )
    both = [option(key) for key in replaced if finetune is not None and key in settings]
    if both:
        raise ConfigError(
            f"{', '.join(both)} and finetune= say the same",
            where="prune",
            remedy="give one of them",
        )
    values: dict[str, Any] = dict(settings)
    if device is not None:
        values["device"] = "given"  # as an object, whose address nobody asks for
    config = RunConfig.make(
        "prune",
        data=str(data.root),
        model="given",
        size=data.size,
        resize=data.resize,
        in_channels=data.in_channels,
        image_norm=data.image_norm,
        task=data.spec.name,
        **values,
    )
    refuse_wrong_metric(config)
    return config
