"""What a model's consumers of channels read while it runs, and which example each row belongs to.

Which example a row belongs to is asked of the model itself: a few examples go through it, then the
same with one of them exchanged (`prunedge.importance.folds`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.graph import ChannelGraph, call
from prunedge.importance import batch
from prunedge.importance.consumers import Tap, feature_dim, readings
from prunedge.importance.folds import Fold, find_fold
from prunedge.importance.hidden_readers import HiddenKey, HiddenReaders
from prunedge.utils import distributed
from prunedge.utils.machine import pass_on

PROBED = 3  # examples that tell two ways to fold apart


@dataclass(frozen=True)
class Reading:
    """One consumer's input as it runs, with the channels along `features`, for the `taps`.

    `arranged` gives it with the examples along the first dimension, where a watch tells them apart;
    otherwise with any rows there.
    """

    taps: tuple[Tap, ...]
    features: int
    fold: Fold | None
    rows: int

    def arranged(self, z: torch.Tensor) -> torch.Tensor:
        """`z`, or its gradient, with the first dimension as promised."""
        if self.fold is not None:
            return self.fold.apart(z, self.rows)
        return z[None] if self._is_bare else z

    @property
    def place(self) -> int:
        """Where the channels are in what `arranged` gives."""
        if self.fold is not None:
            return self.fold.features(self.features)
        return self.features + self._is_bare

    @property
    def _is_bare(self) -> bool:
        """Whether all of it is one example, or it has the channels in front.

        Then a dimension is put before it.
        """
        return self.rows == 1 or self.features == 0


See = Callable[[Reading, torch.Tensor], torch.Tensor | None]
Place = tuple[str, int]  # a group, and the number of one of its consumers
_CallKey = tuple[Any, int]  # a consumer, and how often it was called before in this forward
_Folds = dict[_CallKey, Fold | None]


@dataclass(frozen=True)
class _Record:
    """What a consumer read in a probe."""

    call: _CallKey
    value: torch.Tensor
    features: int


_probing: list[Watch] = []  # whose examples go through at the moment, if anybody's


class Watch:
    """Shows a collector what each consumer reads, and where the examples are in it.

    With `by_example` the examples are told apart; a batch in which that fails leaves the reason in
    `undecided`. Consumers are layers that are called, and weights that other code hands to torch's
    `linear` or attention.
    """

    def __init__(self, graph: ChannelGraph, by_example: bool) -> None:
        self._graph = graph
        self._by_example = by_example
        self._known_folds: dict[Any, _Folds] = {}  # by what the model was called with
        self._has_hidden: bool | None = None
        self._records: list[_Record] = []
        self.start(0)

    def start(self, rows: int) -> None:
        """A batch comes, of which so many examples pass here."""
        self.rows = rows
        self.seen: set[Place] = set()
        self.undecided = ""
        self._calls: dict[Any, int] = {}
        self._folds: _Folds = {}

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
            hook = self._watch_layer(names[module], tuple(taps), see, hidden)
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

    def sees(self, place: Place) -> bool:
        """Whether this consumer of a group has been met in the batch."""
        return place in self.seen

    def give_up(self, why: str) -> None:
        """The examples of this batch can't be told apart."""
        self.undecided = self.undecided or why

    # -- while the model runs

    def _begin_forward(self, model: nn.Module, hidden: HiddenReaders) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not _probing:
                self._calls = {}
                self._folds = {}
                if self._by_example and self.rows > 1:
                    self._folds = self._folds_of(model, args, kwargs)
            is_ours = not _probing or _probing[-1] is self
            hidden.enter(bool(self._has_hidden) and is_ours)

        return hook

    def _watch_layer(
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
                self._records.append(_Record(self._number(key), z.detach().clone(), features))
            return z
        call_key = self._number(key)
        self.seen.update((tap.group, tap.place) for tap in taps)
        fold = None
        if self._by_example and self.rows != 1:
            fold = self._folds.get(call_key)
            if fold is None or not fold.fits(z, self.rows):
                shape = tuple(z.shape)
                self.give_up(
                    f"{taps[0].group}: which example a row of {shape} belongs to can't be told"
                )
                return z
        instead = see(Reading(taps, features, fold, self.rows), z)
        return z if instead is None else instead

    def _number(self, key: Any) -> _CallKey:
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

    def _folds_of(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Folds:
        """The folds of a call like this one; asks the model when there has been none."""
        given = (args, kwargs)
        tensors = [x for x in batch.tensors(given) if x.dim()]
        if not any(x.shape[0] == self.rows for x in tensors):
            self.give_up(
                f"the model is called with other numbers of examples than the batch's {self.rows}"
            )
            return {}
        sizes = tuple((x.shape[0] == self.rows, x.shape[1:]) for x in tensors)
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

    def _ask(self, model: nn.Module, given: tuple[Any, Any]) -> _Folds:
        """Let a few examples through, with each of them exchanged in turn."""
        few = min(PROBED, self.rows)
        order = list(range(few))
        # A GPU may add up in another order when the same comes again; a processor gives the same
        # bits.
        is_exact = all(x.device.type == "cpu" for x in batch.tensors(given))
        orders = [order] if is_exact else [order, order]
        base = len(orders)
        for exchanged in order:
            other = self.rows - 1 if self.rows > few else (exchanged + 1) % few
            orders.append([other if place == exchanged else place for place in order])

        passes: list[list[_Record]] = []
        with torch.no_grad():
            for rows in orders:
                args, kwargs = batch.picked(given, rows, self.rows)
                self._records = []
                self._probe(model, lambda args=args, kwargs=kwargs: model(*args, **kwargs))  # type: ignore[misc]
                passes.append(self._records)
        self._records = []

        ways = {tuple((record.call, record.value.shape) for record in p) for p in passes}
        if len(ways) > 1:
            return {}  # it takes other ways for other examples
        folds: _Folds = {}
        for records in zip(*passes, strict=True):
            first = records[0]
            values = [record.value for record in records]
            folds[first.call] = find_fold(values, base, first.features)
        return folds

    def _probe(self, model: nn.Module, run: Callable[[], Any]) -> None:
        """Let something through the model that leaves no trace: not in its buffers, nor in chance.

        Batch norms use their running statistics, so that no example touches another, and other
        processes are not waited for.
        """
        calls = self._calls
        self._calls = {}
        _probing.append(self)
        try:
            with _untouched(model), distributed.alone():
                torch.manual_seed(0)
                random.seed(0)
                run()
        finally:
            _probing.pop()
            self._calls = calls


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms are in evaluation mode; buffers and random generators are put back."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    python_state = random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        for norm in norms:
            norm.training = False
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        for norm in norms:
            norm.training = True
        for buffer, before in buffers:
            # Otherwise it isn't touched: a forward pass under way may have kept it.
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
