"""A made-up study: rows as `prunedge.study.collect` gives them, with plausible figures and no training."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from prunedge.config import RunConfig
from prunedge.report.study.page import StudyFindings
from prunedge.study import StudyProgress
from prunedge.study.grid import data_name

LAYERS = {
    "vgg16": {
        f"features.{place}": width
        for place, width in enumerate(
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
        )
    },
    "resnet18": {
        f"layer{stage}.{block}.conv1": 32 << stage for stage in (1, 2, 3, 4) for block in (0, 1)
    },
}
WHY = "even a step of {:.2f}% of the channels drops accuracy by more than 3 points"


def made_up(
    kind: str,
    values: Mapping[str, Sequence[Any]],
    *,
    failed: int = 0,
    left: int = 0,
    timed: bool = False,
) -> StudyFindings:
    """A study over all combinations of `values`; of its last trials some are left, and before those some have failed."""
    every = [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
    names = [f"trial-{place}" for place in range(len(every))]
    ended = len(every) - failed - left
    rows = [
        row
        for place, one in enumerate(every[: ended + failed])
        for row in trial(names[place], one, is_done=place < ended, timed=timed)
    ]
    counts = StudyProgress(
        tuple(names[:ended]),
        (),
        dict.fromkeys(names[ended : ended + failed], "no space <left> & right"),
        tuple(names[ended + failed :]),
        60.0,
        ended,
        len(every),
    )
    axes = tuple(key for key, several in values.items() if len(several) > 1)
    benches = {
        name: bench()
        for name, one in zip(names, every, strict=True)
        if timed and one.get("fold", 0) == 0 and name in counts.done
    }
    return StudyFindings(
        "/studies/a study",
        kind,
        axes,
        rows,
        counts,
        f'kind = "{kind}"\ndata = "<images>"\n',
        benches,
    )


def trial(
    name: str, values: Mapping[str, Any], *, is_done: bool, timed: bool
) -> list[dict[str, Any]]:
    """All steps of one: channels go by a tenth of what is left, the metric falls slowly, the last step broke the rule."""
    chance = random.Random(f"{name}{sorted(values.items())}")
    given = {"data": "/images/cracks", "model": "resnet18", "folds": 5, "fold": 0, **values}
    recipe = {
        key: value
        for key, value in RunConfig.make("made up", **given).flat().items()
        if key not in ("start", "classes")
    }
    layers, start, skill = (
        LAYERS[recipe["model"]],
        0.93 + 0.02 * chance.random(),
        {"taylor": 1.0, "random": 2.5}.get(recipe["criterion"], 1.6),
    )
    count, whole = chance.randint(10, 22), sum(layers.values())
    about = {"trial": name, "start": "start", "data_name": data_name(recipe["data"]), **recipe}
    steps = []
    for index in range(count + 1):
        kept = {
            layer: max(2, round(width * 0.9 ** (index * (0.5 + place / len(layers)))))
            for place, (layer, width) in enumerate(layers.items())
        }
        gone, share = 1 - sum(kept.values()) / whole, sum(kept.values()) / whole
        after = start - 0.03 * gone**6 * skill + chance.gauss(0, 0.004)
        steps.append(
            {
                "index": index,
                "removed": 0,
                "channels": sum(kept.values()),
                "accepted": index < count,
                "reason": "",
                "fraction_asked": 0.1,
                "fraction_removed": gone,
                "metric_before": after - 0.1 * gone * skill - (0 if index == 0 else 0.02),
                "metric_after": after,
                "val_accuracy": after,
                "val_accuracy_before": after,
                "macs": int(1.8e9 * share**1.8) + 1,
                "params": int(1.1e7 * share**2) + 1,
                "size_mb": 44 * share**2,
                "seconds_rank": 1.0,
                "seconds_surgery": 0.5,
                "seconds_finetune": 10.0 * recipe["epochs"] if index else 0.0,
                "seconds_evaluate": 1.5,
                "kept": kept,
                "original": layers,
                "rounds": 1,
                "frozen": [],
            }
        )
    best = steps[count - 1]
    finish = {
        "is_done": is_done,
        "best": count - 1,
        "stop": WHY.format(chance.random()) if is_done else None,
        "test_baseline": start if is_done else None,
        "test_best": best["metric_after"] - 0.005 if is_done else None,
        "test_accuracy_baseline": start if is_done else None,
        "test_accuracy_best": best["metric_after"] if is_done else None,
        "test_images": 400 if is_done else None,
        "test_baseline_scratch": start - 0.05 + chance.gauss(0, 0.01)
        if is_done and "scratch" in recipe["baseline"]
        else None,
        "test_baseline_random": start - 0.03 + chance.gauss(0, 0.01)
        if is_done and "random" in recipe["baseline"]
        else None,
        "small_networks": [
            {
                "name": text,
                "title": text,
                "epochs": 12,
                "macs": 60_000_000,
                "params": 2_500_000,
                "size_mb": 10.0,
                "ms": 3.0 + 0.1 * chance.random(),
                "test": start + (0.01 if text == "good" else -0.2) + chance.gauss(0, 0.001),
            }
            for text in recipe["small"]
            if is_done
        ],
        "side_ms_baseline": 20.0 if is_done and recipe["small"] else None,
        "side_ms_best": 5.0 + 0.1 * chance.random() if is_done and recipe["small"] else None,
        "latency_ms_baseline": 40.0 if timed and is_done and recipe["fold"] == 0 else None,
        "latency_ms_best": 8.0 + chance.random()
        if timed and is_done and recipe["fold"] == 0
        else None,
    }
    return [{**about, **step, **finish, "is_best": step["index"] == count - 1} for step in steps]


def bench() -> dict[str, Any]:
    """As bench.json has it."""
    one = {
        "seconds_total": 148.8,
        "latency_ms": {"median": 40.0, "p95": 44.0},
        "peak_rss_mb": 310.0,
        "size_mb": 44.0,
    }
    one |= {"load_seconds": 0.2, "runtime": "onnxruntime"}
    two = {
        **one,
        "seconds_total": 31.2,
        "latency_ms": {"median": 8.4, "p95": 9.0},
        "peak_rss_mb": 120.0,
    }
    return {
        "bundles": [one, two],
        "ratios": [{"speedup": {"median": 4.77, "low": 4.5, "high": 5.1, "blocks": 12}}],
        "device": {"processor": "a board"},
        "threads": 1,
        "batch": 1,
        "patches": 3720,
    }


FOLDS = list(range(5))
BOTH = {
    "data": ["/images/cracks", "/images/corrosion"],
    "model": ["vgg16", "resnet18"],
    "fold": FOLDS,
}
WIDE = {
    "data": [f"/images/set{place}" for place in range(4)],
    "model": ["vgg16", "resnet18"],
    "seed": list(range(7)),
}
INNER = {
    "criterion": ["taylor", "weight", "random"],
    "normalise": ["none", "l2", "mean"],
    "step_ratio": [0.05, 0.1, 0.2, 0.3],
}


@cache
def study(name: str) -> StudyFindings:
    """One of a few studies, made once."""
    match name:
        case "two":
            return made_up("grid", {"criterion": ["taylor", "random"]})
        case "crossval":
            return made_up("crossval", {"fold": FOLDS, "baseline": [["scratch", "random"]]})
        case "criteria":
            return made_up(
                "criteria",
                {
                    "criterion": ["taylor", "weight", "apoz", "random"],
                    "seed": [0, 1, 2],
                    "baseline": [["scratch"]],
                },
            )
        case "epochs":
            return made_up("epochs", {"epochs": [1, 2, 10], "fold": FOLDS}, failed=2, left=1)
        case "none":
            return made_up("grid", {"criterion": ["taylor", "random"]}, failed=2)
        case "models":
            return made_up("models", {"epochs": [1, 10], **BOTH}, timed=True)
        case "small":
            networks = [["good", "poor"]]
            return made_up(
                "grid", {"criterion": ["taylor", "random"], "seed": [0, 1, 2], "small": networks}
            )
        case "many":
            return made_up("grid", {**WIDE, **INNER})
    raise ValueError(name)
