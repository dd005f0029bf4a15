"""The loop with a training of the user's own in the place of prunedge's: `pe.prune(model, example,
fit=..., evaluate=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunedge.config import RunConfig
from prunedge.config.run import settings
from prunedge.errors import ConfigError
from prunedge.importance.rank import refuse_unjudged
from prunedge.pruning.context import PruneContext
from prunedge.pruning.costs import Device
from prunedge.pruning.from_config import constraints_of, context_of, policy_of
from prunedge.pruning.function_trainer import FunctionTrainer, own_metric
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.record import step_zero
from prunedge.pruning.refusals import prunable_graph
from prunedge.pruning.steps import Iteration
from prunedge.utils.advice import option

# Of the settings on recovery, what the loop itself does; the others are a training's.
OF_THE_LOOP = ("epochs", "polish", "extra_rounds", "growing_epochs")


def start_with(
    trainer: FunctionTrainer,
    model: nn.Module,
    given: Mapping[str, Any],
    *,
    higher_is_better: bool,
    device: Device | None = None,
) -> tuple[PruneContext, StopPolicy, Iteration]:
    """What the loop begins with: its context, its rule, and step 0. `given` are the settings by
    their keys.

    Raises PrunedgeError where a function is missing that the settings need, for settings of
    prunedge's own training, for what `evaluate` gives that can't be judged, and where no channel
    can be pruned.
    """
    refuse_of_training(given)
    values = {key: value for key, value in given.items() if key != "metric"}
    if device is not None:
        values["device"] = "given"  # as an object, whose address nobody asks for
    config = RunConfig.make("prune", data="given", model="given", **values)
    trainer.functions.refuse_missing(config.prune.criterion)
    trainer.functions.refuse_unsuited(config.prune.criterion)

    example = trainer.example()
    graph = prunable_graph(model, example, constraints_of(config))
    refuse_unjudged(model, graph, config.prune.criterion)

    metric = own_metric(trainer, model, given.get("metric"), higher_is_better=higher_is_better)
    context = context_of(config, trainer, device)
    policy = policy_of(config, metric)
    return context, policy, step_zero(context, model, policy, graph=graph)


def refuse_of_training(given: Mapping[str, Any]) -> None:
    """ConfigError for settings of a training that the user's own function takes the place of."""
    wrong = []
    for key in given:
        setting = settings().get(key)
        if setting is None or key in ("metric", "seed") or setting.section in ("prune", "stop"):
            continue
        if setting.section == "recover" and key in OF_THE_LOOP:
            continue
        wrong.append(option(key))
    if "confidence" in given:
        wrong.append(option("confidence"))
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} belongs to prunedge's own training",
            where="prune",
            remedy="leave it out: fit= and evaluate= decide that",
        )
