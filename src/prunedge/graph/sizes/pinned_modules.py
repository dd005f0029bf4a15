"""Modules whose code runs with pinned sizes: of a subclass of their own class."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph.sizes.pinned_calls import PinnedCalls
from prunedge.graph.sizes.pinning import Pinning
from prunedge.graph.sizes.sites import THREAD, boundary

_MODULE = nn.modules.module.__file__
# One for each class, so that two pinned modules are still of one class.
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def pin(module: nn.Module, pinning: Pinning) -> None:
    """Run this module's code with these sizes and factors from now on, in place.

    Its class becomes a subclass of what it was. A forward that comes to a call of a kind that sizes
    are pinned for, at a place where tracing has not seen one, raises GraphError: the code took a
    way that is not known, and might go on with sizes from before.
    """
    own = module.__dict__.get("forward")
    if own is not None and not (isinstance(own, MethodType) and own.__self__ is module):
        raise GraphError(
            "sizes in its code would have to be pinned, and its forward was replaced by a function "
            "that is not its own",
            where=type(module).__name__,
            remedy="prune the model before its forward is replaced",
        )
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


def pins_of(module: nn.Module) -> Pinning:
    """What this module is pinned to; nothing where it was not pinned."""
    return module.__dict__.get("_prunedge_pins", Pinning({}, {}))


def pinned_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The pinned modules of a model, by path."""
    for name, module in model.named_modules():
        if "_prunedge_pins" in module.__dict__:
            yield name, module


def forward_methods(kind: type[nn.Module]) -> list[str]:
    """The methods of a class that run it: forward, and those whose names begin so."""
    names = (name for name in dir(kind) if name.startswith("forward"))
    return [name for name in names if isinstance(inspect.getattr_static(kind, name), FunctionType)]


def _rebind(module: nn.Module, before: type[nn.Module]) -> None:
    """A forward that was set on the object (`m.forward = m.forward_split`) changes with the class.

    `before` is the class that the module had.
    """
    own: Any = module.__dict__.get("forward")
    if own is None:
        return
    function = own.__func__
    name = function.__name__
    if getattr(before, name, None) is function:
        module.__dict__["forward"] = getattr(module, name)
        return
    # A function from elsewhere, bound to the object.
    is_pinned = hasattr(type(module), "_prunedge_pinned")
    other = _pinned_method(function) if is_pinned else function.__wrapped__
    module.__dict__["forward"] = MethodType(other, module)


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of pinned modules of a kind.

    Whatever is called forward, also forward_features or forward_split, is pinned. Its objects are
    pickled and copied by their own class and pinned when they are made again, so that another
    process needs to know nothing of this one's classes.
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
    for name in forward_methods(kind):
        members[name] = _pinned_method(getattr(kind, name))
    subclass = types.new_class(
        kind.__name__, (kind,), exec_body=lambda space: space.update(members)
    )
    return _SUBCLASSES.setdefault(kind, subclass)


def _pinned_method(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            # Compiled code has no sites: this module runs as it is, between compiled pieces.
            return torch.compiler.disable(_run_pinned)(self, function, args, kwargs)
        return _run_pinned(self, function, args, kwargs)

    return method


@boundary
def _run_pinned(module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a method of a pinned module, with its sizes.

    A method that is called by another method of the same module runs under the mode of that one.
    """
    caller = sys._getframe(2).f_code.co_filename
    if THREAD.pinned[id(module)] and caller != _MODULE:
        return function(module, *args, **kwargs)
    mode = PinnedCalls(pins_of(module), module)
    THREAD.pinned[id(module)] += 1
    try:
        with mode:
            mode.root = id(sys._getframe())
            out = function(module, *args, **kwargs)
    finally:
        THREAD.pinned[id(module)] -= 1
    mode.finish()
    return out


def _reduced(self: nn.Module, protocol: Any) -> Any:
    """How its own class would be pickled, and pinned again after that."""
    subclass = type(self)
    kind = subclass.__mro__[1]
    reduced: Any = super(subclass, self).__reduce_ex__(protocol)
    if isinstance(reduced, str):
        return reduced

    function, args, *state = reduced
    if function is subclass:
        function = kind
    args = tuple(kind if argument is subclass else argument for argument in args)
    pinning = self.__dict__.get("_prunedge_pins")
    return (_again, (function, args, pinning), *state)


def _again(
    function: Callable[..., nn.Module], args: tuple[Any, ...], pinning: Pinning | None
) -> nn.Module:
    """A pinned module that comes out of a pickle; its state is set afterwards."""
    module = function(*args)
    pin(module, pinning or Pinning({}, {}))
    return module
