"""The proof of a removal: the smaller network answers as the whole one in which what leaves is zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.errors import GraphError, PrunedgeError
from prunedge.graph import ChannelGraph, call
from prunedge.graph.channels import KeptIndices
from prunedge.graph.fused_attention import FusedAttention
from prunedge.graph.inputs import others, tensors_of
from prunedge.graph.masking import in_blocks, masking
from prunedge.graph.outputs import seen_in
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import copied, held_tensors, undisturbed
from prunedge.graph.sizes import pinned_modules, pins_of
from prunedge.models.tf32 import full_float32
from prunedge.surgery.masking import OverWhatStays, without
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import timed

TOLERANCE = 1e-4  # relative to the largest output, float32: what the order of summation can change, with room to spare
STRICT = 1e-7  # the same for networks with pinned sizes, which are compared in float64
_FAINT = 1e-3  # parameters below it all over (fresh gates, layer scales, heads of zeros) hide what they multiply
_LOUD = 0.1  # what they are for a moment, so that it shows

Answer = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Verdict:
    """What comparing a smaller network showed: nothing against it (`why` is empty), or what speaks against it and where.

    `difference` is relative to the largest output. `place` is the path of the module whose forward failed, or of the first layer that
    gave something else, as far as that can be told. `rounding` says that only whole numbers differ, which rounding may have tipped over.
    """

    difference: float
    why: str = ""
    place: str | None = None
    rounding: bool = False


@dataclass(frozen=True)
class _Question:
    """An input, what stands in for faint parameters meanwhile, and what the masked network answers."""

    example: Any
    loud: Mapping[str, torch.Tensor]
    wanted: Answer

    def __str__(self) -> str:
        return ", ".join(str(tuple(x.shape)) for x in tensors_of(self.example))


@dataclass
class _Answers:
    """The masked network's answers for one plan; `calls` counts what mixes channels, `tried` the other inputs."""

    first: _Question
    calls: Counter[str]
    second: _Question | None = None
    tried: int = 0


class Unprovable(PrunedgeError):
    """The masked network gives no answer that a smaller one could be compared with."""


