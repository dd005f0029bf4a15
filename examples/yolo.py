"""A detector of ultralytics: its own trainer, validator and export around `pe.prune`.

    pip install 'prunedge[prune]' ultralytics  # whose licence is AGPL
    python examples/yolo.py data.yaml --out yolo

`data.yaml` is ultralytics' own; boxes_for_yolo.py makes one of COCO's annotations.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cyclopts
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.trainer import BaseTrainer

import prunedge as pe


def main(
    data: Path, *, out: Path = Path("yolo"), model: str = "yolo11n.yaml", size: int = 192,
    metric: str = "metrics/mAP50(B)", max_drop: float = 0.01, max_steps: int | None = None,
    epochs: int = 100, step_epochs: int = 20,
) -> None:  # fmt: skip
    """Train, prune as far as the metric falls by at most `max_drop` (0.01 is a point), export."""
    common = {"data": str(data), "imgsz": size, "model": model, "workers": 0, "plots": False}
    common |= {"project": str(out.resolve()), "exist_ok": True, "verbose": False}
    classes = YOLO(model).task_map[YOLO(model).task]  # what trains and judges such a model

    def fit(net: nn.Module, epochs: int, seed: int) -> BaseTrainer:
        trainer = classes["trainer"](overrides={**common, "epochs": epochs, "seed": seed})
        trainer.model = net  # in the place of a new one
        trainer.train()
        net.load_state_dict(trainer.ema.ema.state_dict())  # the average is what ultralytics keeps
        return trainer

    def evaluate(net: nn.Module) -> dict[str, float]:
        validator = classes["validator"](args=common)
        return validator(model=copy.deepcopy(net))  # it fuses the layers of what it is given

    def batches() -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for batch in trainer.train_loader:
            prepared = trainer.preprocess_batch(batch)
            yield prepared["img"], prepared

    unpruned = classes["model"](model, nc=check_det_dataset(data)["nc"], verbose=False)
    trainer = fit(unpruned, epochs, seed=0)
    functions = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": batches}
    rule = {"metric": metric, "max_drop": max_drop, "max_steps": max_steps, "epochs": step_epochs}
    for step, pruned in pe.prune(unpruned, next(batches())[0], **functions, **rule):
        print(f"{step.name}: {step.macs / 1e6:,.1f} million MACs, {step.reason}")
        if step.keeps_rule:
            best = pruned

    for name, net in {"unpruned": unpruned, "pruned": best}.items():
        saved = YOLO(model)
        saved.model = net
        saved.save(out / f"{name}.pt")
        onnx = YOLO(out / f"{name}.pt").export(format="onnx", imgsz=size, simplify=False)
        found = YOLO(onnx, task=saved.task).val(**common)
        figure, speed = found.results_dict[metric], found.speed["inference"]
        print(f"{onnx}: {metric} {figure:.3f}, {speed:.1f} ms an image")


def loss(net: nn.Module, batch: tuple[Tensor, dict[str, Any]]) -> Tensor:
    """ultralytics' own, as the mean over the images."""
    images, targets = batch
    sums, _ = net.init_criterion()(net(images), targets)
    return sums.sum() / len(images)


if __name__ == "__main__":
    cyclopts.run(main)
