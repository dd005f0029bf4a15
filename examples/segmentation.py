"""Segmentation: from photographs and masks of their damage to a pruned model that a device can run.

    python examples/segmentation.py photos/ masks/ --out walls-result

A mask has its photograph's name and size: white, or the number of a class above 0, where there is
damage. `masks/classes.txt` may name the classes, one in a line, from number 0 (what is sound) up.
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
    photos: Path,
    masks: Path,
    *,
    out: Path = Path("segmentation-result"),
    model_name: Annotated[str, cyclopts.Parameter(name="--model")] = "lraspp_mobilenet_v3_large",
    weights: Literal["imagenet", "none"] = "imagenet",
    size: int = 256,
    tile: int | None = None,
    epochs: int = 30,
    batch_size: int = 8,
    max_drop: float = 1.0,
    max_steps: int | None = None,
) -> None:
    """Train a model on masks, prune it as far as its IoU allows, and measure damage with it."""
    out.mkdir(parents=True)

    # 1. Photographs and masks, whole or cut into tiles: those of one photograph stay together.
    data = pe.load_folder(photos, masks=masks, tile=tile, size=size, seed=0)
    print(f"classes: {', '.join(data.classes)}")
    # 2. Train all of a pretrained model, which has a map for each class.
    model = pe.build(model_name, data.outputs, weights=weights, seed=0)
    fitted = pe.fit(
        model, data, epochs=epochs, batch_size=batch_size, pretrained=weights == "imagenet"
    )

    # 3. Prune: cut, fine-tune, measure, as long as IoU falls by at most `max_drop` points.
    steps = []
    rules = {"max_drop": max_drop, "max_steps": max_steps, "batch_size": batch_size}
    for step, pruned in pe.prune(model, data, epochs=2, finetune_lr=fitted.lr, **rules):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        steps.append(step)
        if step.keeps_rule:
            best = pruned

    # 4. The test images have not been looked at before.
    for name, judged in (("unpruned", model), ("pruned", best)):
        found = pe.evaluate(judged, data.test)
        print(f"test {name}: IoU {found.iou:.1%}, precision {found.precision:.1%}")
    pe.write_report(out / "report.html", steps, data, models=(model, best), model_name=model_name)

    # 5. Export what the device needs; each form is compared with torch, pixel by pixel.
    pe.export_bundle(best, data, out / "bundle", model_name=model_name)

    # 6. Measure, as the device does, with `pip install 'prunedge[measure]'` and without torch.
    session = open_session(pe.open_bundle(out / "bundle"))
    for file in random.Random(0).sample(sorted(photos.rglob("*.*")), k=5):
        inspection = inspect_image(file, session, Settings())
        print(f"{file.name}: {inspection.damaged_share:.1%} damaged")
        measured = [region.measures for region in inspection.regions[:3] if region.measures]
        for measures in measured:
            print(f"    {measures.length:.0f} pixels long, {measures.mean_width:.1f} wide")


if __name__ == "__main__":
    cyclopts.run(main)
