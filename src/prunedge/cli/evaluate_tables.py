"""What `prunedge evaluate` prints: the metrics, each class, and what to mind about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prunedge.edge.tasks.by_class import USUAL_THRESHOLD
from prunedge.utils.wording import counted, first_of, probability

if TYPE_CHECKING:
    from rich.table import Table

    from prunedge.runs.evaluation import Evaluation
    from prunedge.train.intervals import Estimate


def print_evaluation(result: Evaluation) -> None:
    """The metrics with their intervals, the classes, and the lines of `remarks`."""
    from prunedge.cli.console import out

    part = "all images" if result.side == "all" else f"the {result.side} split"
    out.print(f"{result.title} ({result.form}) on {part} of {result.data}")
    out.print(_metrics(result))
    if result.metric in [one.metric.name for one in result.intervals.metrics]:
        out.print("* the metric that the model was chosen by")
    if result.intervals.parts:
        if result.decided is not None:
            out.print("each class, by the most probable answer:")
        out.print(_parts(result))
    for line in (*decided_lines(result), *remarks(result)):
        out.print(line)


def decided_lines(result: Evaluation) -> Iterator[str]:
    """What is found and missed at the model's threshold."""
    decided = result.decided
    part = result.intervals.decided
    if decided is None or part is None:
        return
    decision = decided.decision
    counts = decided.counts
    damaged = counts.found + counts.missed
    sound = counts.alarms + counts.quiet
    threshold = USUAL_THRESHOLD if decision.threshold is None else decision.threshold
    reason = f" ({decision.rule} on validation data)" if decision.rule else ""
    yield (
        f"damage ({', '.join(decision.damage)}) from a probability of "
        f"{probability(threshold)} on{reason}: "
        f"{counts.found:,} of {counted(damaged, f'damaged {decided.unit}')} found, "
        f"{counts.missed:,} missed; {counted(counts.alarms, 'false alarm')} among {sound:,} sound"
    )
    figures = []
    for one in part.estimates:
        value, bounds = _cells(one)
        figures.append(f"{one.metric.name} {value} {bounds}".rstrip())
    yield "; ".join(figures)


def remarks(result: Evaluation) -> Iterator[str]:
    """How many images were judged, what was left out, how the intervals were made, what was seen
    before.
    """
    lost = len(result.unreadable)
    read = f"{counted(result.images, 'image')} judged"
    if lost:
        lines = [f"{name} ({why})" for name, why in result.unreadable.items()]
        read += f"; {counted(lost, 'image')} can't be read: {first_of(lines)}"
    yield read
    if result.left_out:
        unknown = [f"{count:,} with {what}" for what, count in result.left_out.items()]
        total = counted(sum(result.left_out.values()), "image")
        yield f"mind: {total} left out, which the model has no answer for: {first_of(unknown)}"
    if result.missing:
        yield f"mind: no image shows {first_of(result.missing)}"
    constant = result.constant.get(result.metric)
    if constant is not None:
        score = result.judged.metric.text(constant)
        yield f"always answering {result.constant_answer} scores {score} by {result.metric}"
    yield _made_of(result)
    yield from _seen(result)


def _made_of(result: Evaluation) -> str:
    found = result.intervals
    what = f"95 % intervals: bootstrap, {counted(found.resamples, 'resample')} of "
    if result.has_sources:
        groups = counted(found.groups, "source")
        return f"{what}{groups} (images of one are drawn together), seed {found.seed}"
    images = counted(found.groups, "image")
    return f"{what}{images}, seed {found.seed}; no sources are known (see --group-by)"


def _seen(result: Evaluation) -> Iterator[str]:
    """What the model had seen of these images."""
    seen = result.seen
    if seen is None:
        yield "a bundle doesn't know its training images: evaluate its run to learn of leaks"
        return
    if seen.trained or seen.chosen:
        yield (
            f"mind: {seen.trained:,} of {counted(result.images, 'image')} taught the model, and "
            f"{seen.chosen:,} chose it: the score is too good for that"
        )
    elif not seen.unknown:
        yield "none of these images was seen in training, to the pixel"
    if seen.alike:
        look = counted(seen.alike, "other image looks", "other images look")
        yield f"mind: {look} like training images: copies, or things that look all alike"
    for line in seen.unknown:
        yield f"mind: {line}"


def _metrics(result: Evaluation) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("best constant answer", justify="right")
    for one in result.intervals.metrics:
        name = one.metric.name
        constant = result.constant.get(name)
        beside = "" if constant is None else one.metric.text(constant)
        mark = "*" if name == result.metric else ""
        table.add_row(f"{name}{mark}", *_cells(one), beside)
    return table


def _parts(result: Evaluation) -> Table:
    from rich.table import Table

    parts = result.intervals.parts
    table = Table(box=None, header_style="bold")
    has_support = any(part.support is not None for part in parts)
    table.add_column(result.heading if has_support else "number", overflow="fold")
    if has_support:
        table.add_column("images", justify="right")
    for one in parts[0].estimates:
        table.add_column(one.metric.name, justify="right")
    for part in parts:
        support = [f"{part.support:,}"] if has_support else []
        cells = [" ".join(_cells(one)) for one in part.estimates]
        table.add_row(part.name, *support, *cells)
    return table


def _cells(one: Estimate) -> tuple[str, str]:
    """A figure and its interval."""
    text = one.metric.text
    if one.value is None:
        return "-", ""
    if one.low is None or one.high is None:
        return text(one.value), "(one source)"
    return text(one.value), f"({text(one.low)} to {text(one.high)})"
