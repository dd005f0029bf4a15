"""The proof of a removal: the smaller model answers as the whole one in which what leaves is zero.

The reference is the whole model with the removed slices set to zero, the `masked` model. Calls that
mix channels without weights (layer norm, means over channels, softmax) are taken over those that
stay. Two questions are asked of both, see `Proof`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.errors import GraphError, PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.inputs import others, tensors_of
from prunedge.graph.masking import masking
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import copied, undisturbed
from prunedge.graph.sizes import pinned_modules, pins_of
from prunedge.surgery.answers import (
    Answer,
    answer,
    at_least,
    difference,
    doubled,
    is_finite,
    precise,
    same_shapes,
    varies,
)
from prunedge.surgery.faint import loud_values, swapped
from prunedge.surgery.locate import first_difference, raised_in, recorded_layers
from prunedge.surgery.masking import OverWhatStays, without
from prunedge.surgery.slicing import leaving_slices, taken
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
    `place` is the path of the module whose forward failed, or of the first layer that gave
    something else, as far as that can be told. `rounding` says that only whole numbers differ,
    which rounding may have tipped over.
    """

    difference: float
    why: str = ""
    place: str | None = None
    rounding: bool = False


class Unprovable(PrunedgeError):
    """The masked model gives no answer that a smaller one could be compared with."""


@dataclass(frozen=True)
class _Question:
    """An input, what stands in for faint parameters, and what the masked model answers."""

    example: Any
    loud: Mapping[str, torch.Tensor]
    wanted: Answer

    def __str__(self) -> str:
        return _shapes(self.example)


