"""Classification: from a folder of images to a pruned model that a device can run.

    python examples/classification.py cracks/ --out cracks-result

The folder holds one folder of images for each class, with or without train/, val/ and test/ above.
Without images of your own, `prunedge demo` lays out a set: give `demo-run-images`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Literal

import cyclopts

import prunedge as pe
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.session import open_session


def main(
    images: Path,
    *,
    out: Path = Path("classification-result"),
    model_name: Annotated[str, cyclopts.Parameter(name="--model")] = "resnet18",
    weights: Literal["imagenet", "none"] = "imagenet",
    size: int = 224,
    epochs: int = 10,
    batch_size: int = 32,
    max_drop: float = 3.0,
    max_steps: int | None = None,
) -> None:
    """Train a model on images, prune it as far as its accuracy allows, and look for damage."""
    out.mkdir(parents=True)

    # 1. Images: the splits never part images of one source.
    data = pe.load_folder(images, size=size, seed=0)
    print(data)

    # 2. Train all of a pretrained model.
    model = pe.build(model_name, classes=data.classes, weights=weights, seed=0)
    fitted = pe.fit(
        model, data, epochs=epochs, batch_size=batch_size, pretrained=weights == "imagenet"
    )

    # 3. Prune: cut, fine-tune, measure, as long as accuracy drops by at most `max_drop` points.
    steps = []
    rules = {"max_drop": max_drop, "max_steps": max_steps, "batch_size": batch_size}
    for step, pruned in pe.prune(model, data, epochs=2, finetune_lr=fitted.finetune_lr, **rules):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        steps.append(step)
        if step.keeps_rule:
            best = pruned

    # 4. The test images have not been looked at before.
    print(f"test accuracy, unpruned: {pe.evaluate(model, data.test).accuracy:.1%}")
    print(f"test accuracy, pruned:   {pe.evaluate(best, data.test).accuracy:.1%}")
    pe.write_report(out / "report.html", steps, data, models=(model, best), model_name=model_name)

    # 5. Export what the device needs; every form is compared with torch on real images.
    pe.export_bundle(best, data, out / "bundle", model_name=model_name)

    # 6. Inspect, as the device does: nothing below needs torch.
    session = open_session(pe.open_bundle(out / "bundle"))
    for sample in random.Random(0).sample(data.test.samples, k=5):
        inspection = inspect_image(sample.path, session, Settings())
        truth = data.classes[sample.target]
        print(f"{sample.path.name}: damage with {inspection.probability:.0%}, in truth {truth}")


if __name__ == "__main__":
    cyclopts.run(main)
