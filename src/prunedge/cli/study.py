"""`prunedge study`: many runs, one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from prunedge.cli.console import split
from prunedge.utils.advice import command, speak
from prunedge.utils.sanitize import by_kind, kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunedge.study import Book, Counts, Grid
    from prunedge.study.results import Row
    from prunedge.study.summary import Line

study = App(
    name="study",
    help=(
        "Run many trials and put them into one table: a grid from a TOML file, or one of the ready-made questions below.\n\n"
        "Example: `prunedge study crossval cracks/ --model resnet18 --folds 5 --out studies/cracks`"
    ),
    help_format="markdown",
)


Words = Annotated[list[str], Parameter(converter=split, negative="")]
Numbers = Annotated[list[int], Parameter(converter=split, negative="")]
Models = Annotated[list[str], Parameter(name=("--model", "--models"), converter=split, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every trial has.

    Parameters
    ----------
    weights
        imagenet, none, or a file.
    train_epochs
        Epochs of the transfer learning, once for each starting network.
    criterion
        How channels are ranked; several make several trials.
    normalise
        What each layer's scores are divided by before layers are compared: their Euclidean norm (l2), their mean, nothing (none), or
        their ranks are compared instead.
    per_layer
        Don't compare layers: each loses the same share.
    macs_penalty
        Takes this much times a channel's share of the network's MACs off its score, so that costly channels go first.
    per_mac
        Divide scores by the MACs that the channel costs.
    step
        Share of the remaining channels that a step removes.
    epochs
        Epochs of fine-tuning in each step; several make several trials.
    max_drop
        The rule: percentage points that the metric may lose on validation data.
    confidence
        Call the rule broken only when accuracy has dropped by more with this confidence (0.95).
    max_steps
        Stop after this many steps.
    target_macs
        Stop at this share of the unpruned network's MACs.
    target_params
        Stop at this share of the unpruned network's parameters.
    target_latency
        Stop when the network takes this long for a picture on the --device: 5ms, 0.8ms.
    device
        What channels cost is the time that they take on this device: local, or ssh://user@host with prunedge installed there.
    runtime
        The runtime that the device will use: onnx, openvino, tensorrt.
    device_threads
        Threads that one inference may use there.
    extra_rounds
        How often a step that breaks the rule is fine-tuned for --epochs more before it is taken back.
    compensate
        Hand what the removed channels gave on average to their consumers' biases (mean), or solve the consumers' weights anew for the
        least squared difference (lstsq), before fine-tuning.
    rewind
        Fine-tune with the last --epochs of the training's learning-rate schedule, instead of a whole schedule of its own.
    distill
        Weight (0 to 1) of the unpruned network's answers in the loss of the fine-tuning.
    regularise
        Draw channels to zero while training: L1 on the scales of batch norms, group lasso over all weights of a channel, or a
        penalty that grows for --epochs on those that are about to leave.
    strength
        Of --regularise, instead of its usual one.
    control
        Also train the pruned shape from random weights for as many epochs (scratch), or prune as many channels at random (random), and
        compare on test data; may be repeated (`study criteria`: scratch, unless another is given).
    keep_out
        A pattern of layer or group names that keep all their channels; may be repeated.
    least
        Every group keeps at least this many channels.
    multiple
        Groups that lose channels keep a multiple of this many.
    cap
        The largest share that a group may lose in one step (half, or twice the step where that is more; see `prunedge prune --help`).
    metric
        What the rule watches.
    seed
        Of the split, the random weights and the order of the pictures; several make several trials.
    size
        Pictures are stretched to size x size pixels.
    batch_size
        Pictures in a training step.
    augment
        How training pictures are changed in every epoch: full, flips, or none.
    lr
        Peak learning rate of the transfer learning.
    finetune_lr
        Peak learning rate of the fine-tuning.
    folds
        Cross-validation: parts that all pictures are shared out into; each is the test split once (`study crossval` and `study talk`: 5).
    fold
        These of the folds alone, from 0.
    group_by
        `parent`, or a regular expression on each path: pictures of one group stay on one side.
    skip_unreadable
        Go on without pictures that can't be read.
    range
        LOW:HIGH, the stored values that become black and white, for greys of more than eight bits.
    precision
        auto measures which is fastest here.
    """

    weights: str = "imagenet"
    train_epochs: int = 10
    criterion: Words = field(default_factory=lambda: ["taylor"])
    normalise: Literal["none", "l2", "mean", "rank"] = "l2"
    per_layer: bool = False
    macs_penalty: float = 0.0
    per_mac: bool = False
    step: float = 0.1
    epochs: Numbers = field(default_factory=lambda: [1])
    max_drop: float = 3.0
    confidence: float | None = None
    max_steps: int | None = None
    target_macs: float | None = None
    target_params: float | None = None
    target_latency: str | None = None
    device: str | None = None
    runtime: Literal["onnx", "openvino", "tensorrt"] = "onnx"
    device_threads: int = 1
    extra_rounds: int = 1
    compensate: Literal["none", "mean", "lstsq"] = "none"
    rewind: bool = False
    distill: float = 0.0
    regularise: Literal["none", "bn-l1", "group-lasso", "growing"] = "none"
    strength: float | None = None
    control: list[Literal["scratch", "random"]] | None = None
    keep_out: list[str] | None = None
    least: int = 2
    multiple: int = 1
    cap: float | None = None
    metric: Literal["accuracy", "f1", "auroc"] = "accuracy"
    seed: Numbers = field(default_factory=lambda: [0])
    size: int = 224
    batch_size: int = 32
    augment: Literal["none", "flips", "full"] = "full"
    lr: float | None = None
    finetune_lr: float | None = None
    folds: int | None = None
    fold: Annotated[list[int] | None, Parameter(converter=split, negative="")] = None
    group_by: str | None = None
    skip_unreadable: bool = False
    range: str | None = None
    precision: Literal["auto", "32", "32-channels-last", "bf16"] = "auto"

    def values(self) -> dict[str, Any]:
        """As a study's file has them."""
        from prunedge.cli.prune import milliseconds

        found = {key: value for key, value in vars(self).items() if value is not None}
        if self.target_latency is not None:
            found["target_latency"] = milliseconds(self.target_latency)
            found.setdefault("device", "local")
        return found


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where the trials run.

    Parameters
    ----------
    out
        The study's folder, or any fsspec URL (s3://bucket/study). With that of an earlier study, what is done there is not done again.
    engine
        Processes on this machine, or Ray.
    address
        Of a running Ray cluster (`auto` finds it); without it Ray starts on this machine.
    workers
        Trials at a time (as many as the cores allow); a running Ray cluster has its own number.
    threads
        Threads of each trial (the cores divided by the workers).
    gpus
        With Ray: the share of a GPU that each trial asks for.
    json
        Print the summary as JSON.
    """

    out: str
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    gpus: float = 0.0
    json: Annotated[bool, Parameter(negative="")] = False


@study.default
def grid(file: Path, *, where: Where) -> None:
    """Run the grid of a TOML file: keys of a recipe, each with a value or a list of values; `folds = 5` runs every fold.

    Example: `prunedge study criteria.toml --out studies/criteria`

    Parameters
    ----------
    file
        For example: data = "cracks/", model = ["resnet18", "vgg16_bn"], criterion = ["taylor", "random"], seed = [0, 1, 2]
    """
    from prunedge.study import Grid

    speak("study")  # what is to be mended stands in the file
    _run(Grid.from_toml(file), where)


@study.command
def crossval(data: str, *, model: Models, common: Common | None = None, where: Where) -> None:
    """How stable is it? Cross-validation: accuracy at each pruned fraction over the folds, and where the rule stops each.

    Example: `prunedge study crossval cracks/ --model vgg16_bn --folds 5 --out studies/crossval`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards. Folds never part a source.
    model
        A network, or several with commas between them.
    """
    from prunedge.study import presets

    values = _values(common)
    folds = values.pop("folds", presets.FOLDS)
    _run(presets.crossval(_paths(data), model, folds, values), where)


@study.command
def epochs(data: str, *, model: Models, common: Common | None = None, where: Where) -> None:
    """How few epochs of fine-tuning are enough? Accuracy against the pruned fraction for each number, and the pruning time of each.

    Example: `prunedge study epochs cracks/ --model vgg16_bn --epochs 1,2,5,10 --out studies/epochs`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A network, or several with commas between them.
    """
    from prunedge.study import presets

    values = _values(common)
    counts = values.pop("epochs")
    _run(presets.epochs(_paths(data), model, counts if len(counts) > 1 else presets.EPOCHS, values), where)


@study.command
def criteria(data: str, *, model: Models, common: Common | None = None, where: Where) -> None:
    """Which criterion? All of them (or those of --criterion) from the same starting network, with the controls.

    Example: `prunedge study criteria cracks/ --model resnet18 --seed 0,1,2 --out studies/criteria`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A network, or several with commas between them.
    """
    from prunedge.study import presets

    values = _values(common)
    names = values.pop("criterion")
    _run(presets.criteria(_paths(data), model, names if names != ["taylor"] else (), values), where)


@study.command
def networks(data: str, *, model: Models, common: Common | None = None, where: Where) -> None:
    """Which network? Filters left in each layer, time, size, MACs and accuracy side by side.

    Example: `prunedge study networks cracks/ --models vgg16_bn,resnet18 --out studies/networks`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A network, or several with commas between them.
    """
    from prunedge.study import presets

    _run(presets.networks(_paths(data), model, _values(common)), where)


@study.command
def talk(cracks: str, corrosion: str, *, model: Models | None = None, common: Common | None = None, where: Where) -> None:
    """All results of the talk (Wu et al. 2019) on two sets of pictures, each beside the talk's own figure.

    Example: `prunedge study talk cracks/ corrosion/ --out studies/talk`

    Parameters
    ----------
    cracks
        Class folders, a CSV manifest, or shards.
    corrosion
        Another.
    model
        A network, or several with commas between them (vgg16,resnet18).
    """
    from prunedge.study import presets

    values = _values(common)
    folds = values.pop("folds", presets.FOLDS)
    if len(values["epochs"]) == 1:
        values["epochs"] = list(presets.TALK_EPOCHS)
    first, second = _paths(cracks, corrosion)
    _run(presets.talk(first, second, model or ["vgg16", "resnet18"], folds, values), where)


@study.command
def status(folder: str, *, workers: int = 1, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """What is done, running, failed and left, with the time left.

    Example: `prunedge study status studies/cracks`

    Parameters
    ----------
    folder
        A study's folder or URL.
    workers
        Trials at a time, for the time left.
    json
        Print it as JSON.
    """
    from prunedge.cli.console import print_json, tell
    from prunedge.study import open_book

    counts = open_book(folder).counts(workers)
    if json:
        print_json(vars(counts))
        return
    tell(said(counts))
    for title, names in (("running", counts.running), ("left", counts.left)):
        for name in names:
            tell(f"{title}: {name}")
    for line in by_kind(counts.failed):
        tell(f"failed: {line}")


def said(counts: Counts) -> str:
    """The counts in a line."""
    left = "" if counts.seconds_left is None or not (counts.left or counts.running) else f", about {_duration(counts.seconds_left)} left"
    return f"{len(counts.done)} done, {len(counts.running)} running, {len(counts.failed)} failed, {len(counts.left)} left{left}"


def _run(grid: Grid, where: Where) -> None:
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.errors import PrunedgeError
    from prunedge.study import create, execute
    from prunedge.study.engines.local import NOT_NOTED
    from prunedge.study.validate import check

    engine = execute.Engine(where.engine, where.address, where.workers, where.threads, where.gpus)
    check(grid, here=engine.name == "local")
    book = create(where.out, grid)
    if not where.json:
        say(f"{len(book.trials)} trials from {len(book.starts)} starting networks")
    with progress("study", quiet=where.json) as advance:
        total = len(book.trials) + len(book.starts)
        watch = execute.Watch(
            told=(lambda line: None) if where.json else say,
            looked=lambda counts: advance(len(counts.done), total, said(counts).partition(" done, ")[2]),
        )
        counts, rows = execute.run(book, engine, watch)
    axes, lines = _summary(book, rows)
    if where.json:
        print_json({"counts": vars(counts), "summary": [asdict(line) for line in lines]})
    else:
        _table(axes, lines)
        tell(f"{said(counts)}\ntables: {book.path / 'study.csv'}, study.parquet\nnext: {command('report', where.out)}")
    if counts.failed:
        raise PrunedgeError(_failures(counts.failed, where.out), remedy="mend it and give the same command again")
    if counts.left:
        what = f"{len(counts.left)} trials are left, {counts.left[0]} first: {NOT_NOTED}"
        raise PrunedgeError(what, remedy="mend it and give the same command again")


def _failures(failed: Mapping[str, str], out: str) -> str:
    """How many trials failed and why, the reason of the first one; others are told elsewhere."""
    count, first = len(failed), next(iter(failed))
    alike = next(names for names in kinds(failed) if first in names)
    (why,) = by_kind({name: failed[name] for name in alike})
    rest = f"; {count - len(alike)} for other reasons, see {command('study', 'status', out)}" if count > len(alike) else ""
    return f"{count} trial{'s' if count > 1 else ''} failed: {why}{rest}"


def _values(common: Common | None) -> dict[str, Any]:
    return (common or Common()).values()


def _paths(*data: str) -> list[str]:
    from prunedge.data.paths import absolute

    return [absolute(one) for one in data]


def _summary(book: Book, rows: list[Row]) -> tuple[tuple[str, ...], list[Line]]:
    """The axes that vary, and a line for each combination of their values."""
    from prunedge.study.summary import axes_of, summary

    axes = axes_of(rows, book.grid.axes)
    return axes, summary(rows, axes)


def _table(axes: tuple[str, ...], lines: list[Line]) -> None:
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.study.grid import data_name

    table = Table(title="on the test split, mean ± standard deviation over folds and seeds")
    for name in (*axes, "trials", "before", "after", "channels removed", "MACs", "size", "seconds"):
        table.add_column(name, justify="left" if name in axes else "right")
    for line in lines:
        table.add_row(
            *(data_name(str(value)) if key == "data" else str(value) for key, value in line.values.items()), str(line.n),
            *(_spread(one, "{:.1%}") for one in (line.before, line.after, line.removed)),
            *(_spread(one, "{:.1f} x") for one in (line.macs_ratio, line.size_ratio)), _spread(line.seconds, "{:.0f}"),
        )  # fmt: skip
    out.print(table)


def _spread(value: Any, text: str) -> str:
    return text.format(value.mean) + (f" ± {text.format(value.variance**0.5)}" if value.n > 1 else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
