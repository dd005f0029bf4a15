"""What to say of a model that answers one class whatever it sees. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from prunedge.config.sections import Optimizer
from prunedge.utils.advice import option, place


@dataclass(frozen=True)
class Taught:
    """How a model was taught, as far as that says what to change.

    `elsewhere` is the run that it was taken from, if it was. `tried_lower` says that lower rates
    were tried already, and did no better. Where SGD ends so at every rate, AdamW may not: it
    divides each gradient by its own size.
    """

    epochs: int
    pretrained: bool
    lr: float | None = None
    elsewhere: str | None = None
    tried_lower: bool = False
    optimizer: Optimizer = "sgd"


# A study trains no starting model again that is done.
ANEW = "begin the study anew, with another --out"
NOTHING_TO_PRUNE = "there is nothing to prune in a model with one answer"


def one_class_warning(name: str, taught: Taught | None = None) -> str:
    """What to say of a model that answers `name` alone, and what can be done there."""
    what = (
        f"the model answers '{name}' for every validation image, so there is nothing in it to prune"
    )
    return f"{what}: {_remedy(taught)}"


def _remedy(taught: Taught | None) -> str:
    if taught is None:
        return (
            "train it first, or longer, at a lower learning rate, or with AdamW: "
            "pe.fit(model, data, epochs=..., lr=..., optimizer='adamw')"
        )
    if taught.elsewhere is not None and place() == "study":
        return f"{ANEW} and {_other_training(taught)}"
    if taught.elsewhere is not None:
        return f"begin from a run that was trained {_better(taught)}, not from {taught.elsewhere}"
    if not taught.epochs:
        epochs = option("train_epochs", 10)
        return f"it was not trained on these images: give it epochs ({epochs})"
    adamw = f"with {option('optimizer', 'adamw')}, " if taught.optimizer == "sgd" else ""
    if taught.tried_lower:
        weights = "" if taught.pretrained else ", or pretrained weights"
        return (
            f"lower learning rates did no better: train it anew {adamw}with more epochs, "
            f"or on more images{weights}"
        )
    lower = f"with a lower {option('lr')}{_lower_rate(taught)}, {adamw}".rstrip(", ")
    weights = "" if taught.pretrained else f", or with pretrained {option('weights')}"
    return f"train it anew {lower}, or with more epochs{weights}"


def _other_training(taught: Taught) -> str:
    """What a study's starting models should be trained with instead."""
    if not taught.epochs:
        return option("train_epochs", 10)
    other = option("optimizer", "adamw" if taught.optimizer == "sgd" else "sgd")
    ways = [f"more {option('train_epochs')}", other]
    if not taught.tried_lower:
        was = f" (it was {taught.lr:g})" if taught.lr else ""
        ways.append(f"another {option('lr')}{was}")
    if not taught.pretrained:
        ways.append(f"pretrained {option('weights')}")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _better(taught: Taught) -> str:
    """How the run that this one began from should have been trained."""
    if not taught.epochs:
        return "on these images"
    weights = "" if taught.pretrained else ", or pretrained weights"
    if taught.optimizer == "sgd":
        weights = f", or with AdamW{weights}"
    if taught.tried_lower:
        return f"with more epochs{weights}"
    return f"at a lower learning rate{_lower_rate(taught)}, with more epochs{weights}"


def _lower_rate(taught: Taught) -> str:
    if not taught.lr:
        return ""
    return f" (it was {taught.lr:g}: try {taught.lr / 5:.1g})"
