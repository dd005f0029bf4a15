"""Forward hooks that record what a model's consumers of channels read, and of which example.

Which example a position belongs to is asked of the model itself: a few examples go through it, then
the same with one of them exchanged (`prunedge.importance.folds`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunedge.graph import ChannelGraph, call
from prunedge.importance import batch
from prunedge.importance.consumers import Tap, feature_dim, readings
from prunedge.importance.hidden_readers import HiddenKey, HiddenReaders
from prunedge.importance.probing import (
    CallKey,
    Folds,
    ProbeRecord,
    folds_from,
    plan_probes,
    untouched,
)
from prunedge.importance.reading import ConsumerKey, Reading
from prunedge.utils import distributed
from prunedge.utils.machine import pass_on

See = Callable[[Reading, torch.Tensor], torch.Tensor | None]

_probing: list[ConsumerHooks] = []  # whose examples go through at the moment, if anybody's


def is_probing() -> bool:
    """Whether what goes through a model at the moment only asks which example is where."""
    return bool(_probing)


class ConsumerHooks:
    """Forward hooks that give a collector what each consumer reads, and where its examples are.

    With `by_example` the examples are told apart; a batch in which that fails leaves the reason in
    `undecided`. Consumers are layers that are called, and weights that other code hands to torch's
    `linear` or attention.
    """

    def __init__(self, graph: ChannelGraph, by_example: bool) -> None:
        self._graph = graph
        self._by_example = by_example
        self._known_folds: dict[Any, Folds] = {}  # by what the model was called with
        self._has_hidden: bool | None = None
        self._records: list[ProbeRecord] = []
        self.start(0)

    def start(self, examples: int) -> None:
        """A batch begins, of which so many examples pass in this process."""
        self.examples = examples
        self.seen: set[ConsumerKey] = set()
        self.undecided = ""
        self._calls: dict[Any, int] = {}
        self._folds: Folds = {}

    @contextmanager
    def attached(self, model: nn.Module, see: See) -> Iterator[None]:
        """Call `see` with every reading while the context lasts.

        What it gives is what the consumer reads instead.
        """

        def meet_hidden(key: HiddenKey, taps: tuple[Tap, ...], x: torch.Tensor) -> torch.Tensor:
            return self._meet(key, taps, x.dim() - 1, x, see)

        hidden = HiddenReaders(model, self._graph, meet_hidden)
        names = {module: name for name, module in model.named_modules()}
        begin = self._begin_forward(model, hidden)
        handles = [
            model.register_forward_pre_hook(begin, with_kwargs=True),
            model.register_forward_hook(hidden.leave, always_call=True),
        ]
        for module, taps in readings(model, self._graph).items():
            hook = self._layer_hook(names[module], tuple(taps), see, hidden)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it reads its weights where nobody sees
        try:
            if self._has_hidden is None:
                self._has_hidden = self._find_hidden(model, hidden)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in handles:
                handle.remove()

    def sees(self, consumer: ConsumerKey) -> bool:
        """Whether this consumer of a group has been met in the batch."""
        return consumer in self.seen

    def give_up(self, why: str) -> None:
        """The examples of this batch can't be told apart."""
        self.undecided = self.undecided or why

    # -- while the model runs

    def _begin_forward(self, model: nn.Module, hidden: HiddenReaders) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not _probing:
                self._calls = {}
                self._folds = {}
                if self._by_example and self.examples > 1:
                    self._folds = self._folds_of(model, args, kwargs)
            is_own_pass = not _probing or _probing[-1] is self
            hidden.enter(bool(self._has_hidden) and is_own_pass)

        return hook

    def _layer_hook(
        self, name: str, taps: tuple[Tap, ...], see: See, hidden: HiddenReaders
    ) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            argument = None if args else next(iter(kwargs))
            z = args[0] if argument is None else kwargs[argument]
            read = self._meet(name, taps, feature_dim(module, z), z, see)
            hidden.handed = read if self._has_hidden else None
            if read is z:
                return None
            if argument is None:
                return (read, *args[1:]), kwargs
            return args, {**kwargs, argument: read}

        return hook

    def _meet(
        self, key: Any, taps: tuple[Tap, ...], features: int, z: torch.Tensor, see: See
    ) -> torch.Tensor:
        """A consumer reads `z`; gives what it shall read."""
        if _probing:
            if _probing[-1] is self:
                self._records.append(ProbeRecord(self._number(key), z.detach().clone(), features))
            return z
        call_key = self._number(key)
        self.seen.update((tap.group, tap.number) for tap in taps)
        fold = None
        if self._by_example and self.examples != 1:
            fold = self._folds.get(call_key)
            if fold is None or not fold.fits(z, self.examples):
                shape = tuple(z.shape)
                self.give_up(
                    f"{taps[0].group}: which example a row of {shape} belongs to can't be told"
                )
                return z
        instead = see(Reading(taps, features, fold, self.examples), z)
        return z if instead is None else instead

    def _number(self, key: Any) -> CallKey:
        """Which call of this consumer it is."""
        number = self._calls.get(key, 0)
        self._calls[key] = number + 1
        return key, number

    # -- asking the model

    def _find_hidden(self, model: nn.Module, hidden: HiddenReaders) -> bool:
        """Whether code hands weights to torch without calling their layer.

        The example goes through once.
        """
        if not hidden.has_any:
            return False
        modes = [(module, module.training) for module in model.modules()]
        device = next(model.parameters()).device
        example = batch.moved(self._graph.example, lambda x: x.to(device))
        self._has_hidden = True
        self._records = []
        try:
            model.eval()
            self._probe(model, lambda: call(model, example))
        except Exception as error:  # the model is run for real soon, and says so itself
            pass_on(error)
            return True
        finally:
            for module, mode in modes:
                module.training = mode
        return any(isinstance(record.call[0], HiddenKey) for record in self._records)

    def _folds_of(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Folds:
        """The folds of a call like this one; asks the model when there has been none."""
        given = (args, kwargs)
        tensors = [x for x in batch.tensors(given) if x.dim()]
        if not any(x.shape[0] == self.examples for x in tensors):
            size = self.examples
            self.give_up(
                f"the model is called with other numbers of examples than the batch's {size}"
            )
            return {}
        sizes = tuple((x.shape[0] == self.examples, x.shape[1:]) for x in tensors)
        key = (model.training, sizes, batch.described(given))
        if key not in self._known_folds:
            try:
                self._known_folds[key] = self._ask(model, given)
            except Exception as error:
                pass_on(error)
                # Whatever keeps a few examples from passing alone: with one at a time it either
                # matters not or is raised.
                self.give_up(f"the model does not run on a part of the batch: {error}")
                return {}
        return self._known_folds[key]

    def _ask(self, model: nn.Module, given: tuple[Any, Any]) -> Folds:
        """Let a few examples through, with each of them exchanged in turn."""
        is_exact = all(x.device.type == "cpu" for x in batch.tensors(given))
        probes = plan_probes(self.examples, is_exact)
        passes: list[list[ProbeRecord]] = []
        with torch.no_grad():
            for examples in probes.examples:
                args, kwargs = batch.picked(given, examples, self.examples)
                self._records = []
                self._probe(model, lambda args=args, kwargs=kwargs: model(*args, **kwargs))  # type: ignore[misc]
                passes.append(self._records)
        self._records = []
        return folds_from(passes, probes.base)

    def _probe(self, model: nn.Module, run: Callable[[], Any]) -> None:
        """Let something through the model that leaves no trace: not in its buffers, nor in chance.

        Batch norms use their running statistics, so that no example touches another, and other
        processes are not waited for.
        """
        calls = self._calls
        self._calls = {}
        _probing.append(self)
        try:
            with untouched(model), distributed.alone():
                torch.manual_seed(0)
                random.seed(0)
                run()
        finally:
            _probing.pop()
            self._calls = calls
