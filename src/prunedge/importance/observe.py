"""What a network's consumers read while it runs, and which example each row of it belongs to.

The rows of what a layer reads are not always the examples: windows are folded into the batch, the batch stands behind the sequence or
among the positions, tokens are shared by all examples. Sizes alone can't tell (a batch of four and four windows have the same), so the
network is asked: a few examples go through it, then the same with one of them exchanged for another, one after the other. The rows that
change are that example's. With three examples 0, 1, 2 and two windows each, one layer's rows may be

    0 0 1 1 2 2    (batch, windows):    Fold(dim=0, outer=1, inner=2)
    0 1 2 0 1 2    (windows, batch):    Fold(dim=0, outer=2, inner=1)

Exactly one way to fold that agrees with every row that changed is an answer, and holds for any number of examples. Anything else is
none: then the examples can't be told apart, and have to go through one by one, where all that is read is the one example's.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prunedge.graph import ChannelGraph, call
from prunedge.importance import batch
from prunedge.importance.consumers import Tap, feature_dim, readings
from prunedge.utils import distributed
from prunedge.utils.machine import pass_on

PROBED = 3  # examples that tell two ways to fold apart
NOISE = 4.0  # times what the same examples differ by when they come again, as they may on a GPU


@dataclass(frozen=True)
class Fold:
    """Where the examples are in what a consumer reads: dimension `dim` counts (outer, examples, inner), from outside in.

    `others` are the sizes of all dimensions, with 0 for `dim`.
    """

    dim: int
    outer: int
    inner: int
    others: tuple[int, ...]

    def fits(self, z: torch.Tensor, rows: int) -> bool:
        """Whether `z` can be so many examples, folded like this."""
        sizes = tuple(z.shape)
        return len(sizes) == len(self.others) and (
            sizes[self.dim] == self.outer * rows * self.inner
            and sizes[: self.dim] == self.others[: self.dim]
            and sizes[self.dim + 1 :] == self.others[self.dim + 1 :]
        )

    def apart(self, z: torch.Tensor, rows: int) -> torch.Tensor:
        """A view of `z` with the examples along a dimension of their own, the first; the features' place: `features`."""
        if self.is_plain:
            return z
        return z.unflatten(self.dim, (self.outer, rows, self.inner)).movedim(self.dim + 1, 0)

    def features(self, features: int) -> int:
        """Where the dimension `features` of what is read lies in `apart`."""
        if self.is_plain:
            return features
        return features + (1 if features < self.dim else 2)

    @property
    def is_plain(self) -> bool:
        """Whether the rows are the examples."""
        return self.dim == 0 and self.outer == self.inner == 1


