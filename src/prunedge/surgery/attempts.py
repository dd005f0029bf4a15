"""Attempts at a plan: cut in one way after another, until one is proven.

Most models can be cut as they are. Where code works sizes out from others, its module has to be
pinned (`prunedge.surgery.pins`); a `Strategy` says which modules are. The simplest comes first, and
where an attempt fails says what to pin next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.graph.sizes import pin, pinned_modules, pins_of, unpin
from prunedge.surgery.answers import precise
from prunedge.surgery.other_paths import misfits, off_the_traced_path, run_other_paths
from prunedge.surgery.pins import naming_any_sizes, naming_sizes, reading_sizes
from prunedge.surgery.slicing import cut
from prunedge.surgery.verify import DOUBLE, SINGLE, Precision, Proof, Verdict
from prunedge.utils.machine import pass_on

_GROWTHS = 3  # how often modules near to a failure are pinned, too


@dataclass(frozen=True)
class Strategy:
    """Which modules are pinned in an attempt, beside those whose channels the plan removes.

    `pinned` is None where not even those are. With `old_widths`, code that reads how wide channels
    are is given their width from before.
    """

    pinned: frozenset[str] | None
    old_widths: bool = False


@dataclass(frozen=True)
class Attempt:
    """What came of a strategy: the smaller model, None where it could not be proven, and why."""

    small: nn.Module | None
    verdict: Verdict
    strategy: Strategy


class Attempts:
    """Attempts at plans for one model; `count` says how many there were."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.count = 0
        self._model = model
        self._graph = graph
        self._proof = Proof(model, graph)
        self._order = {name: number for number, (name, _) in enumerate(model.named_modules())}
        self._last_failure = Verdict(0.0)

    def best(self, plan: Plan) -> Attempt:
        """The first attempt that can be proven; where none can, the one that came farthest.

        Of these the one that pins all is left out, unless it is the first: it pins more than it has
        a reason to.
        """
        best: Attempt | None = None
        for strategy in self._strategies(plan):
            attempt = self.attempt(plan, strategy)
            if attempt.small is not None:
                return self._fitted(plan, attempt, attempt.small)
            self._last_failure = attempt.verdict
            pins_all = strategy.pinned == naming_any_sizes(self._graph)
            if best is None or (not pins_all and self._reached(attempt) > self._reached(best)):
                best = attempt
        assert best is not None
        return best

    def attempt(self, plan: Plan, strategy: Strategy) -> Attempt:
        """The model after the plan, where it can be proven with this strategy."""
        self.count += 1
        pinned: set[str] = set()
        if strategy.pinned is not None:
            pinned = naming_sizes(self._graph, plan, off_path=False) | strategy.pinned
        old_widths: set[str] = set()
        if strategy.old_widths:
            old_widths = reading_sizes(self._graph, plan)

        small, verdict = self._proven(plan, pinned, old_widths, resize_pinned=False)
        if small is None and verdict.module in pinned:
            # Code that is pinned may compare its input with a number of heads that an attribute
            # holds.
            small, verdict = self._proven(plan, pinned, old_widths, resize_pinned=True)
        return Attempt(small, verdict, strategy)

    def _strategies(self, plan: Plan) -> Iterator[Strategy]:
        """The strategies in the order in which they are tried.

        No pins; modules whose channels the plan removes; more modules around each failure; all of
        them; widths from before. More modules are for code that takes a size from another tensor:
        the plan may remove channels of that, and none of the module's own.
        """
        yield Strategy(None)
        candidates = naming_any_sizes(self._graph)
        touched = naming_sizes(self._graph, plan, off_path=False)
        if touched:
            yield Strategy(frozenset())

        more: frozenset[str] = frozenset()
        for _ in range(_GROWTHS):
            grown = more | self._near_failure(candidates - touched, more)
            if grown == more:
                break
            more = grown
            yield Strategy(more)

        if candidates > touched | more:
            yield Strategy(candidates)
        if reading_sizes(self._graph, plan):
            yield Strategy(frozenset(), old_widths=True)

    def _near_failure(self, candidates: frozenset[str], known: frozenset[str]) -> frozenset[str]:
        """The innermost candidate around the last failure, and those written alike."""
        failed = self._last_failure.module
        around = [name for name in candidates - known if _contains(name, failed)]
        if not around:
            return frozenset()
        pattern = without_numbers(max(around, key=len))
        return frozenset(name for name in candidates if without_numbers(name) == pattern)

    def _reached(self, attempt: Attempt) -> int:
        """How far into the model an attempt came before it failed."""
        return self._order.get(attempt.verdict.module or "", -1)

    def _fitted(self, plan: Plan, attempt: Attempt, small: nn.Module) -> Attempt:
        """A proven attempt where other paths through the code fit it, too.

        Otherwise an attempt in which the modules that don't fit are pinned, or a failure.
        """
        unfit = misfits(small, self._model, self._graph, plan)
        if not unfit:
            return attempt

        first = attempt.strategy
        pinned = (first.pinned or frozenset()) | unfit.keys()
        strategies = [Strategy(pinned, first.old_widths)]
        if not first.old_widths and reading_sizes(self._graph, plan):
            strategies.append(Strategy(pinned, old_widths=True))

        failures: list[Attempt] = []
        for strategy in strategies:
            again = self.attempt(plan, strategy)
            if again.small is not None:
                unfit = misfits(again.small, self._model, self._graph, plan)
                if not unfit:
                    return again
                again = Attempt(None, _misfit(unfit), strategy)
            failures.append(again)
        return failures[0]

    def _proven(
        self, plan: Plan, pinned: set[str], old_widths: set[str], *, resize_pinned: bool
    ) -> tuple[nn.Module | None, Verdict]:
        """The model cut in this way; None where it can't be proven."""
        try:
            small = cut(
                self._model, self._graph, plan, pinned, old_widths, resize_pinned=resize_pinned
            )
        except GraphError as error:  # a module that can't be pinned
            return None, Verdict(float("inf"), str(error))
        verdict, checked = self._compared(small, plan)
        if verdict.why:
            return None, verdict
        _keep_needed_pins(small, checked)
        return small, verdict

    def _compared(self, small: nn.Module, plan: Plan) -> tuple[Verdict, nn.Module]:
        """The verdict on a smaller model, and the copy of it (or itself) that was run."""
        # Code that works sizes out from others may work out a scale too. In models whose attention
        # is still flat such a mistake hides under any tolerance that float32 needs.
        if any(True for _ in pinned_modules(small)):
            return self._compare(small, plan, DOUBLE)
        verdict, checked = self._compare(small, plan, SINGLE)
        if verdict.why and (verdict.rounding or self._proof.is_torn(plan)):
            return self._compare(small, plan, DOUBLE)
        return verdict, checked

    def _compare(
        self, small: nn.Module, plan: Plan, precision: Precision
    ) -> tuple[Verdict, nn.Module]:
        checked = precise(small, precision.dtype)

        def complete_pins(checked: nn.Module) -> None:
            self._complete_pins(checked, plan)

        try:
            verdict = self._proof.compare(checked, plan, precision, complete_pins)
        except Exception as error:  # whatever the user's forward raises
            pass_on(error)
            if precision is not DOUBLE:
                raise
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            why = f"can't be compared in double precision ({reason})"
            verdict = Verdict(float("inf"), why)
        return verdict, checked

    def _complete_pins(self, checked: nn.Module, plan: Plan) -> None:
        """Take other paths through the code, for what a single forward does not settle of the pins.

        Whatever is open then stays as it is.
        """
        pinned = dict(pinned_modules(checked))
        off_path = off_the_traced_path(self._graph, plan) & pinned.keys()
        if off_path:
            try:
                run_other_paths(checked, self._model, self._graph)
            except Exception as error:  # whatever the user's forward raises; `misfits` meets it too
                pass_on(error)
                for name in off_path:
                    pins_of(pinned[name]).needed = True
        for module in pinned.values():
            pins_of(module).close()


def without_numbers(name: str) -> str:
    """A path with its numbers replaced: `layers.3.attn` and `layers.4.attn` come to the same."""
    return re.sub(r"\d+", "*", name)


def _contains(module: str, inner: str | None) -> bool:
    """Whether a module is the other one, or holds it."""
    if inner is None:
        return False
    return module == "" or f"{inner}.".startswith(f"{module}.")


def _misfit(reasons: dict[str, str]) -> Verdict:
    name, reason = next(iter(reasons.items()))
    where = name or "the model"
    why = f"another way through the code of {where} does not fit any more ({reason})"
    return Verdict(float("inf"), why, name)


def _keep_needed_pins(small: nn.Module, checked: nn.Module) -> None:
    """Pin the smaller model as its checked copy is pinned; unpin modules that need no pins."""
    for name, module in list(pinned_modules(small)):
        pinning = pins_of(checked.get_submodule(name))
        if pinning.needed:
            pin(module, pinning)
        else:
            unpin(module)
