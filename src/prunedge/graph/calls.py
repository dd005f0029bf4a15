"""Calls that name sizes (reshapes, splits) or numbers (factors): counted while tracing, and pinned in a smaller network.

Code such as `B, N, C = x.shape; qkv.reshape(B, N, 3, heads, C // heads)` works its sizes out from others that pruning changes
separately. No attribute of the module puts that right, so the sizes themselves are: a pinned module runs its own code, and the
calls that divide or join channels get the sizes that those channels have now. A factor worked out from a width,
`q * (C // heads) ** -0.5`, is brought back to what it was before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from prunedge.errors import GraphError

Pins = Mapping[int, Mapping[int, tuple[int, int]]]  # call -> place among its sizes -> (size in the module's own terms, size now)

_SPLITS = {"split", "split_with_sizes"}
_SHAPES = {"reshape", "view", "unflatten"}
# Calls that make constants beside channels. They are counted apart, below zero: code often pads where a picture's size asks for it,
# and whether such a call is the one that is meant, its own sizes say.
_CONSTANTS = {"pad", "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"}
_FACTORS = {
    "mul",
    "mul_",
    "multiply",
    "div",
    "div_",
    "divide",
    "true_divide",
    "__mul__",
    "__rmul__",
    "__imul__",
    "__truediv__",
    "__itruediv__",
}
_UNCOUNTED: list[None] = []  # one for each `uncounted` block that is running
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}  # one for each class, so that two pinned modules are still of one class


@dataclass
class Pinning:
    """What a pinned module runs with.

    `totals` are the numbers of calls that name sizes or factors that a forward may make. `factors` (call -> factor) multiply the numbers
    that its code has worked out. `wanted` (call -> number) are those that the factors shall make; `settle` makes them the factors.
    `needed` tells whether its code has ever asked for anything else.
    """

    sizes: Pins
    totals: frozenset[int]
    factors: dict[int, float] = field(default_factory=dict)
    wanted: Mapping[int, float] = field(default_factory=dict)
    met: dict[int, set[float]] = field(default_factory=dict)
    needed: bool = False

    def settle(self) -> None:
        """Forget the numbers themselves: only what they differed by stays, so that what else they depend on may change."""
        self.factors = {call: next(iter(ratios)) for call, ratios in self.met.items() if len(ratios) == 1 and ratios != {1.0}}
        self.wanted, self.met = {}, {}


@contextmanager
def uncounted() -> Iterator[None]:
    """Code of our own that stands in for code whose calls tracing does not see."""
    _UNCOUNTED.append(None)
    try:
        yield
    finally:
        _UNCOUNTED.pop()


class SizedCalls(TorchFunctionMode):
    """Counts the calls that name sizes or factors in each forward that is running; `site` is the module and number of the one under way.

    `factors` holds for each module the factors that its code has used, by call, where they were always the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.site: tuple[str, int] | None = None
        self.totals: dict[str, set[int]] = {}
        self.factors: dict[str, dict[int, float]] = {}
        self._running: list[tuple[str, list[int]]] = []  # (module, [calls so far, calls that make constants so far])
        self.enter("")

    @property
    def module(self) -> str:
        """The module whose forward is running."""
        return self._running[-1][0]

    def enter(self, module: str) -> None:
        """This module's forward begins."""
        self._running.append((module, [0, 0]))

    def leave(self) -> None:
        """The forward that began last ends."""
        module, (count, _) = self._running.pop()
        self.totals.setdefault(module, set()).add(count)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factor = _factor(func, args)
        if _makes_constants(func) and not _UNCOUNTED:
            self.site = (self.module, -1 - self._running[-1][1][1])
            for _, count in self._running:
                count[1] += 1
            try:
                return func(*args, **(kwargs or {}))
            finally:
                self.site = None
        if (factor is None and not _names_sizes(func)) or _UNCOUNTED:
            return func(*args, **(kwargs or {}))
        self.site = (self.module, self._running[-1][1][0])
        for module, count in self._running:
            if factor is not None and self.factors.setdefault(module, {}).setdefault(count[0], factor) != factor:
                self.factors[module][count[0]] = math.nan
            count[0] += 1
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.site = None


class _Pinned(TorchFunctionMode):
    """Gives the calls of one forward their pinned sizes and factors."""

    def __init__(self, pinning: Pinning) -> None:
        super().__init__()
        self.calls = 0
        self._constants = 0
        self._pinning = pinning

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, pinning = kwargs or {}, self._pinning
        if _UNCOUNTED:
            return func(*args, **kwargs)
        if (factor := _factor(func, args)) is not None:
            if (wanted := pinning.wanted.get(self.calls)) is not None and factor and wanted == wanted:
                pinning.met.setdefault(self.calls, set()).add(wanted / factor)
                now = wanted
            else:
                now = factor * pinning.factors.get(self.calls, 1.0)
            pinning.needed |= now != factor
            self.calls += 1
            return func(args[0], now, *args[2:], **kwargs)
        if _makes_constants(func):
            self._constants += 1
            pins = pinning.sizes.get(-self._constants)
            if pins:
                args, kwargs = _with_constants(func, args, kwargs, pins, pinning)
            return func(*args, **kwargs)
        if _names_sizes(func):
            pins = pinning.sizes.get(self.calls)
            self.calls += 1
            if pins:
                args, kwargs = _with_sizes(func, args, kwargs, pins, pinning)
        return func(*args, **kwargs)


