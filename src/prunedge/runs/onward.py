"""What a new run is asked to do that goes on from the best model of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunedge.config import TRAINING_KEYS, RunConfig
from prunedge.errors import PrunedgeError
from prunedge.runs.run import open_run
from prunedge.runs.task import refuse_own_trainer
from prunedge.utils.advice import option
from prunedge.utils.files import real_path


def config_from_run(start: Path, values: Mapping[str, Any]) -> RunConfig:
    """The config of a pruning that begins with the best model of the run `start`: its images and
    its training are kept where `values` say nothing else.

    PrunedgeError where they ask for another model or another training, RunError where the run has
    no model yet.
    """
    if "model" in values:
        raise PrunedgeError(
            "--model and --from exclude each other", remedy="--from takes the run's own model"
        )
    source = open_run(start)
    refuse_own_trainer(source.config)
    source.best()
    for key in ("weights", "train_epochs", "lr", "patience", "freeze"):
        if key in values:
            raise PrunedgeError(
                "--from has a model that is trained already",
                where=option(key),
                remedy="leave it out, or begin with --model",
            )

    settings = source.config.flat()
    _refuse_other(settings, values, "task", "for")
    _refuse_other(settings, values, "order", "of degrees in the order")
    _refuse_other(settings, values, "in_channels", "whose images have this many channels:")
    # The weights learned from images of one mean and deviation, and see nothing in others.
    _refuse_other(settings, values, "image_norm", "that learned from images normalised by")
    # Other tiles of the same photographs would lie on other sides of the split, unseen.
    _refuse_other(settings, values, "tile", "that learned from tiles of")
    _refuse_other(settings, values, "overlap", "that learned from tiles with an overlap of")
    _refuse_unknown_rate(settings, values)
    kept = {key: settings[key] for key in TRAINING_KEYS}
    return RunConfig.make(
        "prunedge prune",
        **{**kept, **values},
        start=str(real_path(start)),
        train_epochs=0,
        scales=settings["scales"],
        schedule_epochs=settings["train_epochs"] or settings["schedule_epochs"],
    )


def _refuse_other(
    settings: Mapping[str, Any], values: Mapping[str, Any], key: str, what: str
) -> None:
    """PrunedgeError where a setting is another than the one that the model was made with."""
    made_with = settings[key]
    if values.get(key, made_with) != made_with:
        raise PrunedgeError(
            f"--from has a model {what} {made_with}",
            where=option(key, values[key]),
            remedy="leave it out, or begin with --model",
        )


def _refuse_unknown_rate(settings: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """What one optimizer learns by says nothing of another's rate."""
    learned = settings["optimizer"] or "sgd"
    if values.get("optimizer", learned) != learned and values.get("finetune_lr") is None:
        raise PrunedgeError(
            f"--from has a model that learned by {learned}, whose rate is none for another",
            where=option("optimizer", values["optimizer"]),
            remedy=f"give its rate as well ({option('finetune_lr')}), or leave it out",
        )