@dataclass(frozen=True)
class Reading:
    """One consumer's input as it runs, with the channels along `features`, for the `taps`.

    `arranged` gives it with the examples along the first dimension, where a watch tells them apart; otherwise with any rows there.
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
        """Whether all of it is one example, or it has the channels in front: then a dimension is put before it."""
        return self.rows == 1 or self.features == 0


See = Callable[[Reading, torch.Tensor], torch.Tensor | None]
Place = tuple[str, int]  # a group, and the number of one of its consumers

_probing: list[Watch] = []  # whose examples go through at the moment, if anybody's


class Watch:
    """Shows a collector what each consumer reads, and where the examples are in it.

    With `by_example` the examples are told apart; a batch in which that fails leaves the reason in `undecided`. Consumers are layers that
    are called, and weights that other code hands to torch's `linear` or attention.
    """

    def __init__(self, graph: ChannelGraph, by_example: bool) -> None:
        self._graph = graph
        self._by_example = by_example
        self._folds: dict[Any, dict[tuple[Any, int], Fold | None]] = {}
        self._hidden: bool | None = None
        self._recorded: list[tuple[tuple[Any, int], torch.Tensor, int]] = []
        self.handed: torch.Tensor | None = None  # what the layer that is being called reads
        self.start(0)

    def start(self, rows: int) -> None:
        """A batch comes, of which so many examples pass here."""
        self.rows = rows
        self.seen: set[Place] = set()
        self.undecided = ""
        self._calls: dict[Any, int] = {}
        self._now: dict[tuple[Any, int], Fold | None] = {}

    @contextmanager
    def attached(self, network: nn.Module, see: See) -> Iterator[None]:
        """Call `see` with every reading while the context lasts; what it gives is what the consumer reads instead."""
        found = readings(network, self._graph)
        names = {module: name for name, module in network.named_modules()}
        hidden = _Hidden(self, network, self._graph, see)
        handles = [network.register_forward_pre_hook(self._begins(network, hidden), with_kwargs=True)]
        handles.append(network.register_forward_hook(hidden.leave, always_call=True))
        for module, taps in found.items():
            hook = self._reads(names[module], tuple(taps), see)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it reads its weights where nobody sees
        try:
            if self._hidden is None:
                self._hidden = self._has_hidden(network, hidden)
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

    def meet(self, key: Any, taps: tuple[Tap, ...], features: int, z: torch.Tensor, see: See) -> torch.Tensor:
        """A consumer reads `z`; gives what it shall read."""
        if _probing:
            if _probing[-1] is self:
                self._record(key, z, features)
            return z
        number = self._calls.get(key, 0)
        self._calls[key] = number + 1
        self.seen.update((tap.group, tap.place) for tap in taps)
        fold = None
        if self._by_example and self.rows != 1:
            fold = self._now.get((key, number))
            if fold is None or not fold.fits(z, self.rows):
                self.give_up(f"{taps[0].group}: which example a row of {tuple(z.shape)} belongs to can't be told")
                return z
        instead = see(Reading(taps, features, fold, self.rows), z)
        return z if instead is None else instead

    def _begins(self, network: nn.Module, hidden: _Hidden) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not _probing:
                self._calls = {}
                self._now = {}
                if self._by_example and self.rows > 1:
                    self._now = self._known(network, args, kwargs)
            hidden.enter(bool(self._hidden) and (not _probing or _probing[-1] is self))

        return hook

    def _reads(self, name: str, taps: tuple[Tap, ...], see: See) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            argument = None if args else next(iter(kwargs))
            z = args[0] if argument is None else kwargs[argument]
            read = self.meet(name, taps, feature_dim(module, z), z, see)
            self.handed = read if self._hidden else None
            if read is z:
                return None
            return ((read, *args[1:]), kwargs) if argument is None else (args, {**kwargs, argument: read})

        return hook

    def _has_hidden(self, network: nn.Module, hidden: _Hidden) -> bool:
        """Whether code hands weights to torch without calling their layer: the example goes through once."""
        if not hidden.readers:
            return False
        modes = [(module, module.training) for module in network.modules()]
        first = next(network.parameters())
        example = batch.moved(self._graph.example, lambda x: x.to(first.device))
        self._hidden, self._recorded = True, []
        try:
            network.eval()
            self._pass(network, lambda: call(network, example))
        except Exception as error:  # the network is run for real soon, and says so itself
            pass_on(error)
            return True
        finally:
            for module, mode in modes:
                module.training = mode
        return any(isinstance(key, _HiddenKey) for (key, _), _, _ in self._recorded)

    def _known(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[tuple[Any, int], Fold | None]:
        """The folds of a call like this one; asks the network when there has been none."""
        given = (args, kwargs)
        sizes = tuple((x.shape[0] == self.rows, x.shape[1:]) for x in batch.tensors(given) if x.dim())
        key = (network.training, sizes, batch.described(given))
        if not any(x.dim() and x.shape[0] == self.rows for x in batch.tensors(given)):
            self.give_up(f"the network is called with other numbers of examples than the batch's {self.rows}")
            return {}
        if key not in self._folds:
            try:
                self._folds[key] = self._asked(network, given)
            except Exception as error:
                pass_on(error)
                # Whatever keeps a few examples from passing alone: with one at a time it either matters not or is raised.
                self.give_up(f"the network does not run on a part of the batch: {error}")
                return {}
        return self._folds[key]

    def _asked(self, network: nn.Module, given: tuple[Any, Any]) -> dict[tuple[Any, int], Fold | None]:
        """Let a few examples through, with each of them exchanged in turn."""
        few = min(PROBED, self.rows)
        order = list(range(few))
        # A GPU may add up in another order when the same comes again; a processor gives the same bits.
        orders = [order] if all(x.device.type == "cpu" for x in batch.tensors(given)) else [order, order]
        base = len(orders)
        for one in order:
            other = self.rows - 1 if self.rows > few else (one + 1) % few
            orders.append([other if place == one else place for place in order])
        passed = []
        with torch.no_grad():
            for rows in orders:
                self._recorded = []
                args, kwargs = batch.picked(given, rows, self.rows)
                self._pass(network, lambda args=args, kwargs=kwargs: network(*args, **kwargs))  # type: ignore[misc]
                passed.append(self._recorded)
        self._recorded = []
        if len({tuple((event, z.shape) for event, z, _ in events) for events in passed}) > 1:
            return {}  # it takes other ways for other examples
        return {events[0][0]: _fold([z for _, z, _ in events], base, events[0][2]) for events in zip(*passed, strict=True)}

    def _pass(self, network: nn.Module, run: Callable[[], Any]) -> None:
        """Let something through the network that leaves no trace: not in its buffers, nor in what is random.

        Batch norms use their running statistics, so that no example touches another, and other processes are not waited for.
        """
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training]
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        drawn, devices = random.getstate(), [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        calls, self._calls = self._calls, {}
        _probing.append(self)
        try:
            for norm in norms:
                norm.training = False
            with torch.random.fork_rng(devices=devices), torch.no_grad(), distributed.alone():
                torch.manual_seed(0)
                random.seed(0)
                run()
        finally:
            _probing.pop()
            self._calls = calls
            random.setstate(drawn)
            for norm in norms:
                norm.training = True
            for buffer, before in buffers:
                if not torch.equal(buffer, before):  # otherwise it isn't touched: a forward pass under way may have kept it
                    with torch.no_grad():
                        buffer.copy_(before)

    def _record(self, key: Any, z: torch.Tensor, features: int) -> None:
        number = self._calls.get(key, 0)
        self._calls[key] = number + 1
        self._recorded.append(((key, number), z.detach().clone(), features))


def _fold(passed: Sequence[torch.Tensor], base: int, features: int) -> Fold | None:
    """How the examples are folded in what a consumer read: of the same ones `base` times, then with each of them exchanged.

    None when the rows that changed agree with no way to fold, or with several.
    """
    first, exchanged = passed[0], passed[base:]
    count = len(exchanged)
    noise = max((NOISE * float((first - z).abs().nan_to_num().max()) for z in passed[1:base] if z.numel()), default=0.0)
    # (examples, every dimension but the features)
    changed = torch.stack([(first != z if noise == 0 else (first - z).abs() > noise).any(features) for z in exchanged])
    if bool((changed.sum(0) > 1).any()):
        return None  # a row that hangs on two examples
    known = changed.any(0)
    if not bool(known.any()):
        return None
    owner = changed.to(torch.uint8).argmax(0).unsqueeze(features)
    known = known.unsqueeze(features)
    found = []
    for dim in range(first.dim()):
        size = first.shape[dim]
        if dim == features or size % count:
            continue
        for inner in (d for d in range(1, size // count + 1) if size // count % d == 0):
            line = torch.arange(size, device=first.device) // inner % count
            line = line.reshape([-1 if d == dim else 1 for d in range(first.dim())])
            if bool(((owner == line) | ~known).all()):
                others = tuple(0 if d == dim else s for d, s in enumerate(first.shape))
                found.append(Fold(dim, size // count // inner, inner, others))
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class _HiddenKey:
    """A weight that code uses without calling its layer."""

    weight: str


class _Hidden(TorchFunctionMode):
    """Sees weights that code hands to torch's `linear` or attention without calling a layer (torchvision's Swin, torch's attention)."""

    def __init__(self, watch: Watch, network: nn.Module, graph: ChannelGraph, see: See) -> None:
        super().__init__()
        self._watch, self._see = watch, see
        self._inside: list[bool] = []
        parameters = dict(network.named_parameters())
        self.readers: dict[int, tuple[torch.Tensor, str, list[Tap]]] = {}
        for group in graph.groups:
            for place, part in enumerate(group.having("in")):
                weight = parameters.get(part.tensor)
                if weight is not None and weight.dim() == 2 and part.dim == 1:
                    tap = Tap(group.name, place, torch.as_tensor(part.indices))
                    self.readers.setdefault(id(weight), (weight, part.tensor, []))[2].append(tap)

    def enter(self, wanted: bool) -> None:
        """The network's forward begins."""
        self._inside.append(wanted)
        if wanted:
            self.__enter__()

    def leave(self, *_: Any) -> None:
        """It ends, or has failed."""
        self._watch.handed = None
        if self._inside and self._inside.pop():
            self.__exit__(None, None, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return self._linear(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._attention(func, inspect.signature(func).bind(*args, **kwargs))
        return func(*args, **kwargs)

    def _linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if x is self._watch.handed:  # a layer's own call, which its hook has seen
            self._watch.handed = None
            return functional.linear(x, weight, bias)
        return functional.linear(self._met(x, weight), weight, bias)

    def _attention(self, func: Any, bound: inspect.BoundArguments) -> Any:
        given = bound.arguments
        query, key, value = given["query"], given["key"], given["value"]
        if given.get("use_separate_proj_weight"):
            given["query"] = self._met(query, given["q_proj_weight"])
            given["key"] = self._met(key, given["k_proj_weight"])
            given["value"] = self._met(value, given["v_proj_weight"])
        else:
            # One and the same tensor stays one: torch looks for that, and the gradient is that of all it is read for.
            read: dict[int, torch.Tensor] = {}
            for name, x in (("query", query), ("key", key), ("value", value)):
                if id(x) not in read:
                    read[id(x)] = self._met(x, given["in_proj_weight"])
                given[name] = read[id(x)]
        weight, bias = given["out_proj_weight"], given["out_proj_bias"]
        if self._reader(weight) is None:
            return func(*bound.args, **bound.kwargs)
        # Its last step is taken here: what goes into it is what attention gives with a projection that changes nothing.
        given["out_proj_weight"] = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        given["out_proj_bias"] = None
        out, weights = func(*bound.args, **bound.kwargs)
        return functional.linear(self._met(out, weight), weight, bias), weights

    def _met(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found = self._reader(weight)
        if found is None:
            return x
        name, taps = found
        return self._watch.meet(_HiddenKey(name), taps, x.dim() - 1, x, self._see)

    def _reader(self, weight: Any) -> tuple[str, tuple[Tap, ...]] | None:
        """The name and taps of a weight, or of one that this is some rows of."""
        if not isinstance(weight, torch.Tensor):
            return None
        whole = weight if id(weight) in self.readers or weight._base is None else weight._base
        found = self.readers.get(id(whole))
        if found is None:
            return None
        is_rows = weight.dim() == 2 and weight.stride() == whole.stride() and weight.shape[1] == whole.shape[1]
        begins = weight.storage_offset() - whole.storage_offset()
        if weight is not whole and not (is_rows and begins % whole.stride(0) == 0):
            return None
        return found[1], tuple(found[2])
