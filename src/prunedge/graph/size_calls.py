"""Calls that name sizes (reshapes, splits) or numbers (factors): found while tracing, and pinned in a smaller network.

Code such as `B, N, C = x.shape; qkv.reshape(B, N, 3, heads, C // heads)` works its sizes out from others that pruning changes
separately. No attribute of the module puts that right, so the sizes themselves are: a pinned module runs its own code, and the
calls that divide or join channels get the sizes that those channels have now. A factor worked out from a width,
`q * (C // heads) ** -0.5`, is brought back to what it was before.

A call is known by its place in the code, not by its number: training, a cache that is filled at the first picture, or one more
level of a pyramid may add calls before it. The place is the chain of positions in the source text from the module's own method
down to the call, `Attention.forward:7.8-7.51>split_heads:2.11-2.40`, lines counted from the first of each function. Calls in the
code of a child module are the child's.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import os
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from prunedge.errors import GraphError
from prunedge.graph.indexing import Picked, Positions, is_pick, picked, repicked, tensor_of
from prunedge.graph.width_reads import dims_read, is_read, told
from prunedge.utils.machine import pass_on


class Call(NamedTuple):
    """A call in a module's code: its place in the source text, and how often a forward has passed there before (from 0)."""

    site: str
    turn: int


class Pin(NamedTuple):
    """A size in a module's code: what its code says, and what it is now. Where a batch is folded into it, both grow with that."""

    own: int
    now: int


class Pick(NamedTuple):
    """Positions that a module's code picks along a dimension of this width now; `said`, by what its code says (None: not known yet).

    A module that is called for tensors of several widths has a pick for each.
    """

    width: int
    now: Positions
    said: tuple[int | None, ...] | None = None


Shape = tuple[int | None, ...]


class Watcher(Protocol):
    """Who is told of the calls that pick positions by numbers, before and after they are made."""

    def picks(self, site: tuple[str, Call], x: torch.Tensor, found: list[Picked], beyond: str) -> None:
        """A module's call is about to pick this of a tensor; `beyond` says why it can't be pinned, where it can't."""
        ...

    def picked(self, x: torch.Tensor, found: list[Picked], out: Any) -> None:
        """And this came out."""
        ...

    def names(self, site: tuple[str, Call], x: torch.Tensor, places: Mapping[int, int]) -> None:
        """A module's call is about to name sizes of a tensor's dimensions; place among them -> dimension."""
        ...

    def reads(self, site: tuple[str, str], x: torch.Tensor, dims: tuple[int, ...]) -> None:
        """A module's code reads the sizes of these dimensions of a tensor; `site` is the module and the place in its code."""
        ...


_DIVISIONS = {"tensor_split": None, "vsplit": 0, "hsplit": 1, "dsplit": 2}  # and the dimension that they divide
_SPLITS = {"split", "split_with_sizes", *_DIVISIONS}
_SHAPES = {"reshape", "view", "unflatten"}
# Calls that make constants beside channels. They are counted apart, below zero: code often pads where a picture's size asks for it,
# and whether such a call is the one that is meant, its own sizes say.
_CONSTANTS = {"pad", "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"}
# Calls that name channels, or blocks of them, among other numbers. Where torch's own layers make them, their attributes are mended.
_CONVOLUTIONS = {f"conv{turned}{rank}d" for turned in ("", "_transpose") for rank in (1, 2, 3)}
_SPREADS = {"expand", "broadcast_to"}
_NUMBERS = _CONVOLUTIONS | _SPREADS | {"layer_norm", "rms_norm", "group_norm"}
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
_TORCH = os.path.dirname(torch.__file__) + os.sep
_MODULE = nn.modules.module.__file__
_COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}  # one for each class, so that two pinned modules are still of one class
_POSITIONS: dict[tuple[int, int], tuple[CodeType, tuple[int, ...]]] = {}  # by the id of a code, which has to live on for that, and place


class _Thread(threading.local):
    """What is running in this thread: `uncounted` blocks, and the methods of pinned modules (by the modules' ids)."""

    def __init__(self) -> None:
        self.uncounted = 0
        self.pinned: Counter[int] = Counter()


_THREAD = _Thread()


