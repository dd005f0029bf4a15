"""Where a model reads the channels of each group: the inputs of the linear layers and
convolutions that consume them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, Group, Slice

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Tap:
    """One reading of a group: columns (channels, k) int64 of a consumer's input features; `place`
    numbers the group's consumers.
    """

    group: str
    place: int
    columns: torch.Tensor
    _copies: dict[torch.device, torch.Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def columns_on(self, device: torch.device) -> torch.Tensor:
        """The columns on this device: copied to it once, since a GPU waits for each copy until all
        that it was given is done.
        """
        if device not in self._copies:
            self._copies[device] = self.columns.to(device)
        return self._copies[device]

    def read(self, z: torch.Tensor, features: int) -> torch.Tensor:
        """Each channel's values in what its consumer reads: `z` (rows, ...), channels along
        `features` -> (rows, channels, k * places).
        """
        by_feature = z.movedim(features, 1).unsqueeze(2).flatten(2)  # (rows, features, places)
        if self.columns.shape == (by_feature.shape[1], 1) and bool(
            (self.columns[:, 0] == torch.arange(len(self.columns))).all()
        ):
            return by_feature  # the usual case: nothing to pick, and no copy of the map
        columns = self.columns_on(z.device)
        return by_feature[:, columns.reshape(-1)].reshape(len(z), len(columns), -1)


def taps(model: nn.Module, graph: ChannelGraph) -> dict[nn.Module, list[Tap]]:
    """For each layer that consumes channels, the taps at its input. Weights that other code uses by
    themselves have none.
    """
    found: dict[nn.Module, list[Tap]] = {}
    for group in graph.groups:
        for place, part in enumerate(group.having("in")):
            module = consumer(model, part)
            if module is not None:
                found.setdefault(module, []).append(
                    Tap(group.name, place, _columns(module, part, group))
                )
    return found


def readings(model: nn.Module, graph: ChannelGraph) -> dict[nn.Module, list[Tap]]:
    """As `taps`, for all layers that read channels: also those with a parametrised weight, and
    those that share another's weight.
    """
    sharing: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            sharing.setdefault(id(weight), []).append(module)
    parameters = dict(model.named_parameters())
    found: dict[nn.Module, list[Tap]] = {}
    for group in graph.groups:
        for place, part in enumerate(group.having("in")):
            first = consumer(model, part) or _parametrised(model, part)
            layers = sharing.get(
                id(parameters.get(part.tensor)), [first] if first is not None else []
            )
            for module in layers:
                found.setdefault(module, []).append(
                    Tap(group.name, place, _columns(module, part, group))
                )
    return found


def consumer(model: nn.Module, part: Slice) -> nn.Module | None:
    """The linear layer or convolution whose input is what this weight consumes; None where the
    weight is used by other code.
    """
    path, _, leaf = part.tensor.rpartition(".")
    module = model.get_submodule(path)
    return module if leaf == "weight" and isinstance(module, (nn.Linear, *CONVOLUTIONS)) else None


def _parametrised(model: nn.Module, part: Slice) -> nn.Module | None:
    """The layer whose weight is worked out from this one, of the same shape (weight and spectral
    norm, torch's parametrisations).
    """
    path, _, leaf = part.tensor.rpartition(".")
    if leaf in ("weight_v", "weight_orig"):
        layer = model.get_submodule(path)
    elif leaf.startswith("original") and path.endswith("parametrizations.weight"):
        layer = model.get_submodule(path.removesuffix("parametrizations.weight").rstrip("."))
    else:
        return None
    if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
        return None
    with torch.no_grad():
        return layer if layer.weight.shape == model.get_parameter(part.tensor).shape else None


def feature_dim(module: nn.Module, z: torch.Tensor) -> int:
    """The dimension of a consumer's input that holds the channels. Convolutions also take a single
    example, without its dimension.
    """
    return (
        z.dim() - 1 - len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else z.dim() - 1
    )


def scales_of(model: nn.Module, group: Group) -> list[tuple[str, torch.Tensor]]:
    """The scales of the norms that a group's channels pass: names, and the (channels, k) int64
    places that belong to each channel.
    """
    parts = [part for part in group.having("channel") if part.tensor.endswith("weight")]
    return [
        (part.tensor, torch.as_tensor(part.indices))
        for part in parts
        if isinstance(model.get_submodule(part.tensor.rpartition(".")[0]), _NORMS)
    ]


def refuse_without_norms(
    model: nn.Module,
    graph: ChannelGraph,
    reader: str,
    remedy: str = "use another, such as taylor",
) -> None:
    """PrunedgeError when no channel of the graph passes a norm that scales it: `reader`, which
    reads these scales, has nothing to read.
    """
    if any(scales_of(model, group) for group in graph.groups):
        return
    if any(isinstance(module, _NORMS) for module in model.modules()):
        why = "none of this model's scales a channel that could be pruned"
    else:
        why = "this model has none"
    raise PrunedgeError(f"{reader} reads batch norms, and {why}", remedy=remedy)


def _columns(module: nn.Module, part: Slice, group: Group) -> torch.Tensor:
    """Which input features of a consumer belong to each channel, (channels, k) int64."""
    if not isinstance(module, nn.modules.conv._ConvNd):
        return torch.as_tensor(part.indices)
    width = module.in_channels // module.groups
    blocks = np.arange(module.groups) * width
    spread = part.indices[:, :, None] + (blocks if part.dim == 1 else np.zeros(1, dtype=np.int64))
    return torch.as_tensor(spread.reshape(group.size, -1))