class Proof:
    """Compares smaller networks with their whole one, whose answers it keeps as long as the same plan is asked about.

    Each comparison takes two questions: the graph's example with the weights as they are; and values drawn from the example's at another
    size of the picture and of the batch, as far as the whole network takes one (`graph.examples`), with faint parameters made loud.
    """

    def __init__(self, network: nn.Module, graph: ChannelGraph) -> None:
        self._network, self._graph = network, graph
        self._loud = _made_loud(network)
        self._others = others(graph.example)
        self._taken: list[Any] = []  # the other inputs that were made so far, the one that served last at the front
        self._references: dict[torch.dtype, nn.Module] = {}
        self._known: tuple[Any, _Answers | None] = (None, None)

    @timed("prove")
    def compare(
        self, small: nn.Module, plan: Plan, dtype: torch.dtype, tolerance: float, between: Callable[[nn.Module], None] = lambda small: None
    ) -> Verdict:
        """Whether `small`, of that precision at least, is what the plan leaves of the network.

        `between` is called with it when it has passed the first question: its pins are completed before it meets another input.
        """
        try:
            answers = self._answers(plan, dtype)
            verdict = self._judged(small, plan, dtype, tolerance, answers.first)
            assert verdict is not None
            told = _telling(answers.first.wanted)
            if not verdict.why:
                between(small)
            while not verdict.why and answers.second is not None:
                second = self._judged(small, plan, dtype, tolerance, answers.second, elsewhere=True)
                if second is None:
                    with masking(_slices(self._reference(dtype), self._graph, plan)):
                        answers.second = self._second(plan, dtype, answers)
                    continue
                told |= _telling(answers.second.wanted)
                verdict = max(verdict, second, key=lambda one: (bool(one.why), one.difference))
                break
        except Unprovable as error:
            return Verdict(float("inf"), error.what)
        if not told and not verdict.why:
            return Verdict(float("inf"), "the masked network answers the same number all over, which shows nothing")
        return verdict

    def is_torn(self, plan: Plan) -> bool:
        """Whether rounding alone changes the masked network's answer by more than the tolerance.

        What is chosen by its rank (the best of many boxes) or rounded to whole numbers changes all at once: single precision shows
        nothing there.
        """
        try:
            single, double = (self._answers(plan, dtype) for dtype in (torch.float32, torch.float64))
        except Exception as error:  # whatever the user's forward raises: it does not run in double precision, or not at all
            pass_on(error)
            return False
        pairs = [(single.first, double.first)]
        if single.second is not None and double.second is not None:
            pairs.append((single.second, double.second))
        return any(_difference(_doubled(one.wanted), _doubled(other.wanted))[0] > TOLERANCE for one, other in pairs)

    def _judged(
        self, small: nn.Module, plan: Plan, dtype: torch.dtype, tolerance: float, question: _Question, *, elsewhere: bool = False
    ) -> Verdict | None:
        """What one question shows; nothing where the smaller network says by itself that it was not made for such an input."""
        where = f" at inputs of {question}" if elsewhere else ""
        kept = self._graph.kept(plan)
        loud = {name: taken(values, kept.get(name, {})) for name, values in question.loud.items()}
        try:
            with undisturbed(small) if elsewhere else nullcontext(), _swapped(small, loud):
                found = answer(small, question.example, dtype)
        except GraphError:
            if not elsewhere:
                raise
            return None  # a pinned layer that takes another way there refuses to run: nobody is handed a wrong answer
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            why = f"the smaller network does not run{where} ({type(error).__name__}: {str(error)[:120]})"
            return Verdict(float("inf"), why, _raised_in(error, small))
        for _, module in pinned_modules(small) if not elsewhere else ():
            # What their factors were meant for is this input; the next has others.
            pins_of(module).settle()
        difference, rounding = _difference(found, question.wanted)
        if difference <= tolerance:
            return Verdict(difference)
        why = f"differs from the masked network by {difference:.1e} of its largest output{where}"
        if found.keys() != question.wanted.keys() or any(
            _dense(found[key]).shape != _dense(one).shape for key, one in question.wanted.items()
        ):
            why = f"its answer has other parts or shapes than the masked network's{where}"
        return Verdict(difference, why, self._first_difference(small, plan, dtype, tolerance, question, loud), rounding)

    def _answers(self, plan: Plan, dtype: torch.dtype) -> _Answers:
        """What the masked network gives: kept, since the same plan is tried with different pins."""
        key = (tuple(sorted(plan.keep.items())), dtype)
        if self._known[0] != key or self._known[1] is None:
            with masking(_slices(self._reference(dtype), self._graph, plan)):
                wanted, calls = self._masked(self._graph.example, plan, dtype, {})
                if not _finite(wanted):
                    raise Unprovable("the masked network's answer is not finite, so that nothing can be compared")
                answers = _Answers(_Question(self._graph.example, {}, wanted), calls)
                answers.second = self._second(plan, dtype, answers)
            self._known = (key, answers)
        assert self._known[1] is not None
        return self._known[1]

    def _second(self, plan: Plan, dtype: torch.dtype, answers: _Answers) -> _Question | None:
        """The first question with another input that the whole network takes, of those not tried yet; None where it takes none."""
        while True:
            if answers.tried == len(self._taken):
                example = next(self._others, None)
                if example is None:
                    return None
                self._taken.append(example)
            example = self._taken[answers.tried]
            answers.tried += 1
            question = self._asked(example, plan, dtype, answers.calls)
            if question is not None:
                if answers.tried > 1 and answers.tried == len(self._taken):
                    # Those before it did not serve, and need not be tried for the next plan.
                    self._taken, answers.tried = [example], 1
                return question

    def _asked(self, example: Any, plan: Plan, dtype: torch.dtype, calls: Counter[str]) -> _Question | None:
        """The question with this input, inside a masked network; None where that does not take it."""
        reference = self._reference(dtype)
        for loud in (self._loud, {}) if self._loud else ({},):
            try:
                with undisturbed(reference):
                    wanted, counted = self._masked(example, plan, dtype, loud)
            except Exception as error:  # whatever the user's forward raises: it does not take such inputs
                pass_on(error)
                continue
            # Where its code takes another way, which of its calls mix channels was not seen.
            if counted == calls:
                if not _finite(wanted) and self._answers_finitely(example, dtype, loud):
                    shapes = ", ".join(str(tuple(x.shape)) for x in tensors_of(example))
                    raise Unprovable(f"the masked network's answer is not finite at inputs of {shapes}, the whole network's is")
                if _finite(wanted):
                    return _Question(example, loud, wanted)
        return None

    def _answers_finitely(self, example: Any, dtype: torch.dtype, loud: Answer) -> bool:
        """Whether the whole network, which is not the reference while that is masked, answers with numbers."""
        whole = copied(self._network)._apply(lambda x: _at_least(x, dtype))
        with _swapped(whole, loud):
            return _finite(answer(whole, example, dtype))

    def _reference(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._references:
            self._references[dtype] = precise(self._network, dtype)
        return self._references[dtype]

    def _masked(self, example: Any, plan: Plan, dtype: torch.dtype, loud: Answer) -> tuple[Answer, Counter[str]]:
        """The answer of the reference, whose slices are zero already, and how often it called each operation that mixes channels."""
        mode = OverWhatStays(self._graph.statistics, plan)
        removed = self._graph.removed(plan) if loud else {}
        masked = {name: without(values, removed.get(name, {})) for name, values in loud.items()}
        with _swapped(self._reference(dtype), masked), FusedAttention(), mode:
            wanted = answer(self._reference(dtype), example, dtype)
        return wanted, mode.counted

    def _first_difference(
        self, small: nn.Module, plan: Plan, dtype: torch.dtype, tolerance: float, question: _Question, loud: Answer
    ) -> str | None:
        """The first layer whose answer, at the channels that stay, differs; None where all that can be compared agree."""
        reference, kept = self._reference(dtype), self._graph.kept(plan)
        masked = masking(_slices(reference, self._graph, plan))
        with undisturbed(reference), masked, _answers_of_layers(reference) as wanted:
            self._masked(question.example, plan, dtype, question.loud)
        with undisturbed(small), _answers_of_layers(small) as found, _swapped(small, loud):
            answer(small, question.example, dtype)
        for (name, number), whole in wanted.items():
            narrow = found.get((name, number))
            layer: Any = reference.get_submodule(name)
            if narrow is None or narrow.dim() != whole.dim():
                return name
            dim = whole.dim() - 1 if isinstance(layer, (nn.Linear, nn.LayerNorm)) else min(1, whole.dim() - 1)
            stays = kept.get(f"{name}.weight", {}).get(0)
            if stays is not None and len(layer.weight) == whole.shape[dim]:
                whole = whole.index_select(dim, torch.as_tensor(stays, device=whole.device))
            if whole.shape == narrow.shape and _difference({"": narrow}, {"": whole})[0] > tolerance:
                return name
        return None


def masked_outputs(
    network: nn.Module, graph: ChannelGraph, plan: Plan, *, dtype: torch.dtype = torch.float32, example: Any = None
) -> list[torch.Tensor]:
    """What the network at its full size gives when the plan's slices are zero: what the smaller one must equal.

    On the graph's example, or another. Calls that mix channels (layer norm, means over channels, softmax) are taken over the channels that
    stay. Networks of less precision than `dtype` run in it. The network's weights are as before in the end.
    """
    reference = precise(network, dtype)
    with masking(_slices(reference, graph, plan)), FusedAttention(), OverWhatStays(graph.statistics, plan):
        return list(answer(reference, graph.example if example is None else example, dtype).values())


def answer(network: nn.Module, example: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor of the network's answer in evaluation mode, by its way; an example of less precision than `dtype` is raised to it."""
    with undisturbed(network), torch.no_grad(), _as_written(network), full_float32():
        network.eval()
        _draw_the_same(network)
        return seen_in(call(network, precise_example(example, dtype)), network)


def _as_written(network: nn.Module) -> AbstractContextManager[Any]:
    """Compiled parts run as they are written: compiling each attempt would take longer than all else."""
    compiled = any("_orig_mod" in module._modules or module._compiled_call_impl is not None for module in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _draw_the_same(network: nn.Module) -> None:
    """Networks that draw numbers draw the same ones each time."""
    torch.default_generator.manual_seed(0)
    for device in {x.device for x in network.parameters() if x.device.type == "cuda"}:
        torch.cuda.default_generators[device.index].manual_seed(0)


def precise(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network itself, or a copy of one in less precision: rounding would hide what the proof looks for."""
    if all(_exact(x.dtype, dtype) for x in aliases(network).values()):
        return network
    held = {id(x): _at_least(x.detach(), dtype) for x in held_tensors(network)}
    return copied(network, held)._apply(lambda x: _at_least(x, dtype))


def aliases(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, by the first of its names."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def taken(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    """A copy of the tensor with these indices of each dimension alone."""
    found = tensor.detach()
    for dim, indices in dims.items():
        view, where = in_blocks(found, dim, indices)
        found = view.index_select(dim, where).reshape(*found.shape[:dim], len(indices), *found.shape[dim + 1 :])
    return found if dims else found.clone()


def precise_example(example: Any, dtype: torch.dtype) -> Any:
    """The example with every tensor of less precision raised to this one."""
    return tree_map(lambda x: _at_least(x, dtype) if isinstance(x, torch.Tensor) else x, example)


def _exact(own: torch.dtype, wanted: torch.dtype) -> bool:
    return not (own.is_floating_point or own.is_complex) or torch.finfo(own).bits >= torch.finfo(wanted).bits


def _at_least(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor, real or complex as it is, in this precision at least."""
    if _exact(x.dtype, dtype):
        return x
    return x.to(dtype.to_complex() if x.is_complex() else dtype)


def _slices(network: nn.Module, graph: ChannelGraph, plan: Plan) -> Iterator[tuple[torch.Tensor, int, np.ndarray]]:
    """The slices of the network's weights that leave."""
    consumed: KeptIndices = graph.removed(plan, roles=("in",))
    removed = graph.removed(plan)
    trainable, tensors = dict(network.named_parameters()), aliases(network)
    for name, dims in {**{n: d for n, d in removed.items() if n in trainable}, **consumed}.items():
        for dim, indices in {**removed.get(name, {}), **dims}.items():
            yield tensors[name], dim, indices


def _made_loud(network: nn.Module) -> dict[str, torch.Tensor]:
    """Values for the parameters that are next to nothing all over: behind them nothing shows, and a wrong cut would pass."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, parameter in network.named_parameters():
        plain = parameter.layout is torch.strided and not parameter.is_meta
        if not parameter.is_floating_point() or not parameter.numel() or not plain:
            continue
        first = parameter.detach()[(0,) * parameter.dim()]
        if abs(float(first)) < _FAINT and float(parameter.detach().float().abs().max()) < _FAINT:
            values = torch.randn(parameter.shape, generator=generator) * _LOUD
            found[name] = values.to(parameter.device)
    return found


@contextmanager
def _swapped(network: nn.Module, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While inside, these parameters have these values."""
    if not values:
        yield
        return
    own = dict(network.named_parameters())
    before = {name: own[name].detach().clone() for name in values}
    with torch.no_grad():
        for name, new in values.items():
            own[name].copy_(new)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, old in before.items():
                own[name].copy_(old)


@contextmanager
def _answers_of_layers(network: nn.Module) -> Iterator[dict[tuple[str, int], torch.Tensor]]:
    """What each layer with weights of its own gives, by name and number of the call, in the order in which they end."""
    found: dict[tuple[str, int], torch.Tensor] = {}
    calls: Counter[str] = Counter()

    def note(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, torch.Tensor) and not out.is_sparse:
                found[name, calls[name]] = out.detach().clone()
                calls[name] += 1

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module._parameters.get("weight"), torch.Tensor) and not module._modules
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _raised_in(error: BaseException, network: nn.Module) -> str | None:
    """The innermost module of the network whose code was running when this was raised."""
    names = {id(module): name for name, module in network.named_modules()}
    place, trace = None, error.__traceback__
    while trace is not None:
        place = names.get(id(trace.tb_frame.f_locals.get("self")), place)
        trace = trace.tb_next
    return place


def _finite(answers: Answer) -> bool:
    return all(bool(torch.isfinite(_dense(x)).all()) for x in answers.values() if x.is_floating_point() or x.is_complex())


def _telling(answers: Answer) -> bool:
    """Whether there is anything to tell one answer from another by."""
    return any(bool((x != x.flatten()[0]).any()) or (x.numel() == 1 and bool(x.any())) for x in map(_dense, answers.values()) if x.numel())


def _dense(x: torch.Tensor) -> torch.Tensor:
    if x.is_nested:
        return torch.cat([part.flatten() for part in x.unbind()])
    x = x.dequantize() if x.is_quantized else x
    x = x if x.layout is torch.strided else x.to_dense()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _doubled(answers: Answer) -> Answer:
    return {key: x.double() if x.is_floating_point() and not x.is_quantized else x for key, x in answers.items()}


def _difference(found: Answer, wanted: Answer) -> tuple[float, bool]:
    """The largest gap relative to the largest value of its tensor, and whether all of it is one of whole numbers, which must be equal."""
    if found.keys() != wanted.keys():
        return float("inf"), False
    real = whole = 0.0
    for key, ours in wanted.items():
        a, b = _dense(found[key]), _dense(ours)
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf"), False
        if not b.numel():
            continue
        if not b.is_floating_point():
            whole = whole if torch.equal(a, b) else float("inf")
            continue
        gap = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12)
        real = max(real, float(gap) if torch.isfinite(gap) else float("inf"))
    return max(real, whole), whole > real
