"""A study beside the talk that began it (Wu et al. 2019): both their figures, and what differs.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from prunedge.edge.bench.ratios import UNTOLD, speed_of
from prunedge.report.metric_text import (
    difference_number,
    is_share,
    metric_spread,
)
from prunedge.report.study.cells import device_of, duration, times_faster
from prunedge.report.study.numbers import (
    Groups,
    Row,
    Trial,
    at_end,
    at_start,
    curve,
    shares,
    time_ratios,
)
from prunedge.report.study.section import StudyRows
from prunedge.report.study.tables import Table
from prunedge.study.statistics import FRACTIONS, spread
from prunedge.study.summary import comparisons, metric_of
from prunedge.utils.wording import counted, significant_pair

# The talk's results, which stand under the titles of the sections on them.
RESULTS = {
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
_SIZE = 224
_WEIGHTS = "imagenet"
_FOLDS = 5
_PATCHES = 3720
_MOST = 8  # combinations in a cell


def differences(rows: Sequence[Row], benches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as in the talk, so that no figure of the study is taken for a repetition of one
    of the talk's.
    """
    lines = [
        f"The images: {_images(rows)}; the talk has 8,887 test patches of cracks and 10,078 of "
        "corrosion."
    ]
    for key, of_talk, name in (
        ("size", _SIZE, "Image size"),
        ("weights", _WEIGHTS, "Starting weights"),
        ("folds", _FOLDS, "Folds"),
    ):
        values = sorted({str(row[key]) for row in rows})
        if values != [str(of_talk)]:
            lines.append(f"{name}: {', '.join(values)}; the talk: {of_talk}.")
    models = {row["model"] for row in rows}
    others = sorted(model for model in models if family(model) != _MODELS.get(model))
    if others:
        lines.append(f"Models that the talk doesn't have: {', '.join(others)}.")
    if benches:
        devices = sorted({device_of(bench) for bench in benches.values()})
        lines.append(f"Times: {'; '.join(devices)}; the talk: a TITAN X and a Jetson TX2.")
        patches = sorted({bench["patches"] for bench in benches.values()} - {_PATCHES})
        if patches:
            lines.append(f"Patches timed: {', '.join(map(str, patches))}; the talk: {_PATCHES:,}.")
    lines.append(
        "Fractions are of prunable channels, those tied by a residual sum counted once; "
        "the split never parts a source."
    )
    return lines


def family(model: str) -> str | None:
    """The talk's model that a model is a kind of."""
    for name, title in _MODELS.items():
        if model.startswith(name):
            return title
    return None


def beside(study: StudyRows) -> Table:
    """Each result of the talk, in its order, beside the study's: what hasn't been measured is said
    to be missing.
    """
    combinations = study.combinations()
    before = _each(combinations, _metric("test_baseline"))
    after = _each(combinations, _metric("test_best"))
    by_epochs = _by_epochs(study)
    speeds = _speeds(study.benches, study.names())
    unit = "points" if is_share(study.metric) else study.metric.unit
    name = study.metric.name
    lines = [
        (f"{name} without pruning", "VGG16, shown in a figure", before),
        (f"{name} after pruning", "stays decent", after),
        ("where filters go", "early layers lose less", _each(combinations, _thirds)),
        (f"epochs: {name}", "hardly depends on them (1 to 10)", by_epochs),
        ("epochs: pruning time, the fewest", "1.5 h, 4.6 × faster than 10", _times(study)),
        ("inference, server", "VGG16 3.5 × faster (TITAN X)", speeds),
        ("inference, edge", "VGG16 8.9 ×, ResNet18 4.1 × faster (Jetson TX2)", _ELSEWHERE),
        ("size", "VGG16 525 → 125 MB, ResNet18 44 → 2 MB", _each(combinations, _size)),
        (
            f"variance over folds, {unit}²",
            "small, larger at 97 %",
            _each(combinations, _variance),
        ),
        ("gain on the edge against the server", "8.9 against 3.5", _ELSEWHERE),
    ]
    return Table(("result", "the talk", "this study"), lines, is_prose=True)


def _images(rows: Sequence[Row]) -> str:
    """The sets of images with the size of their test splits."""
    counts: dict[str, int | None] = {}
    for row in rows:
        counts.setdefault(row["data_name"], None)
        if row["test_images"] is not None:
            counts[row["data_name"]] = row["test_images"]
    texts = []
    for name, count in counts.items():
        texts.append(name if count is None else f"{name} ({count:,} test images)")
    return ", ".join(texts)


def _metric(key: str) -> Callable[[list[Trial]], str]:
    return lambda trials: metric_spread(metric_of(trials[0]), at_end(trials, key))


def _each(combinations: Groups, what: Callable[[list[Trial]], str]) -> str:
    """A line for each of the first combinations."""
    lines = [f"{name}: {what(trials)}" for name, trials in list(combinations.items())[:_MOST]]
    if len(combinations) > _MOST:
        lines.append("…")
    return "\n".join(lines)


def _thirds(trials: list[Trial]) -> str:
    kept = list(shares(trials).values())
    third = max(1, len(kept) // 3)
    return (
        f"{fmean(kept[:third]):.0%} kept in the first third of the layers, "
        f"{fmean(kept[-third:]):.0%} in the last"
    )


def _size(trials: list[Trial]) -> str:
    before = at_start(trials, "size_mb").mean
    after = at_end(trials, "size_mb").mean
    return f"{' → '.join(significant_pair(before, after))} MB"


def _variance(trials: list[Trial]) -> str:
    """The variance at the smallest and at the largest fraction that several trials reached."""
    factor = 1e4 if is_share(metric_of(trials[0])) else 1.0
    reached = curve(trials, "metric_after", FRACTIONS)
    texts = []
    for fraction, mean in reached.items():
        if mean.n > 1:
            texts.append(f"{factor * mean.variance:.2g} at {fraction:.0%}")
    return f"{texts[0]}, {texts[-1]}" if texts else "one trial has none"


def _by_epochs(study: StudyRows) -> str:
    """How the metric differs between the numbers of epochs."""
    if "epochs" not in study.axes:
        return "one number only"
    metric = study.metric
    lines = []
    for first, second, pairs in comparisons(study.rows, study.axes, "epochs"):
        difference = f"{difference_number(metric, pairs.difference)} {metric.unit}"
        both = f"{first} against {counted(int(second), 'epoch')}"
        lines.append(f"{both}: {difference} (n = {pairs.n})")
    return "\n".join(lines) or "one number only"


def _times(study: StudyRows) -> str:
    """How long pruning took with the fewest epochs, and how much longer with the most."""
    if "epochs" not in study.axes:
        return "one number only"
    lines = []
    for name, by_epochs in time_ratios(study.rows, study.axes).items():
        fewest = min(by_epochs)
        most = max(by_epochs)
        took, ratios = by_epochs[fewest]
        if ratios and fewest != most:
            ratio = times_faster(ratios)
            than = f"{ratio} from {most}" if ratio == UNTOLD else f"{ratio} faster than {most}"
            lines.append(f"{name}: {duration(spread(took))}, {than}")
    return "\n".join(lines) or "no pairs yet"


def _speeds(benches: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    lines = []
    for trial, bench in benches.items():
        speed = speed_of(bench).words("×")
        lines.append(f"{names[trial]}: {speed} on {bench['device']['processor']}")
    return "\n".join(lines) or "not measured yet"
