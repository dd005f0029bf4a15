"""The proof of a removal: the smaller model answers as the whole one in which what leaves is zero.

The reference is the whole model with the removed slices set to zero, the `masked` model. Calls that
mix channels without weights (layer norm, means over channels, softmax) are taken over those that
stay. Two questions are asked of both, see `Proof`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import undisturbed
from prunedge.graph.sizes import pinned_modules, pins_of
from prunedge.surgery.answers import Answer, answer, difference, doubled, same_shapes, varies
from prunedge.surgery.faint import swapped
from prunedge.surgery.locate import first_difference, raised_in, recorded_layers
from prunedge.surgery.masked_model import Answers, MaskedModel, Question, Unprovable
from prunedge.surgery.slicing import taken
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import traced

# Relative to the largest output, in float32: what the order of summation can change, with room to
# spare.
TOLERANCE = 1e-4
STRICT = 1e-7  # the same for models with pinned sizes, which are compared in float64


@dataclass(frozen=True)
class Precision:
    """What a comparison computes in, and how much of the largest output it lets pass."""

    dtype: torch.dtype
    tolerance: float


SINGLE = Precision(torch.float32, TOLERANCE)
DOUBLE = Precision(torch.float64, STRICT)


@dataclass(frozen=True)
class Verdict:
    """What comparing a smaller model showed.

    Nothing against it, or what speaks against it and where.

    `difference` is relative to the largest output; `why` is empty where nothing speaks against it.
    `module` is the path of the module whose forward failed, or of the first layer that gave
    something else, as far as that can be told. `rounding` says that only whole numbers differ,
    which rounding may have tipped over.
    """

    difference: float
    why: str = ""
    module: str | None = None
    rounding: bool = False


class Proof:
    """Compares smaller models with their whole one.

    Each comparison asks two questions: the graph's example with the weights as they are; and values
    drawn from the example's at another size of the image and of the batch, as far as the whole
    model takes one (`graph.inputs.others`), with faint parameters made loud.

    The masked model's answers are kept as long as the same plan is asked about.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self._model = model
        self._graph = graph
        self._masked = MaskedModel(model, graph)

    @traced("prove")
    def compare(
        self,
        small: nn.Module,
        plan: Plan,
        precision: Precision,
        between: Callable[[nn.Module], None] = lambda small: None,
    ) -> Verdict:
        """Whether `small`, of that precision at least, is what the plan leaves of the model.

        `between` is called with it when it has passed the first question: its pins are completed
        before it meets another input.
        """
        try:
            answers = self._masked.answers(plan, precision.dtype)
            verdict = self._judge(small, plan, precision, answers.first)
            assert verdict is not None
            shows = varies(answers.first.wanted)
            if not verdict.why:
                between(small)
                second = self._judge_elsewhere(small, plan, precision, answers)
                if second is not None and answers.second is not None:
                    shows = shows or varies(answers.second.wanted)
                    verdict = _worse(verdict, second)
        except Unprovable as error:
            return Verdict(float("inf"), error.what)

        if not shows and not verdict.why:
            why = "the masked model answers the same number all over, which shows nothing"
            return Verdict(float("inf"), why)
        return verdict

    def is_torn(self, plan: Plan) -> bool:
        """Whether rounding alone changes the masked model's answer by more than the tolerance.

        What is chosen by its rank (the best of many boxes) or rounded to whole numbers changes all
        at once: single precision shows nothing there.
        """
        try:
            single = self._masked.answers(plan, SINGLE.dtype)
            double = self._masked.answers(plan, DOUBLE.dtype)
        except Exception as error:  # whatever the user's forward raises, in double precision or any
            pass_on(error)
            return False
        if _differ(single.first, double.first):
            return True
        if single.second is None or double.second is None:
            return False
        return _differ(single.second, double.second)

    # -- judging the smaller model

    def _judge(
        self,
        small: nn.Module,
        plan: Plan,
        precision: Precision,
        question: Question,
        *,
        elsewhere: bool = False,
    ) -> Verdict | None:
        """What a question shows; None where the smaller model says that it can't take it.

        `elsewhere`: the question is not the graph's own example.
        """
        where = f" at inputs of {question}" if elsewhere else ""
        kept = self._graph.kept(plan)
        loud = {name: taken(values, kept.get(name, {})) for name, values in question.loud.items()}
        try:
            with undisturbed(small) if elsewhere else nullcontext(), swapped(small, loud):
                given = answer(small, question.example, precision.dtype)
        except GraphError:
            if not elsewhere:
                raise
            # A pinned layer that takes another way there refuses to run: it never gives a wrong
            # answer.
            return None
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            why = f"the smaller model does not run{where} ({reason})"
            return Verdict(float("inf"), why, raised_in(error, small))
        if not elsewhere:
            _settle_pins(small)

        gap, is_rounding = difference(given, question.wanted)
        if gap <= precision.tolerance:
            return Verdict(gap)
        why = f"differs from the masked model by {gap:.1e} of its largest output{where}"
        if not same_shapes(given, question.wanted):
            why = f"its answer has other parts or shapes than the masked model's{where}"
        layer = self._first_difference(small, plan, precision, question, loud)
        return Verdict(gap, why, layer, is_rounding)

    def _judge_elsewhere(
        self, small: nn.Module, plan: Plan, precision: Precision, answers: Answers
    ) -> Verdict | None:
        """What another input shows; None where the models take none."""
        while answers.second is not None:
            verdict = self._judge(small, plan, precision, answers.second, elsewhere=True)
            if verdict is not None:
                return verdict
            with self._masked.masking(plan, precision.dtype):
                answers.second = self._masked.next_question(plan, precision.dtype, answers)
        return None

    def _first_difference(
        self,
        small: nn.Module,
        plan: Plan,
        precision: Precision,
        question: Question,
        loud: Answer,
    ) -> str | None:
        """The first layer that gives something else; None where all that can be compared agree."""
        dtype = precision.dtype
        reference = self._masked.reference(dtype)
        with (
            undisturbed(reference),
            self._masked.masking(plan, dtype),
            recorded_layers(reference) as wanted,
        ):
            self._masked.run(question.example, plan, dtype, question.loud)
        with undisturbed(small), recorded_layers(small) as given, swapped(small, loud):
            answer(small, question.example, dtype)
        kept = self._graph.kept(plan)
        return first_difference(given, wanted, reference, kept, precision.tolerance)


def _differ(single: Question, double: Question) -> bool:
    """Whether the answer in single precision is another one than in double precision."""
    gap, _ = difference(doubled(single.wanted), doubled(double.wanted))
    return gap > TOLERANCE


def _worse(first: Verdict, second: Verdict) -> Verdict:
    return max(first, second, key=lambda verdict: (bool(verdict.why), verdict.difference))


def _settle_pins(small: nn.Module) -> None:
    """The factors that pins have met so far are meant for this input; the next has others."""
    for _, module in pinned_modules(small):
        pins_of(module).settle()
