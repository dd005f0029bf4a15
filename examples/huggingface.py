"""A vision transformer, and the Trainer of transformers around `pe.prune`.

    pip install 'prunedge[prune]' transformers accelerate
    python examples/huggingface.py cells/ --out pruned.pt

`cells` has train/ and val/, with a folder for each class.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cyclopts
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import prunedge as pe


def main(
    images: Path, *, out: Path = Path("pruned.pt"), size: int = 64, layers: int = 6,
    epochs: int = 20, max_drop: float = 0.02, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the accuracy falls by at most `max_drop` (0.01 is a point), save."""
    torch.manual_seed(0)
    seen = v2.Compose([v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float, scale=True)])
    train, val = ImageFolder(images / "train", seen), ImageFolder(images / "val", seen)
    batches = DataLoader(train, 16, shuffle=True, collate_fn=collate)
    scratch = TemporaryDirectory()

    def trainer(model: nn.Module, epochs: int = 1, seed: int = 0) -> Trainer:
        options = TrainingArguments(
            scratch.name, num_train_epochs=epochs, seed=seed, learning_rate=0.0005,
            per_device_train_batch_size=16, save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        sets = {"train_dataset": train, "eval_dataset": val, "data_collator": collate}
        return Trainer(model, options, compute_metrics=accuracy, **sets)

    def fit(model: nn.Module, epochs: int, seed: int) -> None:
        trainer(model, epochs, seed).train()

    def evaluate(model: nn.Module) -> dict[str, float]:
        return trainer(model).evaluate()

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(**batch).loss

    config = ViTConfig(
        image_size=size, patch_size=size // 8, hidden_size=96, intermediate_size=384,
        num_attention_heads=4, num_hidden_layers=layers, num_labels=len(train.classes),
    )  # fmt: skip
    unpruned = best = ViTForImageClassification(config)
    fit(unpruned, epochs, seed=0)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": batches}
    rule = {"metric": "eval_accuracy", "max_drop": max_drop, "max_steps": max_steps}
    example = {"pixel_values": torch.rand(2, 3, size, size)}
    for step, pruned in pe.prune(unpruned, example, **functions, **rule, epochs=epochs // 2):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        best = pruned if step.keeps_rule else best
    torch.save(best, out)


def collate(examples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """A batch as the model's arguments."""
    pixels, labels = default_collate(examples)
    return {"pixel_values": pixels, "labels": labels}


def accuracy(answers: Any) -> dict[str, float]:
    """The share of right answers."""
    return {"accuracy": float((answers.predictions.argmax(1) == answers.label_ids).mean())}


if __name__ == "__main__":
    cyclopts.run(main)