def pin(module: nn.Module, pinning: Pinning) -> None:
    """Run this module's code with these sizes and factors from now on, in place; its class becomes a subclass of what it was.

    A forward that makes another number of such calls than `totals` allows raises GraphError: the code took a way that tracing has not
    seen, and the sizes would go to the wrong calls.
    """
    module.__dict__["_prunedge_pins"] = pinning
    if not hasattr(type(module), "_prunedge_pinned"):
        module.__class__ = _subclass(type(module))


def unpin(module: nn.Module) -> None:
    """Run this module's own code again."""
    del module.__dict__["_prunedge_pins"]
    module.__class__ = type(module).__mro__[1]


def pins_of(module: nn.Module) -> Pinning:
    """What `pin` was told of this module; nothing where it was not pinned."""
    return module.__dict__.get("_prunedge_pins", Pinning({}, frozenset()))


def pinned_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The pinned modules of a network, by path."""
    return ((name, module) for name, module in network.named_modules() if "_prunedge_pins" in module.__dict__)


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    if kind in _SUBCLASSES:
        return _SUBCLASSES[kind]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        pinning = pins_of(self)
        mode = _Pinned(pinning)
        with mode:
            out = kind.forward(self, *args, **kwargs)
        if mode.calls not in pinning.totals:
            raise GraphError(
                f"this pruned layer met {mode.calls} reshapes and factors and not {sorted(pinning.totals)}: its code took a way that it "
                "had not taken when it was pruned",
                where=kind.__name__, remedy="use it at the picture size and in the mode that it was pruned with",
            )  # fmt: skip
        return out

    made = type(kind.__name__, (kind,), {"forward": forward, "_prunedge_pinned": True, "__doc__": kind.__doc__})
    return _SUBCLASSES.setdefault(kind, made)


def _names_sizes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in _SHAPES or name in _SPLITS


def _makes_constants(func: Any) -> bool:
    return getattr(func, "__name__", "") in _CONSTANTS


def _with_constants(func: Any, args: Any, kwargs: Any, pins: Mapping[int, tuple[int, int]], pinning: Pinning) -> tuple[Any, Any]:
    """The arguments of `pad`, or of a call that makes a tensor of one number, with the pinned sizes."""
    name, kwargs = func.__name__, dict(kwargs)
    first = 1 if name == "pad" or name.startswith("new_") else 0
    keyword = next((word for word in ("pad", "size") if word in kwargs), None)
    several = keyword is None and isinstance(args[first], int)
    asked = list(kwargs[keyword]) if keyword is not None else list(args[first:] if several else args[first])
    now = list(asked)
    for place, (own, size) in pins.items():
        if place >= len(asked) or asked[place] not in (own, size):
            raise GraphError(
                f"this pruned layer made constants of the sizes {asked} where {own} was expected at place {place}: its code took a way "
                "that it had not taken when it was pruned",
                remedy="use it at the picture size and in the mode that it was pruned with",
            )
        now[place] = size
    pinning.needed |= now != asked
    if keyword is not None:
        return args, {**kwargs, keyword: now}
    return (*args[:first], now, *(() if several else args[first + 1 :])), kwargs


def _factor(func: Any, args: Any) -> float | None:
    return args[1] if len(args) > 1 and type(args[1]) is float and getattr(func, "__name__", "") in _FACTORS else None


def _with_sizes(func: Any, args: Any, kwargs: Any, pins: Mapping[int, tuple[int, int]], pinning: Pinning) -> tuple[Any, Any]:
    """The same call's arguments with the pinned sizes."""
    name, x = func.__name__, args[0]
    if name in _SPLITS:
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        asked = args[1] if len(args) > 1 else kwargs.get("split_size", kwargs.get("split_sizes", kwargs.get("split_size_or_sections")))
        now = [pins[place][1] for place in range(len(pins))]
        whole = sum(now)
        own = [min(asked, whole - start) for start in range(0, whole, asked)] if isinstance(asked, int) else list(asked)
        pinning.needed |= own != now
        return (x, now, dim), {}
    if name == "unflatten":
        dim, sizes = (args[1], args[2]) if len(args) > 2 else (kwargs["dim"], kwargs["sizes"])
        first = dim % x.dim()
        now = _pinned(sizes, {place - first: pair for place, pair in pins.items()})
        pinning.needed |= now != list(sizes)
        return (x, dim, now), {}
    named = kwargs.get("shape", kwargs.get("size"))
    sizes = named if named is not None else args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    now = _pinned(sizes, pins)
    pinning.needed |= now != list(sizes)
    return (x, now), {}


def _pinned(sizes: Any, pins: Mapping[int, tuple[int, int]]) -> list[Any]:
    found = list(sizes)
    for place, (own, now) in pins.items():
        if 0 <= place < len(found) and found[place] != -1:
            # Blocks may be folded into the batch, whose size is free: then it is a multiple of the traced one.
            folded = isinstance(found[place], int) and found[place] > own and found[place] % own == 0
            found[place] = found[place] // own * now if folded else now
    return found
