"""Small models, one for each construct that the channel graph must understand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random batch-norm statistics and affine parameters, biases too: nothing is zero by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point() and tensor.dim() > 1 and "weight" in name:
                fan = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan**0.5)
    return model.eval()


class Residual(nn.Module):
    """Two residual sums that tie three convolutions, and a downsampling branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.a = nn.Conv2d(8, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 10, 1, stride=2)
        self.c = nn.Conv2d(8, 10, 3, stride=2, padding=1)
        self.head = nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        x = x + self.b(torch.relu(self.a(x)))
        x = self.down(x) + torch.relu(self.c(x))
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """Expansion, depthwise convolution (also with a multiplier), squeeze-and-excitation, projection."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12, bias=False)
        self.norm2 = nn.BatchNorm2d(24)
        self.squeeze = nn.Conv2d(24, 6, 1)
        self.excite = nn.Conv2d(6, 24, 1)
        self.project = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.norm1(self.expand(x)))
        x = functional.relu6(self.norm2(self.depthwise(x)))
        gate = torch.sigmoid(
            self.excite(functional.silu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        )
        x = self.project(x * gate)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Dense(nn.Module):
    """Concatenation, a slice of the concatenation, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 4, 3, padding=1)
        self.c = nn.Conv2d(12, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.d = nn.Conv2d(24, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.norm(self.a(x)))
        ab = torch.cat([a, self.b(a)], 1)
        g = torch.relu(self.grouped(torch.relu(self.c(ab))))
        x = self.d(torch.cat([g, ab], dim=1))
        return self.head(functional.max_pool2d(x, 2).amax((2, 3)))


class Plain(nn.Module):
    """Convolutions, pooling, flatten into fully connected layers: a small VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Sequential(
            nn.Linear(72, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Upward(nn.Module):
    """A transposed convolution, a module that is called twice, and a branch that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 2)
        self.auxiliary = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.twice(torch.relu(self.twice(torch.relu(self.a(x)))))
        extra = self.auxiliary(x.mean((2, 3))) if self.training else None
        out = self.head(torch.relu(self.norm(self.up(x))).mean((2, 3)))
        return out if extra is None else (out, extra)


class Baked(nn.Module):
    """A size that Python code has written down in a reshape, or that it divides by: only the proof can find it."""

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        x = torch.relu(self.a(x))
        x = x / len(x[0]) if self.scaled else x.reshape(n, 8, h, w)
        return self.head(torch.relu(self.b(x)).mean((2, 3)))


CONSTRUCTS = (Residual, Mobile, Dense, Plain, Upward)


def tiny(num_classes: int) -> nn.Module:
    """As small as a model for images can be, of any number of classes: `tests.small_models:tiny`."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )
