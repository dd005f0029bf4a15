"""The blocks of a model, in the order in which images pass them: what `freeze` leaves as it is, and
what `layer_decay` counts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.graph.preserve import undisturbed
from prunedge.models.cost import evaluating
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

log = logging.getLogger(__name__)

FEWEST = 5  # a model in fewer parts is looked into


@dataclass(frozen=True)
class Block:
    """A part of a model: the name of its module, and the names of its parameters.

    Parameters that lie between two modules with layers of their own (a batch norm behind a
    convolution) belong to the one before.
    """

    name: str
    parameters: tuple[str, ...]


def blocks_of(model: nn.Module, images: torch.Tensor) -> tuple[Block, ...]:
    """The blocks of a model in the order in which `images` (N, 3, H, W) pass them; the last one is
    its head, or what the head lies in.

    These are the model's children that hold layers (convolutions, linear layers). As long as there
    are fewer than five and one holds more than half of all layers, that one's children take its
    place: a ResNet has conv1, layer1, ..., fc; a VGG its convolutions one by one, then its
    classifier. `model` stays as it was.
    """
    order = _order_of_use(model, images)
    names = sorted(_opened(model), key=lambda name: _first_use(name, order))
    if not names:
        return ()

    held: dict[str, list[str]] = {name: [] for name in names}
    current = names[0]
    placed = set()
    for module_name in order:
        current = _block_around(module_name, names) or current
        for parameter in _own_parameters(model, module_name):
            if parameter not in placed:
                placed.add(parameter)
                held[current].append(parameter)
    return tuple(Block(name, tuple(parameters)) for name, parameters in held.items())


@contextlib.contextmanager
def frozen_blocks(model: nn.Module, blocks: tuple[Block, ...], count: int) -> Iterator[None]:
    """While inside, the parameters of the first `count` blocks want no gradient; afterwards each is
    as it was. TrainError where no block would be left to train.
    """
    refuse_too_many(blocks, count)
    frozen = blocks[:count]
    if frozen:
        log.debug("frozen: %s", ", ".join(block.name for block in frozen))
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for block in frozen for name in block.parameters]
    wanted = [parameter.requires_grad for parameter in chosen]
    for parameter in chosen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wants in zip(chosen, wanted, strict=True):
            parameter.requires_grad_(wants)


def refuse_too_many(blocks: tuple[Block, ...], count: int) -> None:
    """TrainError where so many frozen blocks leave none to train."""
    if not count or count < len(blocks):
        return
    names = ", ".join(block.name for block in blocks)
    what = f"{option('freeze', count)} leaves nothing to train"
    most = len(blocks) - 1
    raise TrainError(
        f"{what}: the model has {counted(len(blocks), 'block')} ({names})",
        remedy=f"give {most} at the most",
    )


def rate_shares(blocks: tuple[Block, ...], decay: float) -> dict[str, float]:
    """By what the learning rate of each parameter is multiplied (layer-wise decay: BEiT, Bao et al.
    2022; timm's `param_groups_layer_decay`): 1 in the last block, `decay` in the one before it, and
    so on.
    """
    shares = {}
    for place, block in enumerate(blocks):
        share = decay ** (len(blocks) - 1 - place)
        shares.update(dict.fromkeys(block.parameters, share))
    return shares


def _opened(model: nn.Module) -> list[str]:
    """The names of the modules that are the model's blocks."""
    names = _children_with_layers(model, "")
    while 0 < len(names) < FEWEST:
        sizes = {name: _count_layers(model.get_submodule(name)) for name in names}
        largest = max(names, key=lambda name: sizes[name])
        inside = _children_with_layers(model.get_submodule(largest), f"{largest}.")
        if not inside or 2 * sizes[largest] <= sum(sizes.values()):
            break
        place = names.index(largest)
        names[place : place + 1] = inside
    return names


def _children_with_layers(module: nn.Module, prefix: str) -> list[str]:
    children = module.named_children()
    return [f"{prefix}{name}" for name, child in children if _count_layers(child)]


def _count_layers(module: nn.Module) -> int:
    """How many modules in this one hold a weight of two dimensions or more."""
    weights = (getattr(part, "weight", None) for part in module.modules())
    return sum(isinstance(weight, torch.Tensor) and weight.ndim > 1 for weight in weights)


def _order_of_use(model: nn.Module, images: torch.Tensor) -> list[str]:
    """The names of all modules in the order in which they are called first; one that is never
    called stands behind the one that was defined before it.
    """
    names = [name for name, _ in model.named_modules()]
    called: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if name not in called:
                called.append(name)

        return hook

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            handle = module.register_forward_pre_hook(note(name))
            stack.callback(handle.remove)
        with undisturbed(model), evaluating(model), torch.no_grad():
            model(images)

    order = list(called)
    before = ""
    for name in names:
        if name not in called:
            order.insert(order.index(before) + 1 if before in order else 0, name)
        before = name
    return order


def _first_use(block: str, order: list[str]) -> int:
    return next(place for place, name in enumerate(order) if _is_inside(name, block))


def _block_around(module: str, blocks: list[str]) -> str | None:
    return next((block for block in blocks if _is_inside(module, block)), None)


def _is_inside(module: str, block: str) -> bool:
    return module == block or module.startswith(f"{block}.")


def _own_parameters(model: nn.Module, module: str) -> list[str]:
    """The names of the parameters that a module holds itself, as the model names them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own = model.get_submodule(module).parameters(recurse=False)
    return [names[id(parameter)] for parameter in own]
