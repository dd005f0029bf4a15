"""A function mode that notes the calls that name sizes, positions or factors in a running model."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from prunedge.graph.sizes.kinds import (
    factor_of,
    is_by_whole_number,
    is_noted,
    names_numbers,
    names_sizes,
    run_in_sizes,
)
from prunedge.graph.sizes.picks import Picked, is_pick, picked, tensor_of
from prunedge.graph.sizes.pinning import CodeCall, Shape
from prunedge.graph.sizes.reads import dims_read, is_own_read, is_read
from prunedge.graph.sizes.sites import THREAD, beyond, site_of


class Watcher(Protocol):
    """Callbacks for the calls that name sizes or pick positions, before and after they are made."""

    def picks(
        self, site: tuple[str, CodeCall], x: torch.Tensor, picked: list[Picked], beyond: str
    ) -> None:
        """A module's call is about to pick this of a tensor.

        `beyond` says why it can't be pinned, where it can't.
        """
        ...

    def picked(self, x: torch.Tensor, picked: list[Picked], out: Any) -> None:
        """The call has picked this of a tensor, and gave `out`."""
        ...

    def names(self, site: tuple[str, CodeCall], x: torch.Tensor, dims: Mapping[int, int]) -> None:
        """A module's call is about to name sizes of a tensor: index among them -> dimension."""
        ...

    def reads(self, site: tuple[str, str], x: torch.Tensor, dims: tuple[int, ...]) -> None:
        """A module's code reads the sizes of these dimensions; `site`: the module and the site."""
        ...


class SizedCalls(TorchFunctionMode):
    """Notes the calls that name sizes or factors in each module's code.

    `site` is the module and the call that is under way. `visits` holds for each module and site in
    its code how often its forwards have passed there; `factors` for each module the factors that
    its code has used, by call: NaN where they differed; `shapes` what its reshapes have come to:
    None where that differed; `reads` the sites where its code reads sizes, and `divisors` the whole
    numbers that it multiplies or divides by.
    """

    def __init__(self, watcher: Watcher | None = None) -> None:
        super().__init__()
        self._watcher = watcher
        self.site: tuple[str, CodeCall] | None = None
        self.visits: dict[str, dict[str, set[int]]] = {}
        self.factors: dict[str, dict[CodeCall, float]] = {}
        self.shapes: dict[str, dict[CodeCall, Shape]] = {}
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
        visits = self.visits.setdefault(module, {})
        for site, times in passed.items():
            visits.setdefault(site, set()).add(times)

    def add(self, other: SizedCalls) -> None:
        """Add what another run has seen."""
        for module, sites in other.visits.items():
            visits = self.visits.setdefault(module, {})
            for site, times in sites.items():
                visits.setdefault(site, set()).update(times)
        for module, factors in other.factors.items():
            for call, factor in factors.items():
                self._note_factor(module, call, factor)
        for module, shapes in other.shapes.items():
            self.shapes[module] = {**shapes, **self.shapes.get(module, {})}
        for module, read_sites in other.reads.items():
            self.reads.setdefault(module, set()).update(read_sites)
        for module, divisors in other.divisors.items():
            self.divisors.setdefault(module, set()).update(divisors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_read(func):
            self._note_read(func, args, kwargs, sys._getframe(1))
            return func(*args, **kwargs)
        if THREAD.uncounted:
            return func(*args, **kwargs)
        if is_by_whole_number(func, args):
            self.divisors.setdefault(self.module, set()).add(args[1])

        factor = factor_of(func, args)
        if factor is None and not is_noted(func):
            return func(*args, **kwargs)
        site, _ = site_of(sys._getframe(1))
        if names_numbers(func) and not site:
            return func(*args, **kwargs)  # in the code of torch's own layer

        module, passed = self._running[-1]
        call = CodeCall(site, passed[site])
        passed[site] += 1
        if factor is not None:
            self._note_factor(module, call, factor)
        if is_pick(func):
            return self._pick(func, args, kwargs, (module, call))
        if func.__name__ == "rms_norm" and self._watcher is not None:
            self._note_norm(args, kwargs, (module, call))
            return func(*args, **kwargs)

        self.site = (module, call)
        try:
            out = run_in_sizes(func, args, kwargs)
        finally:
            self.site = None
        if names_sizes(func) and isinstance(out, torch.Tensor):
            self._note_shape(module, call, tuple(out.shape))
        return out

    def _pick(self, func: Any, args: Any, kwargs: Any, site: tuple[str, CodeCall]) -> Any:
        """Make a call that picks positions, and tell the watcher."""
        if self._watcher is None:
            return func(*args, **kwargs)
        x = tensor_of(args, kwargs)
        positions = picked(func, args, kwargs)
        self._watcher.picks(site, x, positions, beyond(sys._getframe(2)) if positions else "")
        out = func(*args, **kwargs)
        self._watcher.picked(x, positions, out)
        return out

    def _note_norm(self, args: Any, kwargs: Any, site: tuple[str, CodeCall]) -> None:
        """`rms_norm` decomposes into operations that name no sizes: the call itself names them."""
        x = args[0]
        sizes = args[1] if len(args) > 1 else kwargs["normalized_shape"]
        first = x.dim() - len(sizes)
        dims = {index: first + index for index in range(len(sizes))}
        assert self._watcher is not None
        self._watcher.names(site, x, dims)

    def _note_read(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> None:
        is_known = not THREAD.uncounted and is_own_read(func, frame)
        site = site_of(frame)[0] if is_known else ""
        if not site:
            return
        self.reads.setdefault(self.module, set()).add(site)
        if self._watcher is not None:
            dims = dims_read(func, args[0], args, kwargs)
            self._watcher.reads((self.module, site), args[0], dims)

    def _note_factor(self, module: str, call: CodeCall, factor: float) -> None:
        factors = self.factors.setdefault(module, {})
        factors[call] = factor if factors.get(call, factor) == factor else math.nan

    def _note_shape(self, module: str, call: CodeCall, shape: Shape) -> None:
        shapes = self.shapes.setdefault(module, {})
        before = shapes.get(call, shape)
        if len(before) != len(shape):
            shapes[call] = ()
            return
        pairs = zip(before, shape, strict=True)
        shapes[call] = tuple(old if old == new else None for old, new in pairs)
