"""A study beside the talk that began it (Wu et al. 2019): its figures, ours, and what differs.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from prunedge.edge.bench.ratios import UNTOLD, speed_of
from prunedge.report.study.numbers import Groups, Row, Trial, curve, over, shares, time_ratios
from prunedge.report.study.tables import Table, device_of, duration, times_faster, with_spread
from prunedge.study.statistics import FRACTIONS, spread
from prunedge.study.summary import comparisons

# What stands under a section's title.
SAID = {
    "summary": (
        "transfer learning first, without pruning; then VGG16 525 MB → 125 MB and ResNet18 44 "
        "MB → 2 MB"
    ),
    "curves": "VGG16 and ResNet18 stay decent before and after fine-tuning at each pruned fraction",
    "layers": (
        "early layers lose less, and layers between the same pooling layers lose similar numbers"
    ),
    "epochs": (
        "accuracy hardly depends on the epochs per step (1 to 10); 1 instead of 10 took 1.5 h "
        "on the server, 4.6 times faster"
    ),
    "times": (
        "3,720 patches. Server (TITAN X), VGG16: 13.1 s → 4.0 s (cracks), 13.2 s → 3.7 s "
        "(corrosion), 3.5 times. Edge (Jetson TX2), "
        "VGG16: 279.7 s → 31.6 s and 275.7 s → 30.6 s, 8.9 times; ResNet18: 36.8 s → 8.9 s, 4.1 "
        "times. The gain on the edge is larger"
    ),
    "fractions": (
        "five folds, VGG16: the variance of the accuracy stays small, and grows at 97 % of the "
        "filters pruned"
    ),
}
_MODELS = {"vgg16": "VGG16", "resnet18": "ResNet18"}
_ELSEWHERE = (
    "a study times models on the machine that prunes: carry its bundles to the device and "
    "run prunedge bench there"
)
_SIZE, _WEIGHTS, _FOLDS, _PATCHES = 224, "imagenet", 5, 3720


def differs(rows: Sequence[Row], benches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as in the talk, so that no figure of ours is taken for a repetition of one of
    its.
    """
    names = list(dict.fromkeys(row["data_name"] for row in rows))
    images = {
        row["data_name"]: row["test_images"] for row in rows if row["test_images"] is not None
    }
    ours = ", ".join(
        f"{name} ({images[name]:,} test images)" if name in images else name for name in names
    )
    found = [
        f"The images: {ours}; the talk has 8,887 test patches of cracks and 10,078 of corrosion."
    ]
    for key, talk, said in (
        ("size", _SIZE, "Image size"),
        ("weights", _WEIGHTS, "Starting weights"),
        ("folds", _FOLDS, "Folds"),
    ):
        values = sorted({str(row[key]) for row in rows})
        if values != [str(talk)]:
            found.append(f"{said}: {', '.join(values)}; the talk: {talk}.")
    others = sorted(
        {row["model"] for row in rows if family(row["model"]) != _MODELS.get(row["model"])}
    )
    if others:
        found.append(f"Models that the talk doesn't have: {', '.join(others)}.")
    if benches:
        devices = sorted({device_of(one) for one in benches.values()})
        found.append(f"Times: {'; '.join(devices)}; the talk: a TITAN X and a Jetson TX2.")
        patches = sorted({one["patches"] for one in benches.values()} - {_PATCHES})
        if patches:
            found.append(f"Patches timed: {', '.join(map(str, patches))}; the talk: {_PATCHES:,}.")
    found.append(
        "Fractions are of prunable channels, those tied by a residual sum counted once; "
        "the split never parts a source."
    )
    return found


def family(model: str) -> str | None:
    """The talk's model that a model is a kind of."""
    return next((said for name, said in _MODELS.items() if model.startswith(name)), None)


def beside(
    rows: Sequence[Row],
    axes: Sequence[str],
    found: Groups,
    benches: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> Table:
    """Each result of the talk, in its order, beside ours: what hasn't been measured is said to be
    missing.
    """
    lines = [
        (
            "accuracy without pruning",
            "VGG16, shown in a figure",
            _each(found, _metric("test_baseline")),
        ),
        ("accuracy after pruning", "stays decent", _each(found, _metric("test_best"))),
        ("where filters go", "early layers lose less", _each(found, _thirds)),
        ("epochs: accuracy", "hardly depends on them (1 to 10)", _epochs(rows, axes)),
        ("epochs: pruning time, the fewest", "1.5 h, 4.6 × faster than 10", _times(rows, axes)),
        ("inference, server", "VGG16 3.5 × faster (TITAN X)", _speeds(benches, names)),
        ("inference, edge", "VGG16 8.9 ×, ResNet18 4.1 × faster (Jetson TX2)", _ELSEWHERE),
        ("size", "VGG16 525 → 125 MB, ResNet18 44 → 2 MB", _each(found, _size)),
        ("variance over folds, points²", "small, larger at 97 %", _each(found, _variance)),
        ("gain on the edge against the server", "8.9 against 3.5", _ELSEWHERE),
    ]
    return Table(("result", "the talk", "this study"), lines, is_prose=True)


def _metric(key: str) -> Callable[[list[Trial]], str]:
    return lambda trials: with_spread(over(trials, lambda _, best: best[key]), "%")


def _each(found: Groups, what: Callable[[list[Trial]], str]) -> str:
    return "\n".join(f"{name}: {what(trials)}" for name, trials in list(found.items())[:8]) + (
        "\n…" if len(found) > 8 else ""
    )


def _thirds(trials: list[Trial]) -> str:
    kept = list(shares(trials).values())
    third = max(1, len(kept) // 3)
    return (
        f"{fmean(kept[:third]):.0%} kept in the first third of the layers, "
        f"{fmean(kept[-third:]):.0%} in the last"
    )


def _size(trials: list[Trial]) -> str:
    before, after = (
        over(trials, lambda first, _: first["size_mb"]),
        over(trials, lambda _, best: best["size_mb"]),
    )
    return f"{before.mean:.3g} → {after.mean:.3g} MB"


def _variance(trials: list[Trial]) -> str:
    reached = curve(trials, "metric_after", FRACTIONS)
    known = [(f, one.variance) for f, one in reached.items() if one.n > 1]
    return (
        (
            f"{1e4 * known[0][1]:.2g} at {known[0][0]:.0%}, {1e4 * known[-1][1]:.2g} at "
            f"{known[-1][0]:.0%}"
        )
        if known
        else "one trial has none"
    )


def _epochs(rows: Sequence[Row], axes: Sequence[str]) -> str:
    found = comparisons(rows, axes, "epochs") if "epochs" in axes else []
    return (
        "\n".join(
            f"{a} against {b} epochs: {100 * one.difference:+.1f} points (n = {one.n})"
            for a, b, one in found
        )
        or "one number only"
    )


def _times(rows: Sequence[Row], axes: Sequence[str]) -> str:
    if "epochs" not in axes:
        return "one number only"
    said = []
    for name, several in time_ratios(rows, axes).items():
        took, ratios = several[least := min(several)]
        if ratios and least != max(several):
            ratio = times_faster(ratios)
            than = (
                f"{ratio} from {max(several)}"
                if ratio == UNTOLD
                else f"{ratio} faster than {max(several)}"
            )
            said.append(f"{name}: {duration(spread(took))}, {than}")
    return "\n".join(said) or "no pairs yet"


def _speeds(benches: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    said = [
        f"{names[trial]}: {speed_of(one).said('×')} on {one['device']['processor']}"
        for trial, one in benches.items()
    ]
    return "\n".join(said) or "not measured yet"
