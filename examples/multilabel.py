"""Multilabel: from images with several labels to a pruned model that a device can run.

    python examples/multilabel.py damage.csv --out damage-result

The CSV has the columns path,label (`1.png,crack;rust`; `2.png,` is an image without any), or in
place of label a column of 0 and 1 for each class.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Literal

import cyclopts

import prunedge as pe
from prunedge.edge.image.read import read_image
from prunedge.edge.session import open_session


def main(
    manifest: Path,
    *,
    out: Path = Path("multilabel-result"),
    model_name: Annotated[str, cyclopts.Parameter(name="--model")] = "resnet18",
    weights: Literal["imagenet", "none"] = "imagenet",
    size: int = 224,
    epochs: int = 10,
    batch_size: int = 32,
    max_drop: float = 3.0,
    max_steps: int | None = None,
) -> None:
    """Train a model on images, prune it as far as its mean average precision allows, and ask it."""
    out.mkdir(parents=True)

    # 1. Images: every split has its share of each class.
    data = pe.load_manifest(manifest, task="multilabel", size=size, seed=0)

    # 2. Train all of a pretrained model, which has an output for each class.
    model = pe.build(model_name, classes=data.classes, weights=weights, seed=0)
    fitted = pe.fit(
        model, data, epochs=epochs, batch_size=batch_size, pretrained=weights == "imagenet"
    )

    # 3. Prune: cut, fine-tune, measure, as long as `map` drops by at most `max_drop` points.
    steps = []
    rules = {"max_drop": max_drop, "max_steps": max_steps, "batch_size": batch_size}
    for step, pruned in pe.prune(model, data, epochs=2, finetune_lr=fitted.finetune_lr, **rules):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        steps.append(step)
        if step.keeps_rule:
            best = pruned

    # 4. The test images have not been looked at before.
    for name, judged in (("unpruned", model), ("pruned", best)):
        found = pe.evaluate(judged, data.test)
        print(f"test {name}: map {found.map:.1%}, all labels right {found.exact:.1%}")
    pe.write_report(out / "report.html", steps, data, models=(model, best), model_name=model_name)

    # 5. Export what the device needs; each form is compared with torch.
    pe.export_bundle(best, data, out / "bundle", model_name=model_name)

    # 6. Ask it, as the device does: nothing below needs torch.
    session = open_session(pe.open_bundle(out / "bundle"))
    for sample in random.Random(0).sample(data.test.samples, k=5):
        (probabilities,) = session.predict(read_image(sample.path, data.size)[None])
        there = [name for name, p in zip(data.classes, probabilities, strict=True) if p >= 0.5]
        truth = [data.classes[index] for index in sample.target]
        print(f"{sample.path.name}: shows {there}, in truth {truth}")


if __name__ == "__main__":
    cyclopts.run(main)
