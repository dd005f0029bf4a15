"""A trainer of the user's own: plain functions around whatever teaches and judges the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.edge.tasks.metric import Metric
from prunedge.errors import PrunedgeError, TrainError, Undecided
from prunedge.graph import ChannelGraph
from prunedge.importance import Collecting, Provenance, Scores, identity, rank, weights_digest
from prunedge.models.cost import evaluating
from prunedge.pruning.functions import Functions, asks_for, takes
from prunedge.pruning.trainer import FineTuned, FineTuning, Judgement
from prunedge.utils.advice import option
from prunedge.utils.randomness import seeded

log = logging.getLogger(__name__)

ONLY_FIGURE = "score"  # what a single number is called that comes without a name
SEED_OF_JUDGING = 0  # every model is judged by the same random numbers


@dataclass(frozen=True)
class FunctionTrainer:
    """Trains and judges by the user's `functions`; `given` is an example of the model's input.

    In the run folder's `folder` each fine-tuning has one of its own, where there is a run.
    `progress(done, total, what)` hears what is going on.
    """

    given: Any
    functions: Functions
    folder: Path | None = None
    progress: Callable[[int, int, str], None] | None = None
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def example(self) -> Any:
        """The example."""
        return self.given

    def fit(self, model: nn.Module, work: FineTuning) -> FineTuned:
        """Call `fit(model, epochs)`, in training mode and with all random numbers seeded.

        It gets `seed=`, `folder=` and `collector=` where it has such parameters. The folder is
        another one for every fine-tuning, and the same when that is done again after it was cut
        off. The collector, entered as a context around its training (`with collector:`), gathers
        the scores of the next step. TrainError where it gives a model of other shapes.
        """
        fit = self.functions.fit
        assert fit is not None
        shapes = _shapes(model)
        taken: dict[str, Any] = {}
        if takes(fit, "seed"):
            taken["seed"] = work.seed
        if asks_for(fit, "folder"):
            taken["folder"] = self._folder_of(model, work)
        collecting = None
        if work.collector is not None and takes(fit, "collector"):
            collecting = Collecting(model, work.collector)
            taken["collector"] = collecting
        elif asks_for(fit, "collector"):
            taken["collector"] = None

        self._tell_progress(f"fit, {work.epochs} epochs")
        model.train()
        with seeded(work.seed):
            result = fit(model, work.epochs, **taken)
        if result is not None and not isinstance(result, nn.Module):
            self._tell_once(
                f"fit gave {type(result).__name__} back, which nobody looks at: it trains the "
                "model in place, or gives a model back; evaluate gives the figures"
            )
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
        if watched is not None and asks_for(fit, "collector"):
            self._tell_unwatched(watched)
        return FineTuned(trained, collected=_scores(watched))

    def _tell_unwatched(self, collecting: Collecting) -> None:
        """A line where a fit that takes a collector lets it see nothing."""
        if collecting.has_batches:
            return
        why = "fit takes a collector and never enters it"
        remedy = "put `with collector:` around the training"
        if collecting.was_entered:
            why = (
                "in fit's `with collector:` the model made no pass in training mode with gradients"
            )
            remedy = "train the model itself inside, and no copy of it"
        self._tell_once(f"{why}: a pass of its own ranks the channels; {remedy}")

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning("%s", line)

    def _folder_of(self, model: nn.Module, work: FineTuning) -> Path | None:
        """Where a fine-tuning may keep what it likes; None where there is no run."""
        if self.folder is None:
            return None
        # Only the same training of the same model may go on with what lies there.
        name = f"{work.seed}-{work.epochs}-{weights_digest(model)[:8]}"
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

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
        self._tell_progress("evaluate")
        with evaluating(model), torch.no_grad(), seeded(SEED_OF_JUDGING):
            given = evaluate(model)
        named = given if isinstance(given, Mapping) else {ONLY_FIGURE: given}
        return {str(name): _number(name, value) for name, value in named.items()}

    def rank(self, model: nn.Module, graph: ChannelGraph, criterion: str, seed: int) -> Scores:
        """The scores of all channels over the batches."""
        functions = self.functions
        self._tell_progress("rank")
        with seeded(seed):
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

    def _tell_progress(self, what: str) -> None:
        if self.progress is not None:
            self.progress(0, 1, what)


def metric_watched(trainer: FunctionTrainer, model: nn.Module, name: str | None) -> str:
    """The name of the metric that the rule watches: the one that is asked for, or the only one that
    there is, which `model` is evaluated for. Whether there is one of that name is seen where it is
    first judged.
    """
    if name is not None:
        return name
    figures = trainer.figures(model)
    if len(figures) != 1:
        first = next(iter(figures), "NAME")
        raise TrainError(
            f"evaluate gives {', '.join(figures) or 'nothing'}",
            where="prune",
            remedy=f"say which of them the rule watches: {option('metric', first)}",
        )
    return next(iter(figures))


def _scores(collecting: Collecting | None) -> Scores | None:
    """What was gathered; None where the training didn't, or its batches did not show it."""
    if collecting is None or not collecting.has_batches:
        return None
    try:
        return collecting.scores()
    except Undecided as error:
        log.info("a pass of its own has to rank the channels: %s", error.what)
        return None


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
