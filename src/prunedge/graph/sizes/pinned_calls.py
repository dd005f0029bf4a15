"""A function mode that gives the calls of a pinned module's code their pinned sizes and factors."""

from __future__ import annotations

import math
import sys
from collections import Counter
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from prunedge.errors import GraphError
from prunedge.graph.sizes.arguments import with_constants, with_numbers, with_sizes
from prunedge.graph.sizes.kinds import (
    factor_of,
    is_noted,
    is_recorded_factor,
    makes_constants,
    names_numbers,
)
from prunedge.graph.sizes.picks import Picked, is_pick, picked, tensor_of
from prunedge.graph.sizes.pinning import CodeCall, Pick, Pinning
from prunedge.graph.sizes.reads import is_own_read, is_read, widths_for_code
from prunedge.graph.sizes.repicks import repicked
from prunedge.graph.sizes.sites import THREAD, site_of, uncounted
from prunedge.utils.machine import pass_on


class PinnedCalls(TorchFunctionMode):
    """Gives the calls of one forward their pinned sizes and factors."""

    def __init__(self, pinning: Pinning, module: nn.Module) -> None:
        super().__init__()
        self.root = 0  # the id of the frame that runs the module's method
        self.passed: Counter[str] = Counter()
        self._pinning = pinning
        self._module = module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_read(func):
            return self._read(func, args, kwargs, sys._getframe(1))
        if THREAD.uncounted:
            return func(*args, **kwargs)
        factor = factor_of(func, args)
        is_recorded = factor is None and self._pinning.factors and is_recorded_factor(func, args)
        if factor is None and not is_recorded and not is_noted(func):
            return func(*args, **kwargs)

        site, boundary = site_of(sys._getframe(1))
        if id(boundary) != self.root:
            return func(*args, **kwargs)  # in a child's code
        if is_recorded:
            return self._multiply_recorded(func, args, kwargs, site)
        if not self._is_met(func, args, kwargs, site):
            return func(*args, **kwargs)
        call = self._known(site)
        if is_pick(func):
            return self._pick(func, args, kwargs, call, site)
        if factor is not None:
            return self._multiply(func, args, kwargs, call)
        if not self._pinning.sizes.get(call):
            return func(*args, **kwargs)
        return self._resize(func, args, kwargs, call, site)

    def _is_met(self, func: Any, args: Any, kwargs: Any, site: str) -> bool:
        """Whether tracing came here, as far as it had to."""
        is_known = site in self._pinning.visits
        if makes_constants(func):
            # Noise that training alone draws: nothing that tracing met depends on it.
            return is_known
        if names_numbers(func):
            return bool(site) and (is_known or bool(self._longer(site)))
        if is_pick(func) and not is_known and not self._longer(site):
            self._check_pick(site, func, args, kwargs)
            return False
        return True

    def _multiply_recorded(self, func: Any, args: Any, kwargs: Any, site: str) -> Any:
        """A factor that torch.jit.trace records as a tensor."""
        factors = self._pinning.factors
        if not any(call.site == site for call in factors):
            return func(*args, **kwargs)
        now = args[1] * factors.get(self._known(site), 1.0)
        return func(args[0], now, *args[2:], **kwargs)

    def _multiply(self, func: Any, args: Any, kwargs: Any, call: CodeCall) -> Any:
        pinning = self._pinning
        factor = args[1]
        wanted = pinning.wanted.get(call, math.nan)
        if factor and not math.isnan(wanted):
            pinning.met.setdefault(call, set()).add(wanted / factor)
            now = wanted
        else:
            now = factor * pinning.factors.get(call, 1.0)
        pinning.needed |= now != factor
        return func(args[0], now, *args[2:], **kwargs)

    def _resize(self, func: Any, args: Any, kwargs: Any, call: CodeCall, site: str) -> Any:
        """Make a call that names sizes, with the pinned ones."""
        if makes_constants(func):
            args, kwargs = with_constants(func, args, kwargs, call, self._pinning)
            return func(*args, **kwargs)
        if names_numbers(func):
            args, kwargs = with_numbers(func, args, kwargs, call, self._pinning)
            return func(*args, **kwargs)
        args, kwargs = with_sizes(func, args, kwargs, call, self._pinning)
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            pass_on(error)
            what = f"met a tensor that its sizes do not fit ({error}) at a reshape or split"
            raise self._strange(site, what) from error

    def _read(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> Any:
        """The sizes of a tensor, as the code is to see them."""
        out = func(*args, **kwargs)
        reads = self._pinning.reads
        if not reads or THREAD.uncounted or not is_own_read(func, frame):
            return out
        site, boundary = site_of(frame)
        if id(boundary) != self.root:
            return out  # in a child's code
        candidates = [site]
        if site not in reads:
            candidates = [known for known in reads if known.endswith(f">{site}")]
        if len(candidates) != 1:
            return out
        before = widths_for_code(func, out, args[0], args, kwargs, reads[candidates[0]])
        self._pinning.needed |= bool(before != out)
        return before

    def _known(self, site: str) -> CodeCall:
        """The call that tracing saw at this site and passage."""
        visits = self._pinning.visits
        if site not in visits:
            longer = self._longer(site)
            if len(longer) != 1:
                raise self._strange(site, "came to a reshape, split or factor")
            site = longer[0]
        visit = self.passed[site]
        self.passed[site] += 1
        if visit < max(visits[site]):
            return CodeCall(site, visit)
        if not self._pinning.alike(site):
            raise self._strange(site, f"came {visit + 1} times to a reshape, split or factor")
        return CodeCall(site, 0)

    def _longer(self, site: str) -> list[str]:
        """The sites that tracing saw and that this may be.

        A method that is called by itself was called from within another method then.
        """
        return [known for known in self._pinning.visits if known.endswith(f">{site}")]

    def _pick(self, func: Any, args: Any, kwargs: Any, call: CodeCall, site: str) -> Any:
        """Make a call that picks positions, with those that it is to pick."""
        picks = self._pinning.picks
        if call not in picks:
            return func(*args, **kwargs)
        pins = self._pins_for(site, tensor_of(args, kwargs), picks[call])
        if not torch.jit.is_tracing():  # which records sizes as tensors, that can't be compared
            self._note_picks(pins, picked(func, args, kwargs), call, site)
        now = {dim: pin.now for dim, pin in pins.items()}
        with uncounted():
            args, kwargs = repicked(func, args, kwargs, now)
        return func(*args, **kwargs)

    def _note_picks(
        self, pins: dict[int, Pick], asked: list[Picked], call: CodeCall, site: str
    ) -> None:
        """Note what the code names, and complain where these are other numbers than before."""
        by_dim = {pick.dim: pick for pick in asked}
        for dim, pin in pins.items():
            pick = by_dim.get(dim)
            self._pinning.needed |= pick is None or pick.positions != pin.now
            if pick is None or pick.literal is None:
                continue
            if pin.literal is not None and pick.literal != pin.literal:
                numbers = f"{pick.literal} instead of {pin.literal}"
                raise self._strange(site, f"picked channels by the numbers {numbers}")
            self._pinning.literals[call, (dim, pin.width)] = pick.literal

    def _pins_for(
        self, site: str, x: torch.Tensor, picks: dict[tuple[int, int], Pick]
    ) -> dict[int, Pick]:
        """What to pick of a tensor of this shape, by dimension."""
        pins: dict[int, Pick] = {}
        for dim in {dim for dim, _ in picks}:
            candidates = [pin for (along, _), pin in picks.items() if along == dim]
            if torch.jit.is_tracing() and len(candidates) == 1:
                pins[dim] = candidates[0]
                continue

            fitting = picks.get((dim, int(x.shape[dim]))) if dim < x.dim() else None
            if fitting is None:
                shape = tuple(x.shape)
                widths = " or ".join(str(pin.width) for pin in candidates)
                what = f"met a tensor of shape {shape} where it picks among {widths} channels"
                raise self._strange(site, what)
            pins[dim] = fitting
        return pins

    def _check_pick(self, site: str, func: Any, args: Any, kwargs: Any) -> None:
        """Complain where unknown code picks some of as many positions as there are channels."""
        widths: set[int] = set()
        for pins in self._pinning.picks.values():
            widths.update(width for _, width in pins)
        if not widths:
            return
        x = tensor_of(args, kwargs)
        for pick in picked(func, args, kwargs):
            size = x.shape[pick.dim]
            if size in widths:
                raise self._strange(site, f"picks some of {size} places, which may be channels,")

    def finish(self) -> None:
        """Complain where a loop was shorter than when tracing, and what it left out matters."""
        for site, times in self.passed.items():
            if times not in self._pinning.visits[site] and not self._pinning.alike(site):
                raise self._strange(site, f"came {times} times to a reshape, split or factor")

    def _strange(self, site: str, what: str) -> GraphError:
        return GraphError(
            f"this pruned layer {what} as it had not when it was pruned ({site}): its code took a "
            "way that it had not taken then, or has been changed since",
            where=type(self._module).__name__,
            remedy="use it at the image size and in the mode that it was pruned with, or prune "
            "the model anew",
        )
