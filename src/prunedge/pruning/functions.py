"""The functions that a user gives in the place of a dataset and a task, and what they must be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.importance import CRITERIA, criterion_named
from prunedge.utils.advice import option

# What fit gets beside the model and the epochs, where it takes that.
OFFERED = ("seed", "collector", "folder")

Fit = Callable[..., Any]  # fit(model, epochs), and of what is OFFERED whatever it takes
Evaluate = Callable[[nn.Module], Mapping[str, Any] | float]
Loss = Callable[[nn.Module, Any], torch.Tensor]
Batches = Callable[[], Iterable[Any]] | Iterable[Any]


@dataclass(frozen=True)
class Functions:
    """What a user gives in the place of a dataset and a task.

    `fit(model, epochs)` trains, in place or by giving a model back. `evaluate(model)` gives figures
    by name. `loss(model, batch)` is the mean over the examples of a batch, and `batches` gives
    these, or is a function that does.
    """

    fit: Fit | None = None
    evaluate: Evaluate | None = None
    loss: Loss | None = None
    batches: Batches | None = None

    @property
    def given(self) -> list[str]:
        """The names of those that are there."""
        return [name for name, function in vars(self).items() if function is not None]

    def refuse_missing(self, criterion: str) -> None:
        """PrunedgeError for what the loop can't do without, with what works without it."""
        if self.evaluate is None:
            raise PrunedgeError(
                "without evaluate= nothing says how good a pruned model is",
                where="prune",
                remedy=(
                    "give a function of the model that gives {name: value}; to cut channels "
                    "unjudged: rank, choose, operate"
                ),
            )
        if self.fit is None:
            raise PrunedgeError(
                "without fit= nothing is fine-tuned after a cut",
                where="prune",
                remedy=(
                    "give fit(model, epochs), which trains the model; or, to judge every cut as "
                    "it is, fit=lambda model, epochs: None"
                ),
            )
        reads = criterion_named(criterion).reads
        without_batches = _named_by("weights")
        if reads != "weights" and self.batches is None:
            raise PrunedgeError(
                f"the criterion '{criterion}' looks at training batches, and there are none",
                where="prune",
                remedy=(
                    "give batches= (a function or a list); without them there are "
                    f"{option('criterion')} {without_batches}"
                ),
            )
        if reads == "gradients" and self.loss is None:
            raise PrunedgeError(
                f"the criterion '{criterion}' reads the gradients of a loss, and there is none",
                where="prune",
                remedy=(
                    "give loss(model, batch), the mean over the batch; without it there are "
                    f"{option('criterion')} {_named_by('activations')}, {without_batches}"
                ),
            )

    def refuse_unsuited(self, criterion: str) -> None:
        """PrunedgeError for functions that can't be called as the loop calls them, and for batches
        that there are none of, or that can be gone through only once; before anything is trained.
        """
        for name, function, arguments in (
            ("fit", self.fit, ("model", "epochs")),
            ("evaluate", self.evaluate, ("model",)),
            ("loss", self.loss, ("model", "batch")),
        ):
            if function is not None and not _can_be_called(function, arguments):
                raise PrunedgeError(
                    f"{name} can't be called as {name}({', '.join(arguments)})",
                    where="prune",
                    remedy="let it take these arguments",
                )
        if self.batches is None:
            return
        if isinstance(self.batches, Iterator):
            raise PrunedgeError(
                "batches can be gone through only once, and every step goes through them",
                where="prune",
                remedy="give a list, a DataLoader, or a function that gives them anew",
            )
        given = self.all_batches()
        if not isinstance(given, Iterable):
            raise PrunedgeError(
                f"batches gives {type(given).__name__}, and no batches",
                where="prune",
                remedy="give a list, a DataLoader, or a function that gives them",
            )
        if criterion_named(criterion).reads != "weights" and next(iter(given), None) is None:
            raise PrunedgeError(
                "there is no batch in batches",
                where="prune",
                remedy="give a list, a DataLoader, or a function that gives them anew",
            )

    def all_batches(self) -> Iterable[Any]:
        """The batches, from the first on."""
        if callable(self.batches):
            return self.batches()
        return () if self.batches is None else self.batches


def _named_by(reads: str) -> str:
    """The criteria that read this and need no targets, for a sentence."""
    names = [name for name, known in CRITERIA.items() if known.reads == reads and ":" not in name]
    return ", ".join(name for name in names if name != "mutual-information")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any."""
    parameters = _parameters(function)
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return name in parameters or takes_any


def asks_for(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that very name."""
    return name in _parameters(function)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a builtin nothing is known
        return {}


def _can_be_called(function: Callable[..., Any], arguments: Sequence[str]) -> bool:
    """Whether a function takes so many arguments, by their places."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a builtin nothing is known
        return True
    beside = [
        one.name
        for one in signature.parameters.values()
        if one.name in OFFERED and one.default is one.empty
    ]
    try:
        signature.bind(*arguments, **dict.fromkeys(beside))
    except TypeError:
        return False
    return True