@dataclass
class _Answers:
    """The masked model's answers to both questions, for one plan.

    `calls` counts the operations that mix channels, `tried` the other inputs.
    """

    first: _Question
    calls: Counter[str]
    second: _Question | None = None
    tried: int = 0


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
        self._loud = loud_values(model)
        self._others = others(graph.example)
        self._inputs: list[Any] = []  # those made so far, the one that served last at the front
        self._references: dict[torch.dtype, nn.Module] = {}
        self._known: tuple[Any, _Answers | None] = (None, None)

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
            answers = self._answers(plan, precision.dtype)
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
            single = self._answers(plan, SINGLE.dtype)
            double = self._answers(plan, DOUBLE.dtype)
        except Exception as error:  # whatever the user's forward raises, in double precision or any
            pass_on(error)
            return False
        questions = [(single.first, double.first)]
        if single.second is not None and double.second is not None:
            questions.append((single.second, double.second))
        for one, other in questions:
            gap, _ = difference(doubled(one.wanted), doubled(other.wanted))
            if gap > TOLERANCE:
                return True
        return False

    # -- judging the smaller model

    def _judge(
        self,
        small: nn.Module,
        plan: Plan,
        precision: Precision,
        question: _Question,
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
                found = answer(small, question.example, precision.dtype)
        except GraphError:
            if not elsewhere:
                raise
            # A pinned layer that takes another way there refuses to run: nobody is handed a wrong
            # answer.
            return None
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            why = f"the smaller model does not run{where} ({reason})"
            return Verdict(float("inf"), why, raised_in(error, small))
        if not elsewhere:
            _settle_pins(small)

        gap, is_rounding = difference(found, question.wanted)
        if gap <= precision.tolerance:
            return Verdict(gap)
        why = f"differs from the masked model by {gap:.1e} of its largest output{where}"
        if not same_shapes(found, question.wanted):
            why = f"its answer has other parts or shapes than the masked model's{where}"
        place = self._first_difference(small, plan, precision, question, loud)
        return Verdict(gap, why, place, is_rounding)

    def _judge_elsewhere(
        self, small: nn.Module, plan: Plan, precision: Precision, answers: _Answers
    ) -> Verdict | None:
        """What another input shows; None where the models take none."""
        while answers.second is not None:
            verdict = self._judge(small, plan, precision, answers.second, elsewhere=True)
            if verdict is not None:
                return verdict
            with self._masking(plan, precision.dtype):
                answers.second = self._next_question(plan, precision.dtype, answers)
        return None

    def _first_difference(
        self,
        small: nn.Module,
        plan: Plan,
        precision: Precision,
        question: _Question,
        loud: Answer,
    ) -> str | None:
        """The first layer that gives something else; None where all that can be compared agree."""
        dtype = precision.dtype
        reference = self._reference(dtype)
        with (
            undisturbed(reference),
            self._masking(plan, dtype),
            recorded_layers(reference) as wanted,
        ):
            self._masked_answer(question.example, plan, dtype, question.loud)
        with undisturbed(small), recorded_layers(small) as found, swapped(small, loud):
            answer(small, question.example, dtype)
        kept = self._graph.kept(plan)
        return first_difference(found, wanted, reference, kept, precision.tolerance)

    # -- asking the masked model

    def _answers(self, plan: Plan, dtype: torch.dtype) -> _Answers:
        """What the masked model gives: kept, since the same plan is tried with different pins."""
        key = (tuple(sorted(plan.keep.items())), dtype)
        known_key, known = self._known
        if known is not None and known_key == key:
            return known
        with self._masking(plan, dtype):
            wanted, calls = self._masked_answer(self._graph.example, plan, dtype, {})
            if not is_finite(wanted):
                raise Unprovable(
                    "the masked model's answer is not finite, so that nothing can be compared"
                )
            answers = _Answers(_Question(self._graph.example, {}, wanted), calls)
            answers.second = self._next_question(plan, dtype, answers)
        self._known = (key, answers)
        return answers

    def _next_question(self, plan: Plan, dtype: torch.dtype, answers: _Answers) -> _Question | None:
        """A question with another input that the whole model takes, of those not tried yet.

        To be called while the reference is masked. None where the model takes none of them.
        """
        while True:
            if answers.tried == len(self._inputs):
                example = next(self._others, None)
                if example is None:
                    return None
                self._inputs.append(example)
            example = self._inputs[answers.tried]
            answers.tried += 1
            question = self._asked(example, plan, dtype, answers.calls)
            if question is None:
                continue
            if answers.tried > 1 and answers.tried == len(self._inputs):
                # Those before it did not serve, and need not be tried for the next plan.
                self._inputs = [example]
                answers.tried = 1
            return question

    def _asked(
        self, example: Any, plan: Plan, dtype: torch.dtype, calls: Counter[str]
    ) -> _Question | None:
        """The question with this input; None where the masked model does not take it."""
        reference = self._reference(dtype)
        for loud in [self._loud, {}] if self._loud else [{}]:
            try:
                with undisturbed(reference):
                    wanted, counted = self._masked_answer(example, plan, dtype, loud)
            except Exception as error:  # whatever the user's forward raises on such inputs
                pass_on(error)
                continue
            if counted != calls:
                continue  # its code takes another way: which calls mix channels was not seen
            if is_finite(wanted):
                return _Question(example, loud, wanted)
            if self._answers_finitely(example, dtype, loud):
                raise Unprovable(
                    f"the masked model's answer is not finite at inputs of {_shapes(example)}, "
                    "the whole model's is"
                )
        return None

    def _answers_finitely(self, example: Any, dtype: torch.dtype, loud: Answer) -> bool:
        """Whether the whole model answers with numbers; the reference is masked meanwhile."""
        whole = copied(self._model)._apply(lambda x: at_least(x, dtype))
        with swapped(whole, loud):
            return is_finite(answer(whole, example, dtype))

    def _reference(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._references:
            self._references[dtype] = precise(self._model, dtype)
        return self._references[dtype]

    def _masking(self, plan: Plan, dtype: torch.dtype) -> AbstractContextManager[None]:
        """While inside, what the plan removes of the reference is zero."""
        return masking(leaving_slices(self._reference(dtype), self._graph, plan))

    def _masked_answer(
        self, example: Any, plan: Plan, dtype: torch.dtype, loud: Answer
    ) -> tuple[Answer, Counter[str]]:
        """The masked reference's answer, and the counts of its calls that mix channels.

        To be called while the reference is masked.
        """
        reference = self._reference(dtype)
        mode = OverWhatStays(self._graph.statistics, plan)
        removed = self._graph.removed(plan) if loud else {}
        masked = {name: without(values, removed.get(name, {})) for name, values in loud.items()}
        with swapped(reference, masked), FusedAttention(), mode:
            wanted = answer(reference, example, dtype)
        return wanted, mode.counted


def masked_outputs(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    *,
    dtype: torch.dtype = torch.float32,
    example: Any = None,
) -> list[torch.Tensor]:
    """What the model gives at its full size when the plan's slices are zero.

    That is what the smaller one must equal. On the graph's example, or another. Calls that mix
    channels (layer norm, means over channels, softmax) are taken over the channels that stay.
    Models of less precision than `dtype` run in it. The weights are as before in the end.
    """
    if example is None:
        example = graph.example
    reference = precise(model, dtype)
    mode = OverWhatStays(graph.statistics, plan)
    with masking(leaving_slices(reference, graph, plan)), FusedAttention(), mode:
        return list(answer(reference, example, dtype).values())


def _worse(first: Verdict, second: Verdict) -> Verdict:
    return max(first, second, key=lambda verdict: (bool(verdict.why), verdict.difference))


def _settle_pins(small: nn.Module) -> None:
    """The factors that pins have met so far are meant for this input; the next has others."""
    for _, module in pinned_modules(small):
        pins_of(module).settle()


def _shapes(example: Any) -> str:
    return ", ".join(str(tuple(x.shape)) for x in tensors_of(example))
