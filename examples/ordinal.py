"""Ordinal: from images with degrees of damage to a pruned model that a device can run.

    python examples/ordinal.py wear.csv --order none,light,severe --out wear-result

The CSV has the columns path,label (`1.png,light`). Degrees that are numbers (0, 1, 2) need no
--order.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Literal

import cyclopts

import prunedge as pe
from prunedge.edge.image.read import read_image
from prunedge.edge.session import open_session
from prunedge.edge.tasks.ordinal import degrees_in


def main(
    manifest: Path,
    *,
    order: str | None = None,
    out: Path = Path("ordinal-result"),
    model_name: Annotated[str, cyclopts.Parameter(name="--model")] = "resnet18",
    weights: Literal["imagenet", "none"] = "imagenet",
    size: int = 224,
    epochs: int = 10,
    batch_size: int = 32,
    max_drop: float = 3.0,
    max_steps: int | None = None,
) -> None:
    """Train a model on images, prune it as far as its weighted kappa allows, and ask it."""
    out.mkdir(parents=True)

    # 1. Images: every split has its share of each degree.
    data = pe.load_manifest(manifest, task="ordinal", order=order, size=size, seed=0)
    print(f"degrees: {' < '.join(data.classes)}")

    # 2. Train all of a pretrained model, which has an output between each two degrees.
    model = pe.build(model_name, data.outputs, weights=weights, seed=0)
    fitted = pe.fit(
        model, data, epochs=epochs, batch_size=batch_size, pretrained=weights == "imagenet"
    )

    # 3. Prune: cut, fine-tune, measure, as long as kappa drops by at most `max_drop` hundredths.
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
        print(
            f"test {name}: kappa {found.kappa:.3f}, {found.degrees_off:.2f} degrees off, "
            f"{found.two_off:.1%} by two or more"
        )
    pe.write_report(out / "report.html", steps, data, models=(model, best), model_name=model_name)

    # 5. Export what the device needs; each form is compared with torch.
    pe.export_bundle(best, data, out / "bundle", model_name=model_name)

    # 6. Ask it, as the device does: nothing below needs torch.
    session = open_session(pe.open_bundle(out / "bundle"))
    for sample in random.Random(0).sample(data.test.samples, k=5):
        probabilities = session.predict(read_image(sample.path, data.size)[None])
        (degree,) = degrees_in(probabilities)
        print(f"{sample.path.name}: {data.classes[degree]}, in truth {data.classes[sample.target]}")


if __name__ == "__main__":
    cyclopts.run(main)
