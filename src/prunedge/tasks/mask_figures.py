"""Metrics of masks where each image counts any number of times, by counts of their pixels. Pure.

Pooled metrics count the pixels of all images together. Those per image are the mean over the images
of each one's own, where an image counts 1 that neither has the class nor was taken to have it. Both
are not defined where no image shows the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunedge.edge.tasks.segmentation import METRICS
from prunedge.tasks import figures as of
from prunedge.tasks import mask_counts
from prunedge.tasks.base import ConstantAnswer

OF_PARTS = ("iou", "dice", "precision", "recall")  # metrics of each class
BY_IMAGE = ("iou", "dice")  # of these also the mean over images
SUFFIX = "_per_image"


def figures_of(
    classes: Sequence[str],
    damage: Sequence[int],
    counts: np.ndarray,
    lines: np.ndarray,
    weights: np.ndarray,
) -> of.Figures:
    """The metrics, and of several damage classes those of each, of images that count as often as
    `weights` (rows, n) say.

    `damage` are the numbers of the classes that are damage, `counts` (n, classes, 3) and `lines`
    (n, 6) as the meter keeps them.
    """
    is_counting = counts[:, :, 0].sum(1) > 0
    parts = []
    means = []
    for number in damage:
        there, answered, both = counts[:, number].T
        values = mask_counts.class_values(weights, there, answered, both)
        of_images = mask_counts.values_by_image(there, answered, both)
        for name in BY_IMAGE:
            mean = _mean(weights, of_images[name], is_counting)
            values[name + SUFFIX] = np.where(weights @ there > 0, mean, np.nan)
        means.append(values)
        figures = tuple(of.Figure(METRICS[name], values[name]) for name in OF_PARTS)
        parts.append(of.Part(classes[number], int((there > 0).sum()), figures))

    of_lines = _line_values(weights, lines, is_counting)
    metrics = []
    for name, metric in METRICS.items():
        if name in of_lines:
            metrics.append(of.Figure(metric, of_lines[name]))
        else:
            metrics.append(of.Figure(metric, of.mean_of([values[name] for values in means])))
    return of.Figures(tuple(metrics), tuple(parts) if len(parts) > 1 else ())


def constants(
    damage: Sequence[int], counts: np.ndarray, lines: np.ndarray
) -> dict[str, list[float]]:
    """What taking every pixel for each class (classes) scores by the metrics per image: an image
    without damage is right for one that answers none. What fills an image has no centreline to
    speak of.
    """
    is_counting = counts[:, :, 0].sum(1) > 0
    pixels = counts[is_counting, :, 0].astype(np.float64)
    shown = [number for number in damage if pixels[:, number].any()]
    shares = pixels / pixels.sum(1, keepdims=True)
    drawn = lines[is_counting]
    without_line = float((drawn[:, 0] == 0).mean()) if drawn.size else 0.0

    scores: dict[str, list[float]] = {name: [] for name in METRICS if name.endswith(SUFFIX)}
    for answer in range(pixels.shape[1]):
        by_class: dict[str, list[float]] = {name: [0.0] for name in BY_IMAGE}
        for number in shown:
            share = shares[:, number]
            if answer != number:
                share = (share == 0).astype(np.float64)
            by_class["iou"].append(float(share.mean()))
            by_class["dice"].append(float((2 * share / (1 + share)).mean()))
        for name, values in by_class.items():
            scores[name + SUFFIX].append(sum(values) / max(1, len(shown)))
        for name in mask_counts.OF_LINES:
            scores[name + SUFFIX].append(0.0 if answer in damage else without_line)
    return scores


def best_constant(details: Mapping[str, Any], metric: str, damage: Sequence[int]) -> ConstantAnswer:
    """The damage class with the most pixels and what taking every pixel for it scores, or by a
    metric per image the best of all classes; by the details of a model's metrics.
    """
    if metric.endswith(SUFFIX):
        by_answer = details["constants"][metric]
        best = max(range(len(by_answer)), key=by_answer.__getitem__)
        return ConstantAnswer(best, by_answer[best])
    pixels = [record["pixels"] for record in details["classes"]]
    number = max(damage, key=pixels.__getitem__)
    classes = max(1, sum(pixels[one] > 0 for one in damage))
    share = pixels[number] / max(1, sum(pixels))
    scores = {
        "iou": share,
        "dice": 2 * share / (1 + share),
        "precision": share,
        "recall": float(pixels[number] > 0),
    }
    return ConstantAnswer(number, scores.get(metric, 0.0) / classes)


def _line_values(
    weights: np.ndarray, lines: np.ndarray, is_counting: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of centrelines (rows,), pooled and per image."""
    values = mask_counts.line_values(weights, lines)
    if not lines.shape[1]:
        return {**values, **{name + SUFFIX: value for name, value in values.items()}}
    is_there = weights @ lines[:, 0] > 0
    for name, of_images in mask_counts.lines_by_image(lines).items():
        mean = _mean(weights, of_images, is_counting)
        values[name + SUFFIX] = np.where(is_there, mean, np.nan)
    return values


def _mean(weights: np.ndarray, values: np.ndarray, is_counting: np.ndarray) -> np.ndarray:
    """The mean (rows,) of values (n,) over the images of which any pixel counts."""
    return of.ratio(weights @ (values * is_counting), weights @ is_counting)
