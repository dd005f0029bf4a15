"""An autoencoder that learns to draw sound images again: pruned by the error of its drawings.

    python examples/autoencoder.py patches/noncrack/ --out autoencoder.pt

Images that it draws badly are unlike those that it learned from.
"""

from itertools import pairwise
from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

import prunedge as pe


def main(
    images: Path, *, out: Path = Path("autoencoder.pt"), size: int = 64, epochs: int = 30,
    step_epochs: int = 10, max_increase: str = "5%", max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the error grows by at most `max_increase` of its own, and save."""
    torch.manual_seed(0)
    ordered = load(images, size)
    learned, held = ordered.tensor_split([len(ordered) * 3 // 4])

    def fit(model: nn.Module, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
        for _ in range(epochs):
            for some in learned[torch.randperm(len(learned))].split(16):
                optimizer.zero_grad()
                loss(model, some).backward()
                optimizer.step()

    def evaluate(model: nn.Module) -> dict[str, float]:
        errors = [loss(model, image) for image in held.split(1)]
        return {"error": float(torch.stack(errors).mean())}

    model = autoencoder()
    fit(model.train(), epochs)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": learned.split(16)}
    rule = {"max_drop": max_increase, "max_steps": max_steps, "epochs": step_epochs}
    for step, pruned in pe.prune(model, learned[:1], **functions, **rule, higher_is_better=False):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        if step.keeps_rule:
            best = pruned
    torch.save(best, out)


def autoencoder(channels: tuple[int, ...] = (3, 32, 64, 128, 32)) -> nn.Module:
    """Halves the image at every step, and doubles it again at every step back."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    for before, after in pairwise(reversed(channels)):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def loss(model: nn.Module, images: Tensor) -> Tensor:
    """The squared error, the mean over the images (and their pixels)."""
    return mse_loss(model(images), images)


def load(folder: Path, size: int) -> Tensor:
    """Images (n, 3, S, S) from 0 to 1, by their names."""
    files = sorted(folder.glob("*.jpg"))
    images = [resize(decode_image(file, ImageReadMode.RGB), [size, size]) for file in files]
    return torch.stack(images) / 255


if __name__ == "__main__":
    cyclopts.run(main)
