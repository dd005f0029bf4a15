"""Two images in, one number out: whether two patches are of one photograph, as their names say.

python examples/siamese.py patches/noncrack/ --out siamese.pt
"""

from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.io import decode_image
from torchvision.transforms.v2.functional import resize

import prunedge as pe


class Siamese(nn.Module):
    """One encoder sees both images; how far its features are apart decides."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.encoder = pe.build(encoder, 64, weights="none")
        self.head = nn.Linear(64, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """A number (n,) for each pair, above 0 where both are of one photograph."""
        return self.head((self.encoder(one) - self.encoder(other)).abs()).flatten()


def main(
    patches: Path, *, out: Path = Path("siamese.pt"), encoder: str = "resnet18", size: int = 64,
    epochs: int = 10, max_drop: float = 0.02, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the accuracy falls by at most `max_drop` (0.01 is a point), save."""
    torch.manual_seed(0)
    files = sorted(patches.glob("*.jpg"))
    cut = len(files) * 3 // 4
    train, val = pairs(files[:cut], size), pairs(files[cut:], size)

    def fit(model: nn.Module, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
        for _ in range(epochs):
            for batch in train:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()

    def evaluate(model: nn.Module) -> dict[str, float]:
        right = [(model(*images) > 0) == (same > 0) for *images, same in val]
        return {"accuracy": float(torch.cat(right).float().mean())}

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        *images, same = batch
        return nn.functional.binary_cross_entropy_with_logits(model(*images), same)

    unpruned = best = Siamese(encoder)
    fit(unpruned.train(), epochs)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": train}
    rule = {"max_drop": max_drop, "max_steps": max_steps, "epochs": epochs // 2}
    for step, pruned in pe.prune(unpruned, tuple(next(iter(val))[:2]), **functions, **rule):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        best = pruned if step.keeps_rule else best
    torch.save(best, out)


def pairs(files: list[Path], size: int) -> DataLoader:
    """Batches of patches (n, 3, S, S), the ones before or far away, and 1 for one photograph."""
    images = torch.stack([resize(decode_image(file, "RGB"), [size, size]) for file in files]) / 255
    names = [file.stem.rsplit("_", 2)[0] for file in files]  # without row and column
    away = (1, len(files) // 2)
    others = torch.cat([images.roll(far, 0) for far in away])
    same = [float(names[i] == names[i - far]) for far in away for i in range(len(files))]
    data = TensorDataset(images.repeat(2, 1, 1, 1), others, torch.tensor(same))
    return DataLoader(data, 16, shuffle=True)


if __name__ == "__main__":
    cyclopts.run(main)
