"""The consumers of each group's channels: linear layers and convolutions, and their inputs."""

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
    """A consumer's input features that are a group's channels.

    `columns` (channels, k) int64 are the features of each channel; `number` counts the group's
    consumers from 0.
    """

    group: str
    number: int
    columns: torch.Tensor
    _copies: dict[torch.device, torch.Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def columns_on(self, device: torch.device) -> torch.Tensor:
        """The columns on this device, copied to it once: a copy makes a GPU finish its queue."""
        if device not in self._copies:
            self._copies[device] = self.columns.to(device)
        return self._copies[device]

    def read(self, z: torch.Tensor, features: int) -> torch.Tensor:
        """Each channel's values in what its consumer reads.

        `z` (examples, ...) with the features along the dimension `features` -> (examples, channels,
        k * positions).
        """
        by_feature = z.movedim(features, 1).unsqueeze(2).flatten(2)
        if self._takes_all(by_feature.shape[1]):
            return by_feature  # the usual case: nothing to pick, and no copy of the map
        columns = self.columns_on(z.device)
        return by_feature[:, columns.reshape(-1)].reshape(len(z), len(columns), -1)

    def _takes_all(self, features: int) -> bool:
        """Whether each of a consumer's features is the channel of that number."""
        if self.columns.shape != (features, 1):
            return False
        return bool((self.columns[:, 0] == torch.arange(features)).all())


def taps(model: nn.Module, graph: ChannelGraph) -> dict[nn.Module, list[Tap]]:
    """For each layer that consumes channels, the taps at its input.

    Weights that other code uses by themselves have none.
    """
    by_layer: dict[nn.Module, list[Tap]] = {}
    for group in graph.groups:
        for number, consumed in enumerate(group.having("in")):
            layer = consumer(model, consumed)
            if layer is not None:
                tap = Tap(group.name, number, _columns(layer, consumed, group))
                by_layer.setdefault(layer, []).append(tap)
    return by_layer


def readings(model: nn.Module, graph: ChannelGraph) -> dict[nn.Module, list[Tap]]:
    """As `taps`, for all layers that read channels.

    Also for those with a parametrised weight, and those that share another layer's weight.
    """
    by_weight = _layers_by_weight(model)
    parameters = dict(model.named_parameters())
    by_layer: dict[nn.Module, list[Tap]] = {}
    for group in graph.groups:
        for number, consumed in enumerate(group.having("in")):
            layers = by_weight.get(id(parameters.get(consumed.tensor)))
            if layers is None:
                layer = consumer(model, consumed) or _parametrised(model, consumed)
                layers = [] if layer is None else [layer]
            for layer in layers:
                tap = Tap(group.name, number, _columns(layer, consumed, group))
                by_layer.setdefault(layer, []).append(tap)
    return by_layer


def _layers_by_weight(model: nn.Module) -> dict[int, list[nn.Module]]:
    """The linear layers and convolutions that hold each weight, by the weight's id."""
    layers: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            layers.setdefault(id(weight), []).append(module)
    return layers


def consumer(model: nn.Module, consumed: Slice) -> nn.Module | None:
    """The linear layer or convolution whose input is what this weight consumes.

    None where the weight is used by other code.
    """
    path, _, leaf = consumed.tensor.rpartition(".")
    module = model.get_submodule(path)
    if leaf == "weight" and isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        return module
    return None


def _parametrised(model: nn.Module, consumed: Slice) -> nn.Module | None:
    """The layer whose weight is worked out from this one, of the same shape.

    Weight and spectral norm, torch's parametrisations.
    """
    path, _, leaf = consumed.tensor.rpartition(".")
    if leaf in ("weight_v", "weight_orig"):
        layer = model.get_submodule(path)
    elif leaf.startswith("original") and path.endswith("parametrizations.weight"):
        layer = model.get_submodule(path.removesuffix("parametrizations.weight").rstrip("."))
    else:
        return None
    if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
        return None
    with torch.no_grad():
        is_same_shape = layer.weight.shape == model.get_parameter(consumed.tensor).shape
    return layer if is_same_shape else None


def feature_dim(module: nn.Module, z: torch.Tensor) -> int:
    """The dimension of a consumer's input that holds the channels.

    Convolutions also take a single example, without its dimension.
    """
    if isinstance(module, CONVOLUTIONS):
        return z.dim() - 1 - len(module.kernel_size)
    return z.dim() - 1


def scales_of(model: nn.Module, group: Group) -> list[tuple[str, torch.Tensor]]:
    """The scales of the norms that a group's channels pass.

    Names, and the indices (channels, k) int64 that belong to each channel.
    """
    scales = []
    for own in group.having("channel"):
        path, _, leaf = own.tensor.rpartition(".")
        if leaf.endswith("weight") and isinstance(model.get_submodule(path), _NORMS):
            scales.append((own.tensor, torch.as_tensor(own.indices)))
    return scales


def refuse_without_norms(
    model: nn.Module,
    graph: ChannelGraph,
    reader: str,
    remedy: str = "use another, such as taylor",
) -> None:
    """PrunedgeError when no channel of the graph passes a norm that scales it.

    `reader`, which reads these scales, has nothing to read.
    """
    if any(scales_of(model, group) for group in graph.groups):
        return
    if any(isinstance(module, _NORMS) for module in model.modules()):
        why = "none of this model's scales a channel that could be pruned"
    else:
        why = "this model has none"
    raise PrunedgeError(f"{reader} reads batch norms, and {why}", remedy=remedy)


def _columns(module: nn.Module, consumed: Slice, group: Group) -> torch.Tensor:
    """Which input features of a consumer belong to each channel, (channels, k) int64."""
    if not isinstance(module, nn.modules.conv._ConvNd):
        return torch.as_tensor(consumed.indices)

    starts = np.zeros(1, dtype=np.int64)
    if consumed.dim == 1:  # counts within each group of a grouped convolution
        starts = np.arange(module.groups) * (module.in_channels // module.groups)
    features = consumed.indices[:, :, None] + starts
    return torch.as_tensor(features.reshape(group.size, -1))
