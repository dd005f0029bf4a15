"""A tiny training of a user's own, whose random numbers come from everywhere: what `--trainer` names."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TEXT = "from tests.own_trainings import Training as training\n"  # a module of the user's
SETTINGS: dict[str, Any] = {
    "step_ratio": 0.4,
    "max_drop": 100.0,
    "max_steps": 2,
    "polish": 1,
    "epochs": 1,
    "extra_rounds": 1,
    "growing_epochs": False,
}
OPTIONS = (
    "--step-ratio", "0.4", "--max-drop", "100", "--max-steps", "2", "--polish", "1",
    "--epochs", "1", "--extra-rounds", "1", "--no-growing-epochs",
)  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 10, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.drop = nn.Dropout(0.2)
        self.b = nn.Conv2d(10, 8, 3, stride=2)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.norm(self.a(x))))
        return self.head(torch.relu(self.b(x)).mean((2, 3)))


class Training:
    """As a user writes it: the arguments of `pe.prune` as attributes."""

    metric = "mae"
    higher_is_better = False

    def __init__(self, seed: int = 1) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = Net()
            self.images = torch.randn(24, 3, 8, 8)
        self.truth = self.images[:, :1].mean((2, 3))
        self.example = self.images[:1]

    def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(24)
        return list(zip(self.images[order].split(8), self.truth[order].split(8), strict=True))

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        images, truth = batch
        return functional.mse_loss(model(images), truth)

    def fit(self, model: nn.Module, epochs: int, *, seed: int, folder: Path | None = None) -> None:
        optimizer = torch.optim.SGD(model.parameters(), random.uniform(0.01, 0.02))
        for _ in range(epochs):
            for batch in self.batches():
                optimizer.zero_grad()
                (self.loss(model, batch) * np.random.uniform(0.9, 1.1)).backward()
                optimizer.step()
        if folder is not None:
            (folder / "seed.txt").write_text(str(seed))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        error = (model(self.images) - self.truth).abs().mean()
        return {"mae": float(error), "other": 1.0}

    def arguments(self) -> dict[str, Any]:
        """What `pe.prune` is given."""
        return {
            "fit": self.fit,
            "evaluate": self.evaluate,
            "loss": self.loss,
            "batches": self.batches,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            **SETTINGS,
        }


class TwoInputs(nn.Module):
    """Two images, and several answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.mid = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        both = self.mid(torch.relu(self.stem(left)) - torch.relu(self.stem(right)))
        answer = self.head(both.mean((2, 3)))
        return {"answer": answer, "class": answer.argmax(1)}


class ByName:
    """Its arguments come by name, in another order than the model's."""

    def __init__(self) -> None:
        self.model = TwoInputs()
        self.example: Any = {"right": torch.ones(1, 3, 8, 8), "left": torch.zeros(1, 3, 8, 8)}

    def fit(self, model: nn.Module, epochs: int) -> None:
        """As it is."""

    def evaluate(self, model: nn.Module) -> float:
        pairs = {"left": torch.randn(5, 3, 8, 8), "right": torch.randn(5, 3, 8, 8)}
        return 5 + float(model(**pairs)["answer"].mean())


class ByPlace(ByName):
    """Its evaluate calls no model: the batches show what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.example = (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))

    def evaluate(self, model: nn.Module) -> float:
        return 1.0

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return model(*batch)["answer"].pow(2).mean()

    def batches(self) -> list[Any]:
        return [(torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8))] * 6


class Alone(ByPlace):
    """Nothing shows what it takes but the example."""

    loss = None  # type: ignore[assignment]
    batches = None  # type: ignore[assignment]