@dataclass
class Pinning:
    """What a pinned module runs with.

    `picks` holds for each call that picks positions by numbers, and each dimension (from 0) that it picks along and width of it, those
    that it is to pick; `said` what its code has said since it was pinned.
    `reads` holds for each place in its code that reads the size of channels what it is told there: what that was before.
    `turns` says for each place in its code that names sizes or factors how often a forward may pass there. `factors` multiply the
    numbers that its code has worked out. `wanted` are those that the factors shall make, and `open` the sizes (call, place) of which
    it is not known yet what its code says; `settle` makes the ones factors and closes the others. `needed` tells whether its code
    has ever asked for anything else.
    """

    sizes: dict[Call, dict[int, Pin]]
    turns: Mapping[str, frozenset[int]]
    factors: dict[Call, float] = field(default_factory=dict)
    picks: dict[Call, dict[tuple[int, int], Pick]] = field(default_factory=dict)
    reads: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    wanted: dict[Call, float] = field(default_factory=dict)
    open: set[tuple[Call, int]] = field(default_factory=set)
    met: dict[Call, set[float]] = field(default_factory=dict)
    asked: dict[tuple[Call, int], int] = field(default_factory=dict)
    said: dict[tuple[Call, tuple[int, int]], tuple[int | None, ...]] = field(default_factory=dict)
    needed: bool = False

    def settle(self) -> None:
        """What was met is known from now on by what it differed by, so that what else it depends on may change."""
        for call, ratios in self.met.items():
            self.factors.pop(call, None)
            if len(ratios) == 1 and ratios != {1.0}:
                self.factors[call] = next(iter(ratios))
            self.wanted.pop(call, None)
        for (call, place), number in self.asked.items():
            self.sizes[call][place] = Pin(number, self.sizes[call][place].now)
            self.open.discard((call, place))
        for (call, key), said in self.said.items():
            self.picks[call][key] = self.picks[call][key]._replace(said=said)
        self.met, self.asked, self.said = {}, {}, {}

    def close(self) -> None:
        """No more is to be found out."""
        self.settle()
        self.wanted, self.open = {}, set()

    def alike(self, site: str) -> bool:
        """Whether each passage there is pinned in the same way, so that it may be passed any number of times."""
        passages = [self._at(Call(site, turn)) for turn in range(max(self.turns[site]))]
        return all(one == passages[0] for one in passages)

    def _at(self, call: Call) -> tuple[Any, ...]:
        wanted = self.wanted.get(call)
        number = None if wanted is None or math.isnan(wanted) else wanted
        picks = {key: one.now for key, one in self.picks.get(call, {}).items()}
        return dict(self.sizes.get(call, {})), self.factors.get(call, 1.0), number, picks


@contextmanager
def uncounted() -> Iterator[None]:
    """Code of our own that stands in for code whose calls tracing does not see."""
    _THREAD.uncounted += 1
    try:
        yield
    finally:
        _THREAD.uncounted -= 1


