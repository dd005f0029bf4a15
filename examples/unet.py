"""Your own loop around `pe.prune`: model, batches, loss, optimizer and metric are yours.

    pip install 'prunedge[segmentation]'
    python examples/unet.py photos/ masks/ --out unet.pt

A mask has its photograph's name, and is white where there is damage.
"""

from pathlib import Path

import cyclopts
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

import prunedge as pe


def main(
    photos: Path, masks: Path, *, out: Path = Path("unet.pt"), size: int = 128,
    epochs: int = 20, max_drop: float = 0.01, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the IoU falls by at most `max_drop` (0.01 is a point), and save."""
    torch.manual_seed(0)
    images, targets = load(photos, masks, size)
    learned = len(images) * 3 // 4  # by name, so that neighbours are on one side
    train = DataLoader(TensorDataset(images[:learned], targets[:learned]), 8, shuffle=True)
    val = DataLoader(TensorDataset(images[learned:], targets[learned:]), 8)

    def fit(model: nn.Module, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        for _ in range(epochs):
            for batch in train:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = torch.cat([model(some) > 0 for some, _ in val])
        wanted = targets[learned:] > 0
        return {"iou": float((found & wanted).sum() / (found | wanted).sum())}

    model = smp.Unet("resnet18", encoder_weights=None)
    fit(model.train(), epochs)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": train}
    for step, pruned in pe.prune(
        model, images[:1], **functions, max_drop=max_drop, max_steps=max_steps
    ):
        print(f"{step.name}: {step.macs / 1e6:,.0f} million MACs, {step.reason}")
        if step.keeps_rule:
            best = pruned
    torch.save(best, out)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy and Dice, the mean over the images: trained with, and scored by."""
    images, targets = batch
    outputs = model(images)
    found, wanted = outputs.sigmoid().flatten(1), targets.flatten(1)
    dice = (2 * (found * wanted).sum(1) + 1) / (found.sum(1) + wanted.sum(1) + 1)
    return binary_cross_entropy_with_logits(outputs, targets) + (1 - dice).mean()


def load(photos: Path, masks: Path, size: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, S, S) from 0 to 1, and masks (n, 1, S, S) of 0 and 1."""
    images, targets = [], []
    for photo in sorted(photos.iterdir()):
        mask = next(masks.glob(f"{photo.stem}.*"))
        images.append(resize(decode_image(photo, ImageReadMode.RGB), [size, size]) / 255)
        targets.append(resize(decode_image(mask, ImageReadMode.GRAY), [size, size]) > 127)
    return torch.stack(images), torch.stack(targets).float()


if __name__ == "__main__":
    cyclopts.run(main)
