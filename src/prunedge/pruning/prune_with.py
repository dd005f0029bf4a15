"""The loop with a training of the user's own in the place of prunedge's: `pe.prune(model, example,
fit=..., evaluate=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunedge.config import RunConfig
from prunedge.config.run import settings
from prunedge.errors import ConfigError
from prunedge.importance.rank import refuse_unjudged
from prunedge.pruning.context import PruneContext
from prunedge.pruning.costs import Device
from prunedge.pruning.from_config import (
    constraints_of,
    context_of,
    currency_of,
    max_drop_of,
    policy_of,
)
from prunedge.pruning.function_trainer import FunctionTrainer, metric_watched
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.record import step_zero
from prunedge.pruning.refusals import prunable_graph
from prunedge.pruning.steps import Iteration
from prunedge.utils.advice import option

GIVEN = "given"  # what came as an object, whose name or address nobody asks for

# Of the settings on recovery, what the loop itself does; the others are a training's.
OF_THE_LOOP = ("epochs", "polish", "extra_rounds", "growing_epochs")
# Of those on pruning, what teaches other models.
OF_OTHER_MODELS = ("baseline", "small")


@dataclass(frozen=True)
class OwnTraining:
    """A training of the user's own: its `model`, and the `trainer` with its example and functions.

    `metric` is the figure that the rule watches, None where `evaluate` gives a single one. `name`
    is `package.module:object` where the command line named it.
    """

    model: nn.Module
    trainer: FunctionTrainer
    metric: str | None = None
    higher_is_better: bool = True
    name: str = GIVEN


def start_with(
    own: OwnTraining, given: Mapping[str, Any], device: Device | None = None
) -> tuple[RunConfig, PruneContext, StopPolicy, Iteration]:
    """What the loop begins with: what it is asked for, its context, its rule, and step 0. `given`
    are the settings by their keys.

    Raises PrunedgeError where a function is missing that the settings need, for settings of
    prunedge's own training, for what `evaluate` gives that can't be judged, and where no channel
    can be pruned.
    """
    refuse_of_training(given)
    config = config_with(own, given, has_device=device is not None)
    model = own.model
    trainer = own.trainer
    trainer.functions.refuse_missing(config.prune.criterion)
    trainer.functions.refuse_unsuited(config.prune.criterion)

    graph = prunable_graph(model, trainer.example(), constraints_of(config))
    refuse_unjudged(model, graph, config.prune.criterion)

    metric = metric_watched(trainer, model, own.metric)
    config = judged_by(config, own, metric)
    context = context_of(config, trainer, device)
    policy = policy_of(config)
    return config, context, policy, step_zero(context, model, policy, graph=graph)


def config_with(own: OwnTraining, given: Mapping[str, Any], *, has_device: bool) -> RunConfig:
    """What the loop is asked for, but for the metric; ConfigError that lists every mistake."""
    values = {key: value for key, value in given.items() if key != "metric"}
    if has_device:
        values.setdefault("device", GIVEN)
    model = type(own.model).__name__
    return RunConfig.make("prune", data=GIVEN, model=model, trainer=own.name, **values)


def judged_by(config: RunConfig, own: OwnTraining, metric: str) -> RunConfig:
    """The config with the metric that the rule watches, and what was left to be chosen."""
    config = config.with_values(own_metric=metric, higher_is_better=own.higher_is_better)
    return config.with_values(max_drop=max_drop_of(config), cost=currency_of(config))


def refuse_of_training(given: Mapping[str, Any]) -> None:
    """ConfigError for settings of a training that the user's own function takes the place of."""
    wrong = [option(key) for key in given if not is_of_the_loop(key)]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} belongs to prunedge's own training",
            where="prune",
            remedy="leave it out: your own fit and evaluate decide that",
        )


def is_of_the_loop(key: str) -> bool:
    """Whether the loop itself goes by a setting; of an unknown one others say that it is none."""
    setting = settings().get(key)
    if setting is None or key in ("metric", "seed"):
        return True
    if key in OF_OTHER_MODELS or key == "confidence":
        return False
    if setting.section == "recover":
        return key in OF_THE_LOOP
    return setting.section in ("prune", "stop", "device")
