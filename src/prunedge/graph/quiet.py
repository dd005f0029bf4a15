"""Running somebody's network without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Afterwards each module's mode and the state of the random numbers are as before; attention runs as its code says meanwhile."""
    modes = {module: module.training for module in network.modules()}
    devices = sorted({x.device.index for x in network.parameters() if x.device.type == "cuda"})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Afterwards the attributes and buffers of each module are as before: what it noted of an input (anchors, masks) is forgotten."""
    modules = list(network.modules())
    attributes = [dict(vars(module)) for module in modules]
    held = [{name: dict(own[name]) for name in ("_parameters", "_buffers", "_modules")} for own in attributes]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for module, own, tables in zip(modules, attributes, held, strict=True):
            for name, before in tables.items():
                own[name].clear()
                own[name].update(before)
            vars(module).clear()
            vars(module).update(own)
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)
