"""Finds what is unlike sound images, by its features (as PatchCore does): pruned without labels.

    python examples/anomaly.py tiles/sound/ tiles/crack/ tiles/break/ --out extractor.pt

Damaged images teach nothing: half of them judge every step, the others the model in the end.
A name ends in a number (`exp1_num_3191.jpg`).
"""

from pathlib import Path

import cyclopts
import timm
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

import prunedge as pe


def main(
    sound: Path, *damaged: Path, out: Path = Path("extractor.pt"), weights: str = "imagenet",
    size: int = 128, epochs: int = 5, max_drop: float = 0.005, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Prune as far as the AUROC falls by at most `max_drop` (0.005 is half a point), and save."""
    learned, *intact = load((sound,), size, parts=3)
    broken = load(damaged, size, parts=2)
    unpruned = timm.create_model("efficientnet_lite0", features_only=True, out_indices=(3,))
    unpruned.load_state_dict(pe.build("efficientnet_lite0", 2, weights).state_dict(), strict=False)
    unpruned.blocks = unpruned.blocks[:5]  # nothing looks at what comes after
    wanted = torch.cat([unpruned.eval()(some)[0].detach() for some in learned.split(16)])

    def fit(model: nn.Module, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        for _ in range(epochs):
            for some in torch.randperm(len(learned)).split(16):
                nn.functional.mse_loss(model(learned[some])[0], wanted[some]).backward()
                optimizer.step()
                optimizer.zero_grad()

    def evaluate(model: nn.Module, half: int = 0) -> float:
        return auroc(model, learned, intact[half], broken[half])

    functions = {"fit": fit, "evaluate": evaluate, "batches": learned.split(16)}
    rule = {"criterion": "feature-distance", "max_drop": max_drop, "max_steps": max_steps}
    for step, model in pe.prune(unpruned, learned[:1], **functions, **rule, epochs=epochs):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        if step.keeps_rule:
            best = model
    for name, model in {"unpruned": unpruned, "pruned": best}.items():
        print(f"AUROC of the other half, {name}: {evaluate(model, half=1):.3f}")
    torch.save(best, out)


@torch.no_grad()
def auroc(model: nn.Module, learned: Tensor, intact: Tensor, broken: Tensor) -> float:
    """By how far the places of an image are from all places of sound images, in the mean."""
    images = torch.cat([learned, intact, broken]).split(16)
    maps = nn.functional.avg_pool2d(torch.cat([model(some)[0] for some in images]), 3, 1, 1)
    places = maps.flatten(2).transpose(1, 2)  # (n, places, channels)
    places = places / places[: len(learned)].std((0, 1)).clamp(min=1e-6)
    known = places[: len(learned)].flatten(0, 1)[::8]
    scores = [torch.cdist(image, known).amin(1).mean() for image in places[len(learned) :]]
    return float(roc_auc_score([0] * len(intact) + [1] * len(broken), scores))


def load(folders: tuple[Path, ...], size: int, parts: int) -> list[Tensor]:
    """Images (n, 3, S, S) of mean 0 and deviation 1: by number, twelve in a row in one part."""
    files = [file for folder in folders for file in folder.rglob("*.jpg")]
    files.sort(key=lambda file: int(file.stem.split("_")[-1]))
    images = [resize(decode_image(file, ImageReadMode.RGB), [size, size]) for file in files]
    deviation, mean = torch.std_mean(torch.stack(images).float(), (1, 2, 3), keepdim=True)
    rows = ((torch.stack(images) - mean) / deviation).split(12)
    return [torch.cat(rows[part::parts]) for part in range(parts)]


if __name__ == "__main__":
    cyclopts.run(main)
