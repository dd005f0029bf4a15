"""Forward hooks that report whose forward is running, and try the methods beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.graph.inputs import tensors_of
from prunedge.graph.sizes import SizedCalls, run_forward_method, uncounted
from prunedge.utils.machine import pass_on

OtherMethods = Mapping[str, Sequence[str]]  # module -> its methods beside forward
# Relative to the largest value: two ways through a module are the same but for rounding.
NEAR = 1e-4


@contextmanager
def watching(
    model: nn.Module,
    sized: SizedCalls | None,
    methods: OtherMethods | None = None,
    compare: bool = True,
) -> Iterator[dict[str, dict[str, str]]]:
    """Forward hooks that tell `sized` whose forward is running, and call methods beside it, too.

    Gives for each module and method beside forward why it does not do what forward does: an empty
    text where it does.
    """
    methods_of = methods or {}
    verdicts: dict[str, dict[str, str]] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for name, names in methods_of.items():
        verdicts[name] = dict.fromkeys(names, "")
        answers[name] = []

    def enter(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if sized is not None and name:
                sized.enter(name)
            if name in methods_of:
                answers[name].append(_beside(module, args, kwargs, verdicts[name]))

        return hook

    def leave(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if name in methods_of:
                _compare(out, answers[name].pop() if compare else {}, verdicts[name])
            if sized is not None and name:
                sized.leave()

        return hook

    handles = []
    for name, module in model.named_modules():
        if name or name in methods_of:
            handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(leave(name), always_call=True))
    try:
        yield verdicts
    finally:
        for handle in handles:
            handle.remove()


def _beside(module: nn.Module, args: Any, kwargs: Any, verdicts: dict[str, str]) -> dict[str, Any]:
    """What the methods beside forward answer to the same input, which they get copies of."""
    answers = {}
    for method in verdicts:
        copies = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, (args, kwargs))
        try:
            answers[method] = run_forward_method(getattr(module, method), *copies)
        except Exception as error:  # whatever the user's code raises
            pass_on(error)
            verdicts[method] = f"{type(error).__name__}: {str(error)[:120]}"
    return answers


def _compare(out: Any, answers: dict[str, Any], verdicts: dict[str, str]) -> None:
    with uncounted():
        for method, answer in answers.items():
            if not verdicts[method] and not _near(out, answer):
                verdicts[method] = "its answer is another one"


def _near(answer: Any, other: Any) -> bool:
    """Whether two answers are the same up to the order of summation."""
    tensors = tensors_of(answer)
    other_tensors = tensors_of(other)
    if [x.shape for x in tensors] != [x.shape for x in other_tensors]:
        return False
    for x, y in zip(tensors, other_tensors, strict=True):
        if not x.numel():
            continue
        values = x.detach().double()
        gap = (values - y.detach().double()).abs().max()
        if not bool(gap <= NEAR * values.abs().max()):
            return False
    return True