class SizedCalls(TorchFunctionMode):
    """Notes the calls that name sizes or factors in each module's code; `site` is the module and the call that is under way.

    `turns` holds for each module and place in its code how often its forwards have passed there; `factors` for each module the
    factors that its code has used, by call: NaN where they differed; `shapes` what its reshapes have come to: None where that differed;
    `reads` where its code reads sizes, and `divisors` the whole numbers that it multiplies or divides by.
    """

    def __init__(self, watcher: Watcher | None = None) -> None:
        super().__init__()
        self._watcher = watcher
        self.site: tuple[str, Call] | None = None
        self.turns: dict[str, dict[str, set[int]]] = {}
        self.factors: dict[str, dict[Call, float]] = {}
        self.shapes: dict[str, dict[Call, Shape]] = {}
        self.reads: dict[str, set[str]] = {}
        self.divisors: dict[str, set[int]] = {}
        self._running: list[tuple[str, Counter[str]]] = []
        self.enter("")

    @property
    def module(self) -> str:
        """The module whose forward is running."""
        return self._running[-1][0]

    def enter(self, module: str) -> None:
        """This module's forward begins."""
        self._running.append((module, Counter()))

    def leave(self) -> None:
        """The forward that began last ends."""
        module, passed = self._running.pop()
        turns = self.turns.setdefault(module, {})
        for site, times in passed.items():
            turns.setdefault(site, set()).add(times)

    def add(self, other: SizedCalls) -> None:
        """What another run has seen."""
        for module, sites in other.turns.items():
            turns = self.turns.setdefault(module, {})
            for site, times in sites.items():
                turns.setdefault(site, set()).update(times)
        for module, factors in other.factors.items():
            mine = self.factors.setdefault(module, {})
            for call, factor in factors.items():
                mine[call] = factor if mine.get(call, factor) == factor else math.nan
        for module, shapes in other.shapes.items():
            self.shapes[module] = {**shapes, **self.shapes.get(module, {})}
        for module, places in other.reads.items():
            self.reads.setdefault(module, set()).update(places)
        for module, divisors in other.divisors.items():
            self.divisors.setdefault(module, set()).update(divisors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_read(func):
            self._note_read(func, args, kwargs or {}, sys._getframe(1))
            return func(*args, **(kwargs or {}))
        factor = _factor(func, args)
        if factor is None and _divisor(func, args) and not _THREAD.uncounted:
            self.divisors.setdefault(self.module, set()).add(args[1])
        picks = is_pick(func)
        numbers = _names_numbers(func)
        known = factor is not None or picks or numbers or _names_sizes(func) or _makes_constants(func)
        if not known or _THREAD.uncounted:
            return func(*args, **(kwargs or {}))
        module, passed = self._running[-1]
        site = _site(sys._getframe(1))[0]
        if numbers and not site:
            return func(*args, **(kwargs or {}))  # in the code of torch's own layer
        call = Call(site, passed[site])
        passed[site] += 1
        if factor is not None:
            factors = self.factors.setdefault(module, {})
            factors[call] = factor if factors.get(call, factor) == factor else math.nan
        if picks:
            return self._watched(func, args, kwargs or {}, (module, call))
        if func.__name__ == "rms_norm" and self._watcher is not None:
            x, sizes = args[0], args[1] if len(args) > 1 else (kwargs or {})["normalized_shape"]
            self._watcher.names((module, call), x, {place: x.dim() - len(sizes) + place for place in range(len(sizes))})
            return func(*args, **(kwargs or {}))
        self.site = (module, call)
        try:
            out = _in_sizes(func, args, kwargs or {})
        finally:
            self.site = None
        if _names_sizes(func) and isinstance(out, torch.Tensor):
            self._note(self.shapes.setdefault(module, {}), call, tuple(out.shape))
        return out

    def _watched(self, func: Any, args: Any, kwargs: Any, site: tuple[str, Call]) -> Any:
        """A call that picks positions, of which the watcher is told."""
        if self._watcher is None:
            return func(*args, **kwargs)
        x, found = tensor_of(args, kwargs), picked(func, args, kwargs)
        self._watcher.picks(site, x, found, _beyond(sys._getframe(2)) if found else "")
        out = func(*args, **kwargs)
        self._watcher.picked(x, found, out)
        return out

    def _note_read(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> None:
        site = "" if _THREAD.uncounted or _is_torchs(func, frame) else _site(frame)[0]
        if not site:
            return
        self.reads.setdefault(self.module, set()).add(site)
        if self._watcher is not None:
            self._watcher.reads((self.module, site), args[0], dims_read(func, args[0], args, kwargs))

    @staticmethod
    def _note(shapes: dict[Call, Shape], call: Call, shape: Shape) -> None:
        before = shapes.get(call, shape)
        same = len(before) == len(shape)
        shapes[call] = tuple(a if a == b else None for a, b in zip(before, shape, strict=True)) if same else ()


class _Pinned(TorchFunctionMode):
    """Gives the calls of one forward their pinned sizes and factors."""

    def __init__(self, pinning: Pinning, module: nn.Module) -> None:
        super().__init__()
        self.root = 0  # the id of the frame that runs the module's method
        self.passed: Counter[str] = Counter()
        self._pinning, self._module = pinning, module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, pinning = kwargs or {}, self._pinning
        if is_read(func):
            return self._read(func, args, kwargs, sys._getframe(1))
        factor = _factor(func, args)
        is_constant = _makes_constants(func)
        recorded = factor is None and pinning.factors and _recorded_number(func, args)
        picks, numbers = is_pick(func), _names_numbers(func)
        known = factor is not None or recorded or picks or numbers or is_constant or _names_sizes(func)
        if not known or _THREAD.uncounted:
            return func(*args, **kwargs)
        site, boundary = _site(sys._getframe(1))
        if id(boundary) != self.root:
            return func(*args, **kwargs)  # in a child's code
        if is_constant and site not in pinning.turns:
            return func(*args, **kwargs)  # noise that training alone draws: nothing that tracing met depends on it
        if numbers and (not site or (site not in pinning.turns and not self._longer(site))):
            return func(*args, **kwargs)
        if recorded:
            if any(call.site == site for call in pinning.factors):
                return func(args[0], args[1] * pinning.factors.get(self._known(site), 1.0), *args[2:], **kwargs)
            return func(*args, **kwargs)
        if picks and site not in pinning.turns and not self._longer(site):
            self._check_pick(site, func, args, kwargs)
            return func(*args, **kwargs)
        call = self._known(site)
        if picks:
            if call in pinning.picks:
                args, kwargs = self._with_picks(site, func, args, kwargs, call)
            return func(*args, **kwargs)
        if factor is not None:
            wanted = pinning.wanted.get(call, math.nan)
            if factor and not math.isnan(wanted):
                pinning.met.setdefault(call, set()).add(wanted / factor)
                now = wanted
            else:
                now = factor * pinning.factors.get(call, 1.0)
            pinning.needed |= now != factor
            return func(args[0], now, *args[2:], **kwargs)
        if not pinning.sizes.get(call):
            return func(*args, **kwargs)
        if is_constant:
            args, kwargs = _with_constants(func, args, kwargs, call, pinning)
            return func(*args, **kwargs)
        if numbers:
            args, kwargs = _with_numbers(func, args, kwargs, call, pinning)
            return func(*args, **kwargs)
        args, kwargs = _with_sizes(func, args, kwargs, call, pinning)
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            pass_on(error)
            raise self._strange(site, f"met a tensor that its sizes do not fit ({error}) at a reshape or split") from error

    def _read(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> Any:
        """The sizes of a tensor, as the code is to see them."""
        out, reads = func(*args, **kwargs), self._pinning.reads
        if not reads or _THREAD.uncounted or _is_torchs(func, frame):
            return out
        site, boundary = _site(frame)
        if id(boundary) != self.root:
            return out  # in a child's code
        longer = [site] if site in reads else [one for one in reads if one.endswith(f">{site}")]
        if len(longer) != 1:
            return out
        found = told(func, out, args[0], args, kwargs, reads[longer[0]])
        self._pinning.needed |= bool(found != out)
        return found

    def _known(self, site: str) -> Call:
        """The call that tracing saw at this place and turn."""
        turns = self._pinning.turns
        if site not in turns:
            longer = self._longer(site)
            if len(longer) != 1:
                raise self._strange(site, "came to a reshape, split or factor")
            site = longer[0]
        turn = self.passed[site]
        self.passed[site] += 1
        if turn < max(turns[site]):
            return Call(site, turn)
        if not self._pinning.alike(site):
            raise self._strange(site, f"came {turn + 1} times to a reshape, split or factor")
        return Call(site, 0)

    def _longer(self, site: str) -> list[str]:
        """The places that tracing saw and that this may be: a method called by itself was called from within another one then."""
        return [one for one in self._pinning.turns if one.endswith(f">{site}")]

    def _with_picks(self, site: str, func: Any, args: Any, kwargs: Any, call: Call) -> tuple[Any, Any]:
        """The arguments of a call that picks positions, with those that it is to pick."""
        pinning, x = self._pinning, tensor_of(args, kwargs)
        pins = self._met(site, x, pinning.picks[call])
        if not torch.jit.is_tracing():  # which records sizes as tensors, that can't be compared
            found = {one.dim: one for one in picked(func, args, kwargs)}
            for dim, pin in pins.items():
                one = found.get(dim)
                pinning.needed |= one is None or one.positions != pin.now
                said = None if one is None else one.said
                if said is not None and pin.said is not None and said != pin.said:
                    raise self._strange(site, f"picked channels by the numbers {said} instead of {pin.said}")
                if said is not None:
                    pinning.said[call, (dim, pin.width)] = said
        return repicked(func, args, kwargs, {dim: pin.now for dim, pin in pins.items()})

    def _met(self, site: str, x: torch.Tensor, picks: dict[tuple[int, int], Pick]) -> dict[int, Pick]:
        """What to pick of a tensor of this shape, by dimension."""
        found: dict[int, Pick] = {}
        for dim in {dim for dim, _ in picks}:
            several = [pin for (along, _), pin in picks.items() if along == dim]
            if torch.jit.is_tracing() and len(several) == 1:
                found[dim] = several[0]
                continue
            fitting = picks.get((dim, int(x.shape[dim]))) if dim < x.dim() else None
            if fitting is None:
                widths = " or ".join(str(pin.width) for pin in several)
                raise self._strange(site, f"met a tensor of shape {tuple(x.shape)} where it picks among {widths} channels")
            found[dim] = fitting
        return found

    def _check_pick(self, site: str, func: Any, args: Any, kwargs: Any) -> None:
        """Complain where code that tracing has not seen picks some of as many positions as there are channels elsewhere."""
        widths = {width for pins in self._pinning.picks.values() for _, width in pins}
        x = tensor_of(args, kwargs)
        for one in picked(func, args, kwargs) if widths else ():
            if x.shape[one.dim] in widths:
                raise self._strange(site, f"picks some of {x.shape[one.dim]} places, which may be channels,")

    def finish(self) -> None:
        """Complain where a loop was shorter than it was when tracing, and which of its rounds were left out matters."""
        for site, times in self.passed.items():
            if times not in self._pinning.turns[site] and not self._pinning.alike(site):
                raise self._strange(site, f"came {times} times to a reshape, split or factor")

    def _strange(self, site: str, what: str) -> GraphError:
        return GraphError(
            f"this pruned layer {what} as it had not when it was pruned ({site}): its code took a way that it had not taken then, "
            "or has been changed since",
            where=type(self._module).__name__,
            remedy="use it at the picture size and in the mode that it was pruned with, or prune the network anew",
        )


def _site(frame: FrameType | None) -> tuple[str, FrameType | None]:
    """The place in the running module's code, and the frame in which that code was entered.

    torch's own functions on the way are left out, and comprehensions count as part of the function around them, as later Pythons
    compile them.
    """
    parts: list[str] = []
    inner: tuple[int, ...] | None = None
    while frame is not None:
        code = frame.f_code
        if id(code) in _BOUNDARIES:
            break
        if not code.co_filename.startswith(_TORCH) and code.co_filename != __file__:
            place = inner or _position(code, frame.f_lasti)
            if code.co_name in _COMPREHENSIONS:
                inner = place
            else:
                inner = None
                first = code.co_firstlineno
                parts.append(f"{code.co_qualname}:{place[0] - first}.{place[1]}-{place[2] - first}.{place[3]}")
        frame = frame.f_back
    return ">".join(reversed(parts)), frame


def _is_torchs(func: Any, frame: FrameType) -> bool:
    """Whether it is torch's own code that reads a size; `len` always comes by way of it."""
    return frame.f_code.co_filename.startswith(_TORCH) and func.__name__ != "__len__"


def _beyond(frame: FrameType | None) -> str:
    """Why a call under way can't be pinned: it is not made by the code of a module's own method; empty where it is."""
    running: list[CodeType] = []
    functions = {id(getattr(kind.forward, "__code__", None)) for kind in _kinds_of(torch.autograd.Function)}
    while frame is not None and id(frame.f_code) not in _BOUNDARIES:
        code = frame.f_code
        if id(code) in functions and not code.co_filename.startswith(_TORCH):
            return "by the code of an autograd function, whose backward knows its numbers"
        running.append(code)
        frame = frame.f_back
    if frame is None or frame.f_code is not nn.Module._call_impl.__code__:
        return ""
    forward = frame.f_locals["self"].forward
    codes = []
    while isinstance(forward, (FunctionType, MethodType)):
        codes.append(forward.__code__)
        forward = getattr(forward, "__wrapped__", None)
    return "in a hook" if codes and not any(code in running for code in codes) else ""


def _kinds_of(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds_of(below)


def _position(code: CodeType, instruction: int) -> tuple[int, ...]:
    """First line, column, last line, column of an instruction's source text."""
    key = (id(code), instruction)
    if key not in _POSITIONS:
        line, last, column, end = next(itertools.islice(code.co_positions(), instruction // 2, None))
        _POSITIONS[key] = (code, (line or 0, column or 0, last or 0, end or 0))
    return _POSITIONS[key][1]


def run_way(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a method of a module as though it were its forward: the places in its code begin with it."""
    return function(*args, **kwargs)


def _run_pinned(module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A method of a pinned module, with its sizes; a method that calls another one of the same module goes on as it is."""
    caller = sys._getframe(2).f_code.co_filename
    if _THREAD.pinned[id(module)] and caller != _MODULE:
        return function(module, *args, **kwargs)
    mode = _Pinned(pins_of(module), module)
    _THREAD.pinned[id(module)] += 1
    try:
        with mode:
            mode.root = id(sys._getframe())
            out = function(module, *args, **kwargs)
    finally:
        _THREAD.pinned[id(module)] -= 1
    mode.finish()
    return out


_BOUNDARIES = {id(one.__code__) for one in (nn.Module._call_impl, run_way, _run_pinned)}


def pin(module: nn.Module, pinning: Pinning) -> None:
    """Run this module's code with these sizes and factors from now on, in place; its class becomes a subclass of what it was.

    A forward that comes to a call of a kind that sizes are pinned for, at a place where tracing has not seen one, raises
    GraphError: the code took a way that is not known, and might go on with sizes from before.
    """
    own = module.__dict__.get("forward")
    if own is not None and not (isinstance(own, MethodType) and own.__self__ is module):
        raise GraphError(
            "sizes in its code would have to be pinned, and its forward was replaced by a function that is not its own",
            where=type(module).__name__, remedy="prune the network before its forward is replaced",
        )  # fmt: skip
    module.__dict__["_prunedge_pins"] = pinning
    if not hasattr(type(module), "_prunedge_pinned"):
        kind = type(module)
        module.__class__ = _subclass(kind)
        _rebind(module, kind)


def unpin(module: nn.Module) -> None:
    """Run this module's own code again."""
    kind = type(module)
    del module.__dict__["_prunedge_pins"]
    module.__class__ = kind.__mro__[1]
    _rebind(module, kind)


def _rebind(module: nn.Module, before: type[nn.Module]) -> None:
    """A forward that was set on the object (`m.forward = m.forward_split`) changes with the class, which was another one before."""
    own = module.__dict__.get("forward")
    if own is None:
        return
    function, name = own.__func__, own.__func__.__name__
    if getattr(before, name, None) is function:
        module.__dict__["forward"] = getattr(module, name)
    else:
        # A function from elsewhere, bound to the object.
        other = _pinned_method(function) if hasattr(type(module), "_prunedge_pinned") else function.__wrapped__
        module.__dict__["forward"] = MethodType(other, module)


def pins_of(module: nn.Module) -> Pinning:
    """What `pin` was told of this module; nothing where it was not pinned."""
    return module.__dict__.get("_prunedge_pins", Pinning({}, {}))


def pinned_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The pinned modules of a network, by path."""
    return ((name, module) for name, module in network.named_modules() if "_prunedge_pins" in module.__dict__)


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of pinned modules of a kind: whatever is called forward, also forward_features or forward_split, is pinned.

    Its objects are pickled and copied by their own class and pinned when they are made again, so that another process needs to know
    nothing of this one's classes.
    """
    if kind in _SUBCLASSES:
        return _SUBCLASSES[kind]
    members = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduced,
        "_prunedge_pinned": True,
    }
    for name in ways(kind):
        members[name] = _pinned_method(getattr(kind, name))
    made = types.new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(members))
    return _SUBCLASSES.setdefault(kind, made)


def ways(kind: type[nn.Module]) -> list[str]:
    """The methods of a class that run it: forward, and those whose names begin so."""
    names = (name for name in dir(kind) if name.startswith("forward"))
    return [name for name in names if isinstance(inspect.getattr_static(kind, name), FunctionType)]


def _pinned_method(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            # Compiled code has no places: this module runs as it is, between compiled pieces.
            return torch.compiler.disable(_run_pinned)(self, function, args, kwargs)
        return _run_pinned(self, function, args, kwargs)

    return method


def _reduced(self: nn.Module, protocol: Any) -> Any:
    """How its own class would be pickled, and pinned again after that."""
    made = type(self)
    kind = made.__mro__[1]
    how: Any = super(made, self).__reduce_ex__(protocol)
    if isinstance(how, str):
        return how
    function, args, *state = how
    args = tuple(kind if one is made else one for one in args)
    return (_again, (kind if function is made else function, args, self.__dict__.get("_prunedge_pins")), *state)


def _again(function: Callable[..., nn.Module], args: tuple[Any, ...], pinning: Pinning | None) -> nn.Module:
    """A pinned module that comes out of a pickle; its state is set afterwards."""
    module = function(*args)
    pin(module, pinning or Pinning({}, {}))
    return module


def _names_sizes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in _SHAPES or name in _SPLITS


def _names_numbers(func: Any) -> bool:
    return getattr(func, "__name__", "") in _NUMBERS


def _makes_constants(func: Any) -> bool:
    return getattr(func, "__name__", "") in _CONSTANTS


def _with_constants(func: Any, args: Any, kwargs: Any, call: Call, pinning: Pinning) -> tuple[Any, Any]:
    """The arguments of `pad`, or of a call that makes a tensor of one number, with the pinned sizes."""
    name, kwargs = func.__name__, dict(kwargs)
    first = 1 if name == "pad" or name.startswith("new_") else 0
    keyword = next((word for word in ("pad", "size") if word in kwargs), None)
    several = keyword is None and isinstance(args[first], int)
    asked = list(kwargs[keyword]) if keyword is not None else list(args[first:] if several else args[first])
    now = list(asked)
    for place, (own, size) in pinning.sizes[call].items():
        # A negative pad cuts off channels, as many as it says.
        number = abs(asked[place]) if place < len(asked) else None
        if (call, place) in pinning.open and number is not None:
            pinning.asked[call, place] = number
        elif number not in (own, size):
            raise GraphError(
                f"this pruned layer made constants of the sizes {asked} where {own} was expected at place {place}: its code took a way "
                "that it had not taken when it was pruned",
                remedy="use it at the picture size and in the mode that it was pruned with",
            )
        now[place] = -size if asked[place] < 0 else size
    pinning.needed |= now != asked
    if keyword is not None:
        return args, {**kwargs, keyword: now}
    return (*args[:first], now, *(() if several else args[first + 1 :])), kwargs


def _factor(func: Any, args: Any) -> float | None:
    return args[1] if len(args) > 1 and type(args[1]) is float and getattr(func, "__name__", "") in _FACTORS else None


def _divisor(func: Any, args: Any) -> bool:
    return len(args) > 1 and type(args[1]) is int and getattr(func, "__name__", "") in _FACTORS


def _with_sizes(func: Any, args: Any, kwargs: Any, call: Call, pinning: Pinning) -> tuple[Any, Any]:
    """The same call's arguments with the pinned sizes."""
    name, x, pins = func.__name__, tensor_of(args, kwargs), pinning.sizes[call]
    if name in _SPLITS:
        now = [pins[place].now for place in range(len(pins))]
        if name in _DIVISIONS:
            dim = _divided(func, x, args, kwargs)
            pinning.needed |= _parts_of(x, args, kwargs, dim) != now
            bounds = list(itertools.accumulate(now[:-1]))
            return (x, bounds, dim) if name == "tensor_split" else (x, bounds), {}
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        asked = args[1] if len(args) > 1 else kwargs.get("split_size", kwargs.get("split_sizes", kwargs.get("split_size_or_sections")))
        whole = sum(now)
        if isinstance(asked, int):
            pinning.needed |= [min(asked, whole - start) for start in range(0, whole, asked)] != now
        elif isinstance(asked, (tuple, list)):
            pinning.needed |= len(asked) != len(now) or _differ(now, asked)
        return (x, now, dim), {}
    if name == "unflatten":
        dim, sizes = (args[1], args[2]) if len(args) > 2 else (kwargs["dim"], kwargs["sizes"])
        now = _pinned(sizes, call, pinning, dim % x.dim())
        pinning.needed |= _differ(now, sizes)
        return (x, dim, now), {}
    named = kwargs.get("shape", kwargs.get("size"))
    sizes = named if named is not None else args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    now = _pinned(sizes, call, pinning)
    pinning.needed |= _differ(now, sizes)
    return (x, now), {}


def _in_sizes(func: Any, args: Any, kwargs: Any) -> Any:
    """The call itself; a `tensor_split` as the split into sizes that it is, of which torch tells who watches its operations."""
    if func.__name__ not in _DIVISIONS:
        return func(*args, **kwargs)
    x = tensor_of(args, kwargs)
    dim = _divided(func, x, args, kwargs)
    sizes = _parts_of(x, args, kwargs, dim)
    return func(*args, **kwargs) if sizes is None else x.split(sizes, dim)


def _divided(func: Any, x: torch.Tensor, args: Any, kwargs: Any) -> int:
    """The dimension that `tensor_split` or its like divides."""
    dim = _DIVISIONS[func.__name__]
    if dim is None:
        return int(args[2] if len(args) > 2 else kwargs.get("dim", 0))
    return min(dim, x.dim() - 1)


def _parts_of(x: torch.Tensor, args: Any, kwargs: Any, dim: int) -> list[int] | None:
    """The sizes that `tensor_split` makes; None where they are no plain parts one after the other."""
    words = ("indices_or_sections", "sections", "indices", "tensor_indices_or_sections")
    asked = args[1] if len(args) > 1 else next(kwargs[word] for word in words if word in kwargs)
    if isinstance(asked, torch.Tensor):
        asked = asked.tolist()
    size = x.shape[dim]
    if isinstance(asked, int):
        return [size // asked + (place < size % asked) for place in range(asked)]
    bounds = [0, *(min(bound, size) for bound in asked), size]
    sizes = [end - start for start, end in itertools.pairwise(bounds)]
    return None if min(bounds) < 0 or min(sizes) < 0 else sizes


def _with_numbers(func: Any, args: Any, kwargs: Any, call: Call, pinning: Pinning) -> tuple[Any, Any]:
    """The same call's arguments with the pinned sizes of a norm or an expansion, or numbers of groups."""
    name, kwargs = func.__name__, dict(kwargs)
    if name in _SPREADS:
        named = kwargs.get("size")
        sizes = named if named is not None else args[1] if isinstance(args[1], (tuple, list)) else args[1:]
        now = _pinned(sizes, call, pinning)
        pinning.needed |= _differ(now, sizes)
        return (tensor_of(args, kwargs), now), {}
    place, word = (6, "groups") if name in _CONVOLUTIONS else (1, "num_groups" if name == "group_norm" else "normalized_shape")
    asked = args[place] if len(args) > place else kwargs.get(word, 1)
    several = isinstance(asked, (tuple, list))
    now = _pinned(asked if several else [asked], call, pinning)
    pinning.needed |= _differ(now, asked if several else [asked])
    found = now if several else now[0]
    if len(args) > place:
        return (*args[:place], found, *args[place + 1 :]), kwargs
    return args, {**kwargs, word: found}


def _differ(now: list[Any], sizes: Any) -> bool:
    """Whether any of these sizes is another one; those that export or torch.jit.trace leave open are taken for the same."""
    pairs = zip(now, sizes, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def _pinned(sizes: Any, call: Call, pinning: Pinning, first: int = 0) -> list[Any]:
    """The sizes with the pinned ones among them, whose places count from `first`."""
    found = list(sizes)
    for place, pin in pinning.sizes[call].items():
        if not 0 <= place - first < len(found):
            continue
        size = found[place - first]
        if isinstance(size, torch.SymInt):
            # Sizes of channels are plain numbers to torch.export: a batch is in this one.
            found[place - first] = size * pin.now // pin.own
        elif (number := int(size)) != -1:
            # Blocks may be folded into the batch, whose size is free.
            grown = pin.own > 0 and number * pin.now % pin.own == 0
            if number == pin.own or not grown or (call, place) in pinning.open:
                found[place - first] = pin.now
            else:
                found[place - first] = size * pin.now // pin.own
            if (call, place) in pinning.open:
                pinning.asked[call, place] = number
    return found


def _recorded_number(func: Any, args: Any) -> bool:
    """Whether this is a factor that torch.jit.trace records: a tensor then, since sizes are."""
    if getattr(func, "__name__", "") not in _FACTORS or not torch.jit.is_tracing():
        return False
    return len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].dim() == 0
