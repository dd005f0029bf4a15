"""Run a model again from some layer on: what comes before is played back from memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunedge.importance.batch import moved, tensors

T = TypeVar("T")
Instead = Callable[
    [torch.Tensor, torch.Tensor], torch.Tensor
]  # a layer's input, and what it gave for it when it was recorded


@dataclass(eq=False)
class _Call:
    """One call of a module: its place among all beginnings and ends of calls, a copy of what it
    gave, and whose code changes that later.
    """

    module: nn.Module
    begin: int
    end: int = 0
    output: Any = None
    changed_by: list[_Call] = field(default_factory=list)


class Replay:
    """Records what each module of a model gives for a batch, and plays it back up to a chosen
    call.

    Between the calls the code runs as ever, so any model works whose way does not depend on its
    values. Results that code changes in place are handed out as copies wherever that code will run
    again.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._forget()

    def _forget(self) -> None:
        self._root = _Call(self._model, -1)
        self._calls: dict[int, _Call] = {}
        self._stack = [self._root]
        self._clock = 0
        self._changes = _Changes(self._stack)
        self._start: int | None = None
        self._instead: Instead | None = None
        self._last: tuple[Any, int, Any] = (
            None,
            0,
            None,
        )  # what the call that ended last gave, its version then, and its copy

    @contextmanager
    def attached(self) -> Iterator[Replay]:
        """Watch the model while the context lasts."""
        watched = [module for module in self._model.modules() if module is not self._model]
        before = {module: module.__dict__.get("forward") for module in watched}
        for module in watched:
            module.__dict__["forward"] = self._wrapped(module, module.forward)
        try:
            yield self
        finally:
            for module, own in before.items():
                del module.__dict__["forward"]
                if own is not None:
                    module.__dict__["forward"] = own
            self._forget()

    def record(self, run: Callable[[], T]) -> T:
        """Remember all that the model's modules give while this runs it (once or several times);
        gives what that gave.
        """
        self._forget()
        with self._changes:
            output = run()
        self._root.end = self._clock
        self._last = (None, 0, None)
        return output

    def run(self, run: Callable[[], T], start: int, instead: Instead | None = None) -> T:
        """Run the model from the event `start` (of `starts`) on; calls that ended before it are
        played back. `run` is that of `record`.

        Where `start` is the call of `module(start)` itself, `instead` may give its result, from its
        input and what it gave when it was recorded: nothing before it has changed.
        """
        self._clock, self._start, self._instead = 0, start, instead
        return run()

    def module(self, start: int) -> nn.Module | None:
        """The module whose call begins at this event, if one does that calls no other."""
        call = self._calls.get(start)
        return call.module if call is not None and call.end == call.begin + 1 else None

    def starts(self) -> dict[str, int]:
        """For each parameter the event at which it is first used: the first call of a module that
        holds it, or of one around it.

        A parameter that only the model's own code uses has 0: nothing comes before it.
        """
        first: dict[nn.Module, int] = {}
        for call in self._calls.values():
            first[call.module] = min(first.get(call.module, call.begin), call.begin)
        modules = dict(self._model.named_modules(remove_duplicate=False))
        holders: dict[int, list[str]] = {}
        for path, module in modules.items():
            for parameter in module.parameters(recurse=False):
                holders.setdefault(id(parameter), []).append(path)
        return {
            name: min(_nearest(path, modules, first) for path in holders[id(parameter)])
            for name, parameter in self._model.named_parameters()
        }

    @property
    def bytes(self) -> int:
        """What is held in memory."""
        held = {
            x.data_ptr(): x.nbytes for call in self._calls.values() for x in tensors(call.output)
        }
        return sum(held.values())

    def _wrapped(self, module: nn.Module, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._start is None:
                return self._remembered(_Call(module, self._clock), forward, args, kwargs)
            call = self._calls[self._clock]
            if call.end < self._start:
                self._clock = call.end + 1
                again = any(other.end >= self._start for other in call.changed_by)
                return _copied(call.output) if again else call.output
            self._clock += 1
            is_first = (
                call.begin == self._start
                and self._instead is not None
                and len(args) == 1
                and not kwargs
            )
            output = self._instead(args[0], call.output) if is_first else forward(*args, **kwargs)  # type: ignore[misc]
            self._clock += 1
            return output

        return run

    def _remembered(self, call: _Call, forward: Any, args: Any, kwargs: Any) -> Any:
        self._calls[call.begin] = call
        self._clock += 1
        self._stack.append(call)
        output = forward(*args, **kwargs)
        self._stack.pop()
        call.end = self._clock
        self._clock += 1
        # A container gives what its last layer gave: no second copy.
        given, version, copy = self._last
        now = output._version if isinstance(output, torch.Tensor) else -1
        call.output = copy if output is given and now == version else _copied(output)
        self._last = (output, now, call.output)
        self._changes.own(call, output)
        return output


class _Changes(TorchDispatchMode):
    """Notes which calls' results are changed in place, and in whose code."""

    def __init__(self, stack: list[_Call]) -> None:
        super().__init__()
        self._stack = stack
        self._homes: dict[int, list[_Call]] = {}

    def own(self, call: _Call, output: Any) -> None:
        """This call gave this."""
        for x in tensors(output):
            self._homes.setdefault(x.untyped_storage().data_ptr(), []).append(call)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if (
                    argument.alias_info is not None
                    and argument.alias_info.is_write
                    and isinstance(value, torch.Tensor)
                ):
                    for call in self._homes.get(value.untyped_storage().data_ptr(), ()):
                        call.changed_by.append(self._stack[-1])
        return func(*args, **(kwargs or {}))


def _nearest(path: str, modules: dict[str, nn.Module], first: dict[nn.Module, int]) -> int:
    while path and modules.get(path) not in first:
        path = path.rpartition(".")[0]
    return first[modules[path]] if path else 0


def _copied(output: Any) -> Any:
    return moved(output, torch.clone)
