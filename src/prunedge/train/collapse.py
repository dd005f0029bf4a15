"""Networks that answer one class whatever they see, and what that would score. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from prunedge.train.evaluate import Metrics
from prunedge.utils.advice import option


def only_answer(metrics: Metrics) -> int | None:
    """The class that every picture was given, though there are pictures of at least two; None where answers differ."""
    present = sum(any(row) for row in metrics.confusion)
    answered = [place for place in range(len(metrics.confusion)) if any(row[place] for row in metrics.confusion)]
    return answered[0] if present > 1 and len(answered) == 1 else None


def largest_class(metrics: Metrics) -> int:
    """The class with the most pictures."""
    counts = [sum(row) for row in metrics.confusion]
    return counts.index(max(counts))


def majority(metrics: Metrics, metric: str) -> float:
    """What always answering the largest class scores by `metric` (accuracy, f1 or auroc), from 0 to 1."""
    counts = [sum(row) for row in metrics.confusion]
    share = max(counts) / sum(counts)
    if metric == "auroc":
        return 0.5
    # F1 of that class, and 0 for the other classes that have pictures; torchmetrics leaves out those that have none.
    return share if metric == "accuracy" else 2 * share / (1 + share) / sum(count > 0 for count in counts)


@dataclass(frozen=True)
class Taught:
    """How a network was taught, as far as that says what to change: `elsewhere` is the run that it was taken from, if it was.

    `tried_lower` says that lower rates were tried already, and did no better.
    """

    epochs: int
    pretrained: bool
    lr: float | None = None
    elsewhere: str | None = None
    tried_lower: bool = False


def told_of_one_class(name: str, taught: Taught | None = None) -> str:
    """What to say of a network that answers `name` alone, and what to do: of that what can be done there."""
    what = f"the network answers '{name}' for every validation picture, so there is nothing in it to prune"
    return f"{what}: {_anew(taught)}"


def _anew(taught: Taught | None) -> str:
    if taught is None:
        return "train it first, or longer, or at a lower learning rate: pe.fit(net, data, epochs=..., lr=...)"
    better = "" if taught.pretrained else ", or pretrained weights"
    lower = "at a lower learning rate" + (f" (it was {taught.lr:g}: try {taught.lr / 5:.1g})" if taught.lr and taught.epochs else "")
    if taught.elsewhere is not None:
        how = f"{lower}, with more epochs{better}" if taught.epochs else "on these pictures"
        return f"begin from a run that was trained {how}, not from {taught.elsewhere}"
    if not taught.epochs:
        return f"it was not trained on these pictures: give it epochs ({option('train_epochs', 10)})"
    if taught.tried_lower:
        return f"lower learning rates did no better: train it anew with more epochs, or on more pictures{better}"
    lower = f"with a lower {option('lr')}" + (f" (it was {taught.lr:g}: try {taught.lr / 5:.1g})" if taught.lr else "")
    return f"train it anew {lower}, or with more epochs" + ("" if taught.pretrained else f", or with pretrained {option('weights')}")
