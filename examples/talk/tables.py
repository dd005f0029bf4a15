"""The results of the talk (Wu et al. 2019) in its order, each beside that of a study.

    prunedge study examples/talk/study.toml --out studies/talk
    python examples/talk/tables.py studies/talk > talk.md

Reads STUDY/study.csv, which has a row for each step of each trial, and writes Markdown. A result
that the study has not measured is said to be missing.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev, variance

import numpy as np

Row = dict[str, str]
Trial = list[Row]  # its steps, the unpruned model first

FRACTIONS = (0.5, 0.75, 0.9, 0.97)  # of the filters pruned, where the variance is looked at
ELSEWHERE = "run `prunedge bench` on the device: see README.md"
THE_TALK_S = {
    "size": "224",
    "weights": "imagenet",
    "folds": "5",
    "model": "vgg16, resnet18",
}


def main() -> None:
    """Read the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a study")
    trials = finished_trials(parser.parse_args().study / "study.csv")
    if not trials:
        raise SystemExit("no trial of this study has ended yet")

    metric = trials[0][0]["metric"]
    print("| result | the talk | this study |\n| --- | --- | --- |")
    for result, talk, found in results(trials, metric):
        print(f"| {result} | {talk} | {found} |")
    print("\nWhat is not as in the talk, so that no figure is taken for a repetition of its own:\n")
    for line in differences(trials):
        print(f"- {line}")


def finished_trials(file: Path) -> list[Trial]:
    """The trials that have ended, each with its steps in order."""
    trials: dict[str, Trial] = {}
    if not file.is_file():
        raise SystemExit(
            f"there is no {file}: has the study ended? prunedge study status {file.parent}"
        )
    with file.open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            if row["is_done"] == "True":
                trials.setdefault(row["trial"], []).append(row)
    return list(trials.values())


def results(trials: list[Trial], metric: str) -> list[tuple[str, str, str]]:
    """Each result of the talk in its order: what it is, the talk's figure, and the study's."""
    return [
        (
            f"{metric} without pruning",
            "VGG16, shown in a figure",
            of_each(trials, lambda some: percent(some, "test_baseline")),
        ),
        (
            f"{metric} after pruning",
            "stays decent",
            of_each(trials, lambda some: percent(some, "test_best")),
        ),
        (
            "where filters go",
            "early layers lose less, and layers between the same pooling layers similar numbers",
            of_each(trials, thirds),
        ),
        (
            f"epochs of a step: {metric}",
            "hardly depends on them (1 to 10)",
            by_epochs(trials, difference_of_epochs),
        ),
        (
            "epochs of a step: pruning time",
            "1.5 h with one (server), 4.6 x faster than 10",
            by_epochs(trials, time_of_epochs),
        ),
        (
            "inference on the server, 3,720 patches",
            "TITAN X, VGG16: 13.1 s to 4.0 s (cracks), 13.2 s to 3.7 s (corrosion), 3.5 x faster",
            of_each(trials, times),
        ),
        (
            "inference on the edge, 3,720 patches",
            "Jetson TX2, VGG16: 279.7 s to 31.6 s and 275.7 s to 30.6 s, 8.9 x faster; "
            "ResNet18: 36.8 s to 8.9 s, 4.1 x",
            ELSEWHERE,
        ),
        ("size", "VGG16 525 MB to 125 MB, ResNet18 44 MB to 2 MB", of_each(trials, sizes)),
        (
            "variance over folds, points²",
            "small, and larger where 97 % of the filters are pruned",
            of_each(trials, variances),
        ),
        ("gain on the edge against the server", "8.9 x against 3.5 x", ELSEWHERE),
    ]


def of_each(trials: list[Trial], what: Callable[[list[Trial]], str]) -> str:
    """A line for each set of images, model and number of epochs."""
    lines = []
    for (data, model, epochs), some in grouped(trials, "data_name", "model", "epochs").items():
        lines.append(f"{data}, {model}, epochs {epochs}: {what(some)}")
    return "<br>".join(lines)


def by_epochs(trials: list[Trial], what: Callable[[list[Trial], list[Trial]], str]) -> str:
    """A line for each set of images and model: the fewest epochs against the most."""
    lines = []
    for values, some in grouped(trials, "data_name", "model").items():
        counts = {int(epochs): of for (epochs,), of in grouped(some, "epochs").items()}
        if len(counts) > 1:
            fewest, most = min(counts), max(counts)
            said = what(counts[fewest], counts[most])
            lines.append(f"{', '.join(values)}: {fewest} against {most} epochs: {said}")
    return "<br>".join(lines) or "one number only"


def grouped(trials: list[Trial], *keys: str) -> dict[tuple[str, ...], list[Trial]]:
    """The trials by their values of these settings."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial[0][key] for key in keys), []).append(trial)
    return groups


def spread(values: list[float], digits: int = 1) -> str:
    """The mean, with the standard deviation of several."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f} (n = 1)"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f} (n = {len(values)})"


