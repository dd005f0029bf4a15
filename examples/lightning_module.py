"""A LightningModule, and Lightning's own `Trainer.fit` and `Trainer.validate` around `pe.prune`.

    pip install 'prunedge[prune]' lightning
    python examples/lightning_module.py cells/ --out pruned.pt

`cells` has train/ and val/, with a folder for each class. (A lightning.py would hide the library.)
"""

from pathlib import Path

import cyclopts
import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import prunedge as pe


class Classifier(lightning.LightningModule):
    """Whatever a LightningModule is: its loss, optimizer and metric are its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int = 0) -> Tensor:
        """The loss, the mean over the images: trained with, and scored by."""
        images, labels = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Logs the accuracy, which Lightning averages over the images."""
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Made anew for every pruned module."""
        return torch.optim.AdamW(self.parameters(), lr=0.001)


def main(
    images: Path, *, out: Path = Path("pruned.pt"), model: str = "resnet18", size: int = 64,
    epochs: int = 10, max_drop: float = 0.02, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the accuracy falls by at most `max_drop` (0.01 is a point), save."""
    lightning.seed_everything(0)
    seen = v2.Compose([v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float, scale=True)])
    train = DataLoader(ImageFolder(images / "train", seen), 16, shuffle=True)
    val = DataLoader(ImageFolder(images / "val", seen), 16)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

    def fit(module: nn.Module, epochs: int) -> None:
        lightning.Trainer(max_epochs=epochs, **quiet).fit(module, train)

    def evaluate(module: nn.Module) -> dict[str, float]:
        return lightning.Trainer(**quiet).validate(module, val, verbose=False)[0]

    unpruned = best = Classifier(pe.build(model, len(train.dataset.classes), weights="none"))
    fit(unpruned, epochs)
    functions = {"fit": fit, "evaluate": evaluate, "loss": Classifier.training_step}
    rule = {"max_drop": max_drop, "max_steps": max_steps, "epochs": epochs // 2}
    for step, pruned in pe.prune(unpruned, next(iter(val))[0], **functions, batches=train, **rule):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        best = pruned if step.keeps_rule else best
    torch.save(best.net, out)


if __name__ == "__main__":
    cyclopts.run(main)
