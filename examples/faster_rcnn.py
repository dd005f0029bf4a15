"""A detector of torchvision, which trains by a dict of losses, around `pe.prune`.

python examples/faster_rcnn.py annotations.json --out detector.pt  # COCO's, beside its images
"""

import json
from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.io import decode_image
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn as detector
from torchvision.ops import box_convert, box_iou

import prunedge as pe


def main(
    annotations: Path, *, out: Path = Path("detector.pt"), size: int = 320, epochs: int = 40,
    step_epochs: int = 10, max_drop: float = 0.01, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train, prune as far as the F1 falls by at most `max_drop` (0.01 is a point), and save."""
    torch.manual_seed(0)
    data, classes = load(annotations)
    train = DataLoader(data[::2], 4, True, collate_fn=lambda some: list(zip(*some, strict=True)))

    def fit(model: nn.Module, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0005)
        for _ in range(epochs):
            for batch in train:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()

    def evaluate(model: nn.Module) -> dict[str, float]:
        hits = boxes = 0
        for image, wanted in data[1::2]:
            (found,) = model([image])
            sure = found["scores"] > 0.5
            is_hit = box_iou(wanted["boxes"], found["boxes"][sure]) >= 0.5
            is_hit &= wanted["labels"][:, None] == found["labels"][sure]
            hits += int(min(is_hit.any(0).sum(), is_hit.any(1).sum()))
            boxes += sum(is_hit.shape)
        return {"f1": 2 * hits / boxes}

    model = best = detector(weights_backbone=None, num_classes=classes, min_size=size)
    fit(model.train(), epochs)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": train}
    rule = {"max_drop": max_drop, "max_steps": max_steps, "epochs": step_epochs}
    for step, pruned in pe.prune(model, ([data[0][0]],), **functions, **rule):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        best = pruned if step.keeps_rule else best
    torch.save(best, out)


def loss(model: nn.Module, batch: tuple[list[Tensor], list[dict[str, Tensor]]]) -> Tensor:
    """The sum of all losses, which are there in training alone; the norms stay as they are."""
    model.training = model.rpn.training = model.roi_heads.training = True
    return sum(model(*batch).values())


def load(annotations: Path) -> tuple[list[tuple[Tensor, dict[str, Tensor]]], int]:
    """Each image with its boxes and labels, from 1 on; how many classes there are, and none."""
    listed = json.loads(annotations.read_text(encoding="utf-8"))
    classes = [category["id"] for category in listed["categories"]]
    data = []
    for image in listed["images"]:
        pixels = decode_image(annotations.parent / image["file_name"], "RGB") / 255
        own = [box for box in listed["annotations"] if box["image_id"] == image["id"]]
        boxes = torch.tensor([box["bbox"] for box in own], dtype=torch.float).reshape(-1, 4)
        labels = torch.tensor([classes.index(box["category_id"]) + 1 for box in own]).long()
        data.append((pixels, {"boxes": box_convert(boxes, "xywh", "xyxy"), "labels": labels}))
    return data, len(classes) + 1


if __name__ == "__main__":
    cyclopts.run(main)
