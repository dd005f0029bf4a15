"""Weights that code passes to torch's functions without calling their layer (torchvision's Swin).

A function mode sees them where torch's `linear` or attention is called with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prunedge.graph import ChannelGraph
from prunedge.importance.consumers import Tap

# Called with a reader's key, its taps and what it reads; gives what it shall read.
Meet = Callable[["HiddenKey", tuple[Tap, ...], torch.Tensor], torch.Tensor]


# The inputs of torch's attention -> the arguments that hold their weights, where these are apart.
_SEPARATE_WEIGHTS = {"query": "q_proj_weight", "key": "k_proj_weight", "value": "v_proj_weight"}


@dataclass(frozen=True)
class HiddenKey:
    """A weight that code uses without calling its layer."""

    weight: str


@dataclass(frozen=True)
class _Reader:
    """A weight that reads channels, its name, and the taps at its input."""

    weight: torch.Tensor
    name: str
    taps: list[Tap]


class HiddenReaders(TorchFunctionMode):
    """Inside, calls `meet` with the inputs of weights that code passes to torch by themselves.

    `handed` is what the layer that is being called reads: its hook has seen that already.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, meet: Meet) -> None:
        super().__init__()
        self.handed: torch.Tensor | None = None
        self._meet = meet
        self._inside: list[bool] = []
        self._readers: dict[int, _Reader] = {}
        parameters = dict(model.named_parameters())
        for group in graph.groups:
            for number, consumed in enumerate(group.having("in")):
                name = consumed.tensor
                weight = parameters.get(name)
                if weight is None or weight.dim() != 2 or consumed.dim != 1:
                    continue
                reader = self._readers.setdefault(id(weight), _Reader(weight, name, []))
                reader.taps.append(Tap(group.name, number, torch.as_tensor(consumed.indices)))

    @property
    def has_any(self) -> bool:
        """Whether there are weights that could be passed to torch by themselves."""
        return bool(self._readers)

    def enter(self, wanted: bool) -> None:
        """The model's forward begins."""
        self._inside.append(wanted)
        if wanted:
            self.__enter__()

    def leave(self, *_: Any) -> None:
        """It ends, or has failed."""
        self.handed = None
        if self._inside and self._inside.pop():
            self.__exit__(None, None, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return self._linear(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._attention(func, inspect.signature(func).bind(*args, **kwargs))
        return func(*args, **kwargs)

    def _linear(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if x is self.handed:  # a layer's own call, which its hook has seen
            self.handed = None
            return functional.linear(x, weight, bias)
        return functional.linear(self._read(x, weight), weight, bias)

    def _attention(self, func: Any, bound: inspect.BoundArguments) -> Any:
        arguments = bound.arguments
        if arguments.get("use_separate_proj_weight"):
            for name, weight in _SEPARATE_WEIGHTS.items():
                arguments[name] = self._read(arguments[name], arguments[weight])
        else:
            # A tensor that is query, key and value stays the same tensor: torch looks for that, and
            # its gradient is the sum over all three.
            read: dict[int, torch.Tensor] = {}
            inputs = {name: arguments[name] for name in _SEPARATE_WEIGHTS}
            for name, x in inputs.items():
                if id(x) not in read:
                    read[id(x)] = self._read(x, arguments["in_proj_weight"])
                arguments[name] = read[id(x)]

        weight = arguments["out_proj_weight"]
        bias = arguments["out_proj_bias"]
        if self._reader_of(weight) is None:
            return func(*bound.args, **bound.kwargs)

        # The output projection is done here: its input is what attention gives with the identity as
        # projection.
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        arguments["out_proj_weight"] = identity
        arguments["out_proj_bias"] = None
        out, weights = func(*bound.args, **bound.kwargs)
        return functional.linear(self._read(out, weight), weight, bias), weights

    def _read(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """What a weight shall read in the place of `x`."""
        reader = self._reader_of(weight)
        if reader is None:
            return x
        return self._meet(HiddenKey(reader.name), tuple(reader.taps), x)

    def _reader_of(self, weight: Any) -> _Reader | None:
        """The reader of this weight, or of the weight of which this is a slice of rows."""
        if not isinstance(weight, torch.Tensor):
            return None
        if id(weight) in self._readers or weight._base is None:
            return self._readers.get(id(weight))
        whole = weight._base
        reader = self._readers.get(id(whole))
        if reader is None:
            return None
        if weight.dim() != 2 or weight.stride() != whole.stride():
            return None
        if weight.shape[1] != whole.shape[1]:
            return None
        offset = weight.storage_offset() - whole.storage_offset()
        return reader if offset % whole.stride(0) == 0 else None
