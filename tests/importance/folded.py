"""Models whose layers don't see the examples in the first dimension, or not only there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Windows(nn.Module):
    """Windows of 4 x 4 in the batch dimension, all of one image after another; beside them a layer that sees whole images."""

    windows_first = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.query = nn.Linear(8, 8)
        self.mlp = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x).permute(0, 2, 3, 1)
        b, height, width, c = h.shape
        windows = h.view(b, 2, height // 2, 2, width // 2, c)
        if self.windows_first:
            windows = self.query(windows.permute(1, 3, 0, 2, 4, 5).reshape(4 * b, -1, c))
            windows = windows.view(2, 2, b, height // 2, width // 2, c).permute(2, 0, 3, 1, 4, 5)
        else:
            windows = self.query(windows.permute(0, 1, 3, 2, 4, 5).reshape(b * 4, -1, c))
            windows = windows.view(b, 2, 2, height // 2, width // 2, c).permute(0, 1, 3, 2, 4, 5)
        windows = torch.tanh(windows.reshape(b, height, width, c))
        return self.head((windows + self.mlp(h)).mean((1, 2)))


class WindowsFirst(Windows):
    """The same windows of all images one after another: the order that sizes can't tell from the other."""

    windows_first = True


class Positions(nn.Module):
    """The batch among the positions of a one-dimensional convolution, and behind them in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.line = nn.Conv1d(8, 6, 1)
        self.last = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = len(x)
        h = (
            self.stem(x).flatten(2).permute(1, 2, 0).reshape(1, 8, -1)
        )  # (1, channels, positions * batch)
        h = torch.tanh(self.line(h)).view(6, -1, b).permute(1, 2, 0)  # (positions, batch, channels)
        return self.head(torch.tanh(self.last(h)).mean(0))


class Sequence(nn.Module):
    """torch's encoder with the batch second, class token in front."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x).flatten(2).permute(2, 0, 1)
        h = torch.cat([self.token.expand(-1, h.shape[1], -1), h])
        return self.head(self.encoder(h)[0])


class Recurrent(nn.Module):
    """A convolution that feeds an LSTM, (length, batch, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.mid = nn.Conv2d(16, 12, 3, 1, 1)
        self.narrow = nn.Linear(12, 10)
        self.lstm = nn.LSTM(10, 8)
        self.after = nn.Conv1d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.mid(torch.relu(self.stem(x)))).mean(2).permute(2, 0, 1)
        h, _ = self.lstm(torch.relu(self.narrow(h)))
        return self.head(torch.relu(self.after(h.permute(1, 2, 0))).mean(2))


class Queries(nn.Module):
    """Queries that all examples share until they meet the image: the first layers read them before, once for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.query = nn.Parameter(torch.randn(3, 1, 8))
        self.widen = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.cross = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory = self.stem(x).flatten(2).permute(2, 0, 1)
        query = self.narrow(torch.relu(self.widen(self.query.expand(-1, len(x), -1))))
        return self.head(self.cross(query, memory, memory)[0].mean(0))


class SharedTable(nn.Module):
    """A table that two layers make from the weights alone, as positions in Swin v2 and MaxViT are; nothing of it belongs to an example."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.Linear(2, 10)
        self.second = nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)
        self.register_buffer("places", torch.randn(4, 4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.second(torch.relu(self.first(self.places)))
        return self.head((torch.tanh(self.stem(x)) * table.permute(2, 0, 1)).mean((2, 3)))


class CalledTwice(nn.Module):
    """One layer over two maps of different sizes, and a second layer with the first one's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 6, 1)
        self.again = nn.Conv2d(8, 6, 1)
        self.again.weight = self.shared.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.stem(x))
        small = torch.relu(self.shared(functional.avg_pool2d(h, 2)))
        return self.head(
            torch.relu(self.shared(h)).mean((2, 3))
            + small.mean((2, 3))
            + self.again(h * h).mean((2, 3))
        )


class OneByOne(nn.Module):
    """Goes through its examples in a loop, without their dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.next = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [self.head(torch.relu(self.next(torch.relu(self.stem(one)))).mean((1, 2))) for one in x]
        )


class Normed(nn.Module):
    """Weights that torch works out from others: weight norm and spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.mid = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.mid(torch.relu(self.stem(x)))).mean((2, 3)))


FOLDED = [
    Windows,
    WindowsFirst,
    Positions,
    Sequence,
    Recurrent,
    Queries,
    SharedTable,
    CalledTwice,
    OneByOne,
]
