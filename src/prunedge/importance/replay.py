"""Run a model again from some layer on: the outputs of those before it are replayed from memory."""

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
# From a layer's input, and what it gave for it when it was recorded, what it shall give instead.
Instead = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(eq=False)
class _Call:
    """One call of a module.

    `begin` and `end` count the beginnings and ends of all calls; `output` is a copy of what it
    gave, and `changed_by` are the calls whose code writes to that in place later.
    """

    module: nn.Module
    begin: int
    end: int = 0
    output: Any = None
    changed_by: list[_Call] = field(default_factory=list)


class Replay:
    """Records what each module of a model gives for a batch, and replays it up to a chosen call.

    Between the calls the code runs as ever, so any model works whose control flow does not depend
    on its values. Results that code writes to in place are given as copies wherever that code will
    run again.
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
        # What the call that ended last gave, its version then, and its copy.
        self._last: tuple[Any, int, Any] = (None, 0, None)

    @contextmanager
    def attached(self) -> Iterator[Replay]:
        """Wrap the forward of each module while the context lasts."""
        modules = [module for module in self._model.modules() if module is not self._model]
        before = {module: module.__dict__.get("forward") for module in modules}
        for module in modules:
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
        """Remember all that the model's modules give while `run` runs it; gives what that gave.

        `run` may run the model more than once.
        """
        self._forget()
        with self._changes:
            output = run()
        self._root.end = self._clock
        self._last = (None, 0, None)
        return output

    def run(self, run: Callable[[], T], start: int, instead: Instead | None = None) -> T:
        """Run the model from the event `start` (of `starts`) on.

        Calls that ended before it are replayed. `run` is that of `record`.

        Where `start` is the call of `module(start)` itself, `instead` may give its result, from its
        input and what it gave when it was recorded: nothing before it has changed.
        """
        self._clock = 0
        self._start = start
        self._instead = instead
        return run()

    def module(self, start: int) -> nn.Module | None:
        """The module whose call begins at this event, if one does that calls no other."""
        call = self._calls.get(start)
        return call.module if call is not None and call.end == call.begin + 1 else None

    def starts(self) -> dict[str, int]:
        """For each parameter the event at which it is first used.

        That is the first call of a module that holds it, or of a module around that.

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

        starts = {}
        for name, parameter in self._model.named_parameters():
            paths = holders[id(parameter)]
            starts[name] = min(_nearest(path, modules, first) for path in paths)
        return starts

    @property
    def bytes(self) -> int:
        """What is held in memory."""
        held: dict[int, int] = {}
        for call in self._calls.values():
            for x in tensors(call.output):
                held[x.data_ptr()] = x.nbytes
        return sum(held.values())

    def _wrapped(self, module: nn.Module, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._start is None:
                return self._recorded(_Call(module, self._clock), forward, args, kwargs)
            call = self._calls[self._clock]
            if call.end < self._start:
                self._clock = call.end + 1
                will_change = any(other.end >= self._start for other in call.changed_by)
                return _copied(call.output) if will_change else call.output

            self._clock += 1
            is_start = call.begin == self._start and len(args) == 1 and not kwargs
            if is_start and self._instead is not None:
                output = self._instead(args[0], call.output)
            else:
                output = forward(*args, **kwargs)
            self._clock += 1
            return output

        return run

    def _recorded(self, call: _Call, forward: Any, args: Any, kwargs: Any) -> Any:
        self._calls[call.begin] = call
        self._clock += 1
        self._stack.append(call)
        output = forward(*args, **kwargs)
        self._stack.pop()
        call.end = self._clock
        self._clock += 1
        # A container gives what its last layer gave: no second copy.
        last_output, last_version, last_copy = self._last
        version = output._version if isinstance(output, torch.Tensor) else -1
        is_same = output is last_output and version == last_version
        call.output = last_copy if is_same else _copied(output)
        self._last = (output, version, call.output)
        self._changes.own(call, output)
        return output


class _Changes(TorchDispatchMode):
    """A dispatch mode that notes in-place writes to calls' results, and in whose code they are."""

    def __init__(self, stack: list[_Call]) -> None:
        super().__init__()
        self._stack = stack
        self._calls: dict[int, list[_Call]] = {}  # by the address of what they gave

    def own(self, call: _Call, output: Any) -> None:
        """Note what this call gave."""
        for x in tensors(output):
            self._calls.setdefault(x.untyped_storage().data_ptr(), []).append(call)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                is_written = argument.alias_info is not None and argument.alias_info.is_write
                if is_written and isinstance(value, torch.Tensor):
                    for call in self._calls.get(value.untyped_storage().data_ptr(), ()):
                        call.changed_by.append(self._stack[-1])
        return func(*args, **(kwargs or {}))


def _nearest(path: str, modules: dict[str, nn.Module], first: dict[nn.Module, int]) -> int:
    """The first call of the module of this path, or of the innermost module around it; else 0."""
    while path and modules.get(path) not in first:
        path = path.rpartition(".")[0]
    return first[modules[path]] if path else 0


def _copied(output: Any) -> Any:
    return moved(output, torch.clone)
