"""Networks that answer one class whatever they see, and what that would score. Pure."""

from __future__ import annotations

from prunedge.train.evaluate import Metrics


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


def told_of_one_class(name: str, lr: float | None = None) -> str:
    """What to say of a network that answers `name` alone, and what to do."""
    lower = f"a lower --lr (it was {lr:g}: try {lr / 5:.1g})" if lr else "a lower --lr"
    return (
        f"the network answers '{name}' for every validation picture, so there is nothing in it to prune: train it anew with {lower}, "
        "more epochs, or pretrained --weights"
    )
