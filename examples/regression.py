"""Regression: from images with numbers to a pruned model that a device can run.

    python examples/regression.py widths.csv --out widths-result

The CSV has the columns path,value (`1.png,3.2`), or a column of numbers for each that is to be
estimated (`path,width_mm,length_mm`).
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
    out: Path = Path("regression-result"),
    model_name: Annotated[str, cyclopts.Parameter(name="--model")] = "resnet18",
    weights: Literal["imagenet", "none"] = "imagenet",
    size: int = 224,
    epochs: int = 10,
    batch_size: int = 32,
    max_drop: str = "5%",
    max_steps: int | None = None,
) -> None:
    """Train a model on images, prune it as far as its mean absolute error allows, and ask it."""
    out.mkdir(parents=True)

    # 1. Images: every split has its share of low and high numbers.
    data = pe.load_manifest(manifest, task="regression", size=size, seed=0)

    # 2. Train all of a pretrained model, which has an output for each number.
    model = pe.build(model_name, data.outputs, weights=weights, seed=0)
    fitted = pe.fit(
        model, data, epochs=epochs, batch_size=batch_size, pretrained=weights == "imagenet"
    )

    # 3. Prune: cut, fine-tune, measure, as long as the error rises by at most `max_drop`: a number
    #    in its own unit (0.2), or a share of the unpruned model's ("5%").
    steps = []
    rules = {"max_drop": max_drop, "max_steps": max_steps, "batch_size": batch_size}
    for step, pruned in pe.prune(model, data, epochs=2, finetune_lr=fitted.lr, **rules):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        steps.append(step)
        if step.keeps_rule:
            best = pruned

    # 4. The test images have not been looked at before. Always answering the median is what any
    #    model has to beat.
    for name, judged in (("unpruned", model), ("pruned", best)):
        found = pe.evaluate(judged, data.test)
        print(
            f"test {name}: off by {found.mae:.3g} in the mean (the median: "
            f"{found.constant['mae']:.3g}), {found.r2:.1%} of the variance explained"
        )
    pe.write_report(out / "report.html", steps, data, models=(model, best), model_name=model_name)

    # 5. Export what the device needs; each form is compared with torch.
    pe.export_bundle(best, data, out / "bundle", model_name=model_name)

    # 6. Ask it, as the device does, in the numbers' own units: nothing below needs torch.
    session = open_session(pe.open_bundle(out / "bundle"))
    for sample in random.Random(0).sample(data.test.samples, k=5):
        (numbers,) = session.predict(read_image(sample.path, data.size)[None])
        for name, number, truth in zip(data.classes, numbers, sample.target, strict=True):
            print(f"{sample.path.name}: {name} {number:.4g}, in truth {truth:.4g}")


if __name__ == "__main__":
    cyclopts.run(main)
