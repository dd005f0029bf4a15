"""Faint parameters: fresh gates, layer scales and heads of zeros hide what they multiply.

Behind them nothing shows, and a wrong cut would pass. In the proof they are made loud for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

_FAINT = 1e-3  # parameters below it all over are faint
_LOUD = 0.1  # the scale of the values that stand in for them


def loud_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """Values to stand in for the parameters that are next to nothing all over."""
    generator = torch.Generator().manual_seed(0)
    loud = {}
    for name, parameter in model.named_parameters():
        if _is_faint(parameter):
            values = torch.randn(parameter.shape, generator=generator) * _LOUD
            loud[name] = values.to(parameter.device)
    return loud


def _is_faint(parameter: nn.Parameter) -> bool:
    is_plain = parameter.layout is torch.strided and not parameter.is_meta
    if not (parameter.is_floating_point() and parameter.numel() and is_plain):
        return False
    values = parameter.detach()
    first = values[(0,) * values.dim()]
    if abs(float(first)) >= _FAINT:  # spares looking at all of most parameters
        return False
    return float(values.float().abs().max()) < _FAINT


@contextmanager
def swapped(model: nn.Module, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While inside, these parameters have these values."""
    if not values:
        yield
        return
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in values}
    _copy_into(parameters, values)
    try:
        yield
    finally:
        _copy_into(parameters, before)


def _copy_into(parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
