"""A trainer of the user's own: plain functions around whatever teaches and judges the model."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.edge.tasks.metric import Metric
from prunedge.errors import PrunedgeError, TrainError, Undecided
from prunedge.graph import ChannelGraph
from prunedge.importance import (
    CRITERIA,
    Collecting,
    Provenance,
    Scores,
    criterion_named,
    identity,
    rank,
)
from prunedge.models.cost import evaluating
from prunedge.pruning.trainer import FineTuned, FineTuning, Judgement
from prunedge.utils.advice import option

log = logging.getLogger(__name__)

OWN_UNIT = ""
OFFERED = ("seed", "collector")  # what fit gets beside, where it takes that
ONLY_FIGURE = "score"  # what a single number is called that comes without a name

Fit = Callable[..., Any]  # fit(model, epochs), and seed= or collector= where it takes them
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


@dataclass(frozen=True)
class FunctionTrainer:
    """Trains and judges by the user's `functions`; `given` is an example of the model's input."""

    given: Any
    functions: Functions

    def example(self) -> Any:
        """The example."""
        return self.given

    def fit(self, model: nn.Module, work: FineTuning) -> FineTuned:
        """Call `fit(model, epochs)`, in training mode and with torch's seed set.

        It gets `seed=` where it has such a parameter, and `collector=`: entered as a context around
        its training (`with collector:`), that gathers the scores of the next step. TrainError where
        it gives a model of other shapes.
        """
        fit = self.functions.fit
        assert fit is not None
        shapes = _shapes(model)
        taken: dict[str, Any] = {}
        if _takes(fit, "seed"):
            taken["seed"] = work.seed
        collecting = None
        if work.collector is not None and _takes(fit, "collector"):
            collecting = Collecting(model, work.collector)
            taken["collector"] = collecting

        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(work.seed)
            result = fit(model, work.epochs, **taken)
        trained = result if isinstance(result, nn.Module) else model
        if _shapes(trained) != shapes:
            raise TrainError(
                "fit gave back a model of other shapes than the one that it was given",
                where="fit",
                remedy="train the model that it is given, or give back one with its shapes",
            )
        trained.eval()
        # Another model than the one that was watched has other scores.
        watched = collecting if trained is model else None
        return FineTuned(trained, collected=_scores(watched))

    def evaluate(self, model: nn.Module, metric: Metric) -> Judgement:
        """The figures of `evaluate(model)`. TrainError where the metric is not among them, or no
        finite number.
        """
        values = self.figures(model)
        if metric.name not in values:
            raise TrainError(
                f"evaluate gave no '{metric.name}'",
                where=option("metric", metric.name),
                remedy=f"it gave {', '.join(values)}",
            )
        value = values[metric.name]
        if value is None:
            raise TrainError(
                f"evaluate gave no finite number for '{metric.name}'",
                where=option("metric", metric.name),
                remedy="let it give a float",
            )
        return Judgement(values=values, value=value)

    def figures(self, model: nn.Module) -> dict[str, float | None]:
        """What `evaluate(model)` gives, by name; None where a figure is not finite."""
        evaluate = self.functions.evaluate
        assert evaluate is not None
        with evaluating(model), torch.no_grad():
            given = evaluate(model)
        named = given if isinstance(given, Mapping) else {ONLY_FIGURE: given}
        return {str(name): _number(name, value) for name, value in named.items()}

    def rank(self, model: nn.Module, graph: ChannelGraph, criterion: str, seed: int) -> Scores:
        """The scores of all channels over the batches."""
        functions = self.functions
        batches = functions.all_batches()
        return rank(model, graph, batches, criterion, loss=functions.loss, seed=seed)

    def calibration(self, examples: int, seed: int) -> Iterable[Any]:
        """Nothing is known of the batches that compensation could read."""
        raise PrunedgeError(
            f"{option('compensate')} reads images of a dataset",
            where="prune",
            remedy="leave it out, or give a dataset in the place of the functions",
        )

    def sources(self) -> Sequence[str | None]:
        """Where validation examples come from is the user's own."""
        return ()

    def provenance(self, criterion: str, *, distills: bool) -> Provenance | None:
        """What scores are of that `fit` gathers: the functions' own, whatever they are."""
        name = identity(criterion)
        return None if name is None else Provenance(name, "", "given", "given")


def own_metric(
    trainer: FunctionTrainer, model: nn.Module, name: str | None, *, higher_is_better: bool
) -> Metric:
    """The metric that the rule watches: the one of that name, or the only one that there is, which
    `model` is evaluated for. Whether there is one of that name is seen where it is first judged.
    """
    if name is not None:
        return Metric(name, higher_is_better=higher_is_better, unit=OWN_UNIT)
    figures = trainer.figures(model)
    if len(figures) != 1:
        first = next(iter(figures), "NAME")
        raise TrainError(
            f"evaluate gives {', '.join(figures) or 'nothing'}",
            where="prune",
            remedy=f"say which of them the rule watches: {option('metric', first)}",
        )
    return Metric(next(iter(figures)), higher_is_better=higher_is_better, unit=OWN_UNIT)


def _scores(collecting: Collecting | None) -> Scores | None:
    """What was gathered; None where the training didn't, or its batches did not show it."""
    if collecting is None or not collecting.has_batches:
        return None
    try:
        return collecting.scores()
    except Undecided as error:
        log.info("a pass of its own has to rank the channels: %s", error.what)
        return None


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


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a builtin nothing is known
        return False
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return name in parameters or takes_any


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _number(name: object, value: Any) -> float | None:
    """A figure as a float; TrainError where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TrainError(
            f"evaluate gave {type(value).__name__} for '{name}'",
            where="evaluate",
            remedy="let it give {name: number}",
        ) from None
    return number if math.isfinite(number) else None