def percent(trials: list[Trial], key: str) -> str:
    """A share on the test split."""
    return f"{spread([100 * float(trial[0][key]) for trial in trials])} %"


def best_of(trial: Trial) -> Row:
    """The step that was handed over."""
    return next(row for row in trial if row["is_best"] == "True")


def thirds(trials: list[Trial]) -> str:
    """The share of their filters that the first and the last layers have kept."""
    shares = []
    for trial in trials:
        original = json.loads(trial[0]["original"])
        kept = json.loads(best_of(trial)["kept"])
        shares.append([kept.get(name, 0) / count for name, count in original.items()])
    mean = np.mean(shares, axis=0)
    third = max(1, len(mean) // 3)
    return (
        f"{mean[:third].mean():.0%} kept in the first third, {mean[-third:].mean():.0%} in the last"
    )


def difference_of_epochs(few: list[Trial], many: list[Trial]) -> str:
    """By how many points the metric differs, fold by fold."""
    pairs = [
        100 * (float(one["test_best"]) - float(other["test_best"]))
        for one, other in paired(few, many)
    ]
    return f"{spread(pairs, 2)} points" if pairs else "no pairs yet"


def time_of_epochs(few: list[Trial], many: list[Trial]) -> str:
    """How long the pruning took, and by how much the more epochs are slower, fold by fold."""
    took = {trial[0]["trial"]: seconds(trial) for trial in [*few, *many]}
    pairs = paired(few, many)
    if not pairs:
        return "no pairs yet"
    ratios = [took[other["trial"]] / took[one["trial"]] for one, other in pairs]
    hours = [took[one["trial"]] / 3600 for one, _ in pairs]
    return f"{spread(hours, 2)} h, {spread(ratios)} x faster"


def paired(few: list[Trial], many: list[Trial]) -> list[tuple[Row, Row]]:
    """Trials of the same fold and seed."""
    others = {(trial[0]["fold"], trial[0]["seed"]): trial[0] for trial in many}
    pairs = []
    for trial in few:
        other = others.get((trial[0]["fold"], trial[0]["seed"]))
        if other is not None:
            pairs.append((trial[0], other))
    return pairs


def seconds(trial: Trial) -> float:
    """What all steps of a trial took."""
    parts = ("rank", "surgery", "finetune", "evaluate")
    return sum(float(row[f"seconds_{part}"]) for row in trial for part in parts)


def times(trials: list[Trial]) -> str:
    """A patch with the unpruned and the pruned model, where they were timed."""
    for trial in trials:
        if trial[0]["latency_ms_best"]:
            before = float(trial[0]["latency_ms_baseline"])
            after = float(trial[0]["latency_ms_best"])
            return f"{before:.2f} to {after:.2f} ms a patch, {before / after:.1f} x"
    return "not measured yet"


def sizes(trials: list[Trial]) -> str:
    """The megabytes of the unpruned and the pruned model."""
    before = fmean(float(trial[0]["size_mb"]) for trial in trials)
    after = fmean(float(best_of(trial)["size_mb"]) for trial in trials)
    return f"{before:.3g} MB to {after:.3g} MB"


def variances(trials: list[Trial]) -> str:
    """The variance on validation data at each pruned fraction that several folds have reached."""
    texts = []
    for fraction in FRACTIONS:
        values = [value for trial in trials if (value := at_fraction(trial, fraction)) is not None]
        if len(values) > 1:
            texts.append(f"{variance(values):.2g} at {fraction:.0%} (n = {len(values)})")
    return ", ".join(texts) or "not reached by two folds"


def at_fraction(trial: Trial, fraction: float) -> float | None:
    """The metric in percent where so many filters are gone, linear between the steps that were
    kept; None where the trial hasn't come so far.
    """
    kept = [row for row in trial if row["accepted"] == "True" and row.get("is_polish") != "True"]
    gone = [float(row["fraction_removed"]) for row in kept]
    if fraction > max(gone):
        return None
    order = np.argsort(gone)
    values = [100 * float(row["metric_after"]) for row in kept]
    return float(np.interp(fraction, np.take(gone, order), np.take(values, order)))


def differences(trials: list[Trial]) -> list[str]:
    """What is not as in the talk."""
    counts = {trial[0]["data_name"]: trial[0]["test_images"] for trial in trials}
    images = ", ".join(f"{name} ({count} test images)" for name, count in counts.items())
    lines = [
        f"The images: {images}; the talk has 8,887 test patches of cracks and 10,078 of corrosion."
    ]
    for key, of_talk in THE_TALK_S.items():
        values = ", ".join(dict.fromkeys(trial[0][key] for trial in trials))
        if values != of_talk:
            lines.append(f"{key}: {values}; the talk: {of_talk}.")
    lines.append(
        "Fractions are of prunable channels, those tied by a residual sum counted once; the split "
        "never parts a source."
    )
    return lines


if __name__ == "__main__":
    main()
