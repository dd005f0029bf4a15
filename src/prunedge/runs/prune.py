"""`pe.prune`: the whole loop on a trained model, in memory or in a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from prunedge.config.keyword_types import PruneKeywords
from prunedge.config.keywords import prune_keys, with_keywords
from prunedge.data import Dataset
from prunedge.errors import ConfigError
from prunedge.models.build import require_model
from prunedge.pruning.costs import Device
from prunedge.pruning.functions import Batches, Evaluate, Fit, Functions, Loss
from prunedge.pruning.prune import own_training, refuse_beside, require_device
from prunedge.pruning.prune import prune as prune_in_memory
from prunedge.pruning.steps import Step
from prunedge.runs import own
from prunedge.train import Engine, TrainConfig
from prunedge.utils.arguments import require_path
from prunedge.utils.files import refuse_url


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
    out: Path | str | None = None,
    **settings: Unpack[PruneKeywords],
) -> Iterator[tuple[Step, nn.Module]]:
    """The whole loop on a trained model: yields (Step, model) for the unpruned model and after each
    step.

    `model` is not changed; one that answers a single class is pruned with a warning. The best model
    is that of the last step that `keeps_rule`. `engine` (`pe.make_engine("32")`)
    computes; without it the fastest here is measured. With a `device` (`pe.steer`) milliseconds are
    saved instead of MACs, and the loop ends at `target_latency` of them. `finetune` is for what no
    setting says of the fine-tuning (momentum, weight decay); it stands in for `finetune_lr`,
    `batch_size`, `augment`, `distill`, `optimizer`, `layer_decay`, `ema`, `balance`, `focal` and
    `area_loss`.

    A training of your own takes the place of prunedge's where `data` is an example of what the
    model takes (a batch, or a tuple or dict of arguments), and functions are given:

    - `fit(model, epochs)` trains, in place or by giving a model back. Where it has a parameter
      `seed` it gets one, and where it has `folder` one of its own in the run; where it has
      `collector`, `with collector:` around its training gathers the next step's scores at no pass
      of their own.
    - `evaluate(model)` gives {name: value}, or a single number. `metric` names the one that the
      rule watches, where there are several; `max_drop` is in its own unit, or a share (`"5%"`);
      `higher_is_better=False` for errors and losses.
    - `loss(model, batch)`, the mean over the batch's examples, and `batches`, a function that gives
      batches (or a list of them), are what criteria of gradients read; those of the weights need
      neither.

    With such functions `out` names a run folder to make: history, plans, checkpoints. The same call
    goes on with what lies there, to the same result as if it had never been cut off: it gives the
    steps that are made already (those whose models were kept), then the others. What ends a run
    (`max_steps`, `max_drop`, ...) may differ then; all else has to be as it was.

    Raises ConfigError (a ValueError) for settings that can't be followed, all of them at once;
    ModelError when the model gives probabilities instead of logits; PrunedgeError when no channel
    can be pruned, or a function is missing that the criterion needs; RunError for a folder that
    holds something else.

    Example: `for step, pruned in pe.prune(model, data, step_ratio=0.3, max_drop=3.0): ...`
    """
    if out is None:
        yield from prune_in_memory(
            model,
            data,
            engine=engine,
            device=device,
            finetune=finetune,
            fit=fit,
            evaluate=evaluate,
            loss=loss,
            batches=batches,
            higher_is_better=higher_is_better,
            **settings,
        )
        return
    require_path("out", out)
    require_model(model)
    require_device(device)
    functions = Functions(fit, evaluate, loss, batches)
    if not functions.given:
        raise ConfigError(
            "out= keeps the run of a training of your own, and no function is given",
            where="prune",
            remedy="give fit= and evaluate=; with images, `prunedge prune` makes a run folder",
        )
    refuse_url(Path(out))
    refuse_beside(functions, data, engine, finetune)
    training = own_training(model, data, functions, settings, higher_is_better=higher_is_better)
    yield from own.search(training, Path(out), settings, device=device)
