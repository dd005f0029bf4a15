"""Calls that name sizes (reshapes, splits): counted while tracing, and pinned in a smaller network.

Code such as `B, N, C = x.shape; qkv.reshape(B, N, 3, heads, C // heads)` works its sizes out from others that pruning changes
separately. No attribute of the module puts that right, so the sizes themselves are: a pinned module runs its own code, and the
calls that divide or join channels get the sizes that those channels have now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from prunedge.errors import GraphError

Pins = Mapping[int, Mapping[int, tuple[int, int]]]  # call -> place among its sizes -> (size in the module's own terms, size now)

_SPLITS = {"split", "split_with_sizes"}
_SHAPES = {"reshape", "view", "unflatten"}
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}  # one for each class, so that two pinned modules are still of one class


class SizedCalls(TorchFunctionMode):
    """Counts the calls that name sizes in each forward that is running; `site` is the module and number of the one under way."""

    def __init__(self) -> None:
        super().__init__()
        self.site: tuple[str, int] | None = None
        self.totals: dict[str, set[int]] = {}
        self._running: list[tuple[str, list[int]]] = []
        self.enter("")

    @property
    def module(self) -> str:
        """The module whose forward is running."""
        return self._running[-1][0]

    def enter(self, module: str) -> None:
        """This module's forward begins."""
        self._running.append((module, [0]))

    def leave(self) -> None:
        """The forward that began last ends."""
        module, (count,) = self._running.pop()
        self.totals.setdefault(module, set()).add(count)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _names_sizes(func):
            return func(*args, **(kwargs or {}))
        self.site = (self.module, self._running[-1][1][0])
        for _, count in self._running:
            count[0] += 1
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.site = None


class _Pinned(TorchFunctionMode):
    """Gives the calls of one forward their pinned sizes."""

    def __init__(self, pins: Pins) -> None:
        super().__init__()
        self.calls = 0
        self._pins = pins

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _names_sizes(func):
            pins = self._pins.get(self.calls)
            self.calls += 1
            if pins:
                return _with_sizes(func, args, kwargs, pins)
        return func(*args, **kwargs)


def pin(module: nn.Module, pins: Pins, totals: frozenset[int]) -> None:
    """Run this module's code with these sizes from now on, in place; its class becomes a subclass of what it was.

    `totals` are the numbers of such calls that a forward may make. Another number raises GraphError: the code took a way that tracing
    has not seen, and the sizes would go to the wrong calls.
    """
    module.__dict__["_prunedge_pins"] = (dict(pins), totals)
    if not hasattr(type(module), "_prunedge_pinned"):
        module.__class__ = _subclass(type(module))


def pins_of(module: nn.Module) -> tuple[Pins, frozenset[int]]:
    """What `pin` was told of this module; nothing where it was not pinned."""
    return module.__dict__.get("_prunedge_pins", ({}, frozenset()))


def pinned_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The pinned modules of a network, by path."""
    return ((name, module) for name, module in network.named_modules() if "_prunedge_pins" in module.__dict__)


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    if kind in _SUBCLASSES:
        return _SUBCLASSES[kind]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        pins, totals = pins_of(self)
        mode = _Pinned(pins)
        with mode:
            out = kind.forward(self, *args, **kwargs)
        if mode.calls not in totals:
            raise GraphError(
                f"this pruned layer met {mode.calls} reshapes and not {sorted(totals)}: its code took a way that it had not taken "
                "when it was pruned",
                where=kind.__name__, remedy="use it at the picture size and in the mode that it was pruned with",
            )  # fmt: skip
        return out

    made = type(kind.__name__, (kind,), {"forward": forward, "_prunedge_pinned": True, "__doc__": kind.__doc__})
    return _SUBCLASSES.setdefault(kind, made)


def _names_sizes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in _SHAPES or name in _SPLITS


def _with_sizes(func: Any, args: Any, kwargs: Any, pins: Mapping[int, tuple[int, int]]) -> Any:
    name, x = func.__name__, args[0]
    if name in _SPLITS:
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        return x.split([pins[place][1] for place in range(len(pins))], dim)
    if name == "unflatten":
        dim, sizes = (args[1], args[2]) if len(args) > 2 else (kwargs["dim"], kwargs["sizes"])
        first = dim % x.dim()
        return x.unflatten(dim, _pinned(sizes, {place - first: pair for place, pair in pins.items()}))
    named = kwargs.get("shape", kwargs.get("size"))
    sizes = named if named is not None else args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    return getattr(x, name)(_pinned(sizes, pins))


def _pinned(sizes: Any, pins: Mapping[int, tuple[int, int]]) -> list[Any]:
    found = list(sizes)
    for place, (own, now) in pins.items():
        if 0 <= place < len(found) and found[place] != -1:
            # Blocks may be folded into the batch, whose size is free: then it is a multiple of the traced one.
            folded = isinstance(found[place], int) and found[place] > own and found[place] % own == 0
            found[place] = found[place] // own * now if folded else now
    return found
