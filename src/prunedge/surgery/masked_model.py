"""What the masked model answers: the whole one in which the removed slices are zero.

It is the reference that a smaller model is compared with (`verify`). Calls that mix channels
without weights (layer norm, means over channels, softmax) are taken over those that stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.inputs import others, tensors_of
from prunedge.graph.masking import masking
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import copied, undisturbed
from prunedge.surgery.answers import Answer, answer, at_least, is_finite, precise
from prunedge.surgery.faint import loud_values, swapped
from prunedge.surgery.masking import OverWhatStays, without
from prunedge.surgery.slicing import leaving_slices
from prunedge.utils.machine import pass_on


class Unprovable(PrunedgeError):
    """The masked model gives no answer that a smaller one could be compared with."""


@dataclass(frozen=True)
class Question:
    """An input, what stands in for faint parameters, and what the masked model answers."""

    example: Any
    loud: Mapping[str, torch.Tensor]
    wanted: Answer

    def __str__(self) -> str:
        return _shapes(self.example)


@dataclass
class Answers:
    """The masked model's answers to both questions, for one plan.

    `calls` counts the operations that mix channels, `tried` the other inputs.
    """

    first: Question
    calls: Counter[str]
    second: Question | None = None
    tried: int = 0


class MaskedModel:
    """The masked model's answers to both questions, kept while the same plan is asked about."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self._model = model
        self._graph = graph
        self._loud = loud_values(model)
        self._others = others(graph.example)
        self._inputs: list[Any] = []  # those made so far, the one that served last at the front
        self._references: dict[torch.dtype, nn.Module] = {}
        self._known: tuple[Any, Answers | None] = (None, None)

    def answers(self, plan: Plan, dtype: torch.dtype) -> Answers:
        """What the masked model gives: kept, since the same plan is tried with different pins."""
        key = (tuple(sorted(plan.keep.items())), dtype)
        known_key, known = self._known
        if known is not None and known_key == key:
            return known
        with self.masking(plan, dtype):
            wanted, calls = self.run(self._graph.example, plan, dtype, {})
            if not is_finite(wanted):
                raise Unprovable(
                    "the masked model's answer is not finite, so that nothing can be compared"
                )
            answers = Answers(Question(self._graph.example, {}, wanted), calls)
            answers.second = self.next_question(plan, dtype, answers)
        self._known = (key, answers)
        return answers

    def next_question(self, plan: Plan, dtype: torch.dtype, answers: Answers) -> Question | None:
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
    ) -> Question | None:
        """The question with this input; None where the masked model does not take it."""
        reference = self.reference(dtype)
        for loud in [self._loud, {}] if self._loud else [{}]:
            try:
                with undisturbed(reference):
                    wanted, counted = self.run(example, plan, dtype, loud)
            except Exception as error:  # whatever the user's forward raises on such inputs
                pass_on(error)
                continue
            if counted != calls:
                continue  # its code takes another way: which calls mix channels was not seen
            if is_finite(wanted):
                return Question(example, loud, wanted)
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

    def reference(self, dtype: torch.dtype) -> nn.Module:
        """The whole model, in this precision at least."""
        if dtype not in self._references:
            self._references[dtype] = precise(self._model, dtype)
        return self._references[dtype]

    def masking(self, plan: Plan, dtype: torch.dtype) -> AbstractContextManager[None]:
        """While inside, what the plan removes of the reference is zero."""
        return masking(leaving_slices(self.reference(dtype), self._graph, plan))

    def run(
        self, example: Any, plan: Plan, dtype: torch.dtype, loud: Answer
    ) -> tuple[Answer, Counter[str]]:
        """The masked reference's answer, and the counts of its calls that mix channels.

        To be called while the reference is masked.
        """
        reference = self.reference(dtype)
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


def _shapes(example: Any) -> str:
    return ", ".join(str(tuple(x.shape)) for x in tensors_of(example))
