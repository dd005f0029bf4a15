"""`prunedge study`: many runs, one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from prunedge.cli.console import split
from prunedge.cli.settings import steered, with_settings
from prunedge.config import asked
from prunedge.utils.advice import command, speak
from prunedge.utils.sanitize import by_kind, kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunedge.study import Grid, StudyProgress, StudyStore
    from prunedge.study.results import Row
    from prunedge.study.summary import Line

study = App(
    name="study",
    help=(
        "Run many trials and put them into one table: a grid from a TOML file, or one of the "
        "ready-made questions below.\n\n"
        "Example: `prunedge study crossval cracks/ --model resnet18 --folds 5 --out studies/cracks`"
    ),
    help_format="markdown",
)


Models = Annotated[list[str], Parameter(name=("--model", "--models"), converter=split, negative="")]

# Several values of these make several trials.
SEVERAL = ("criterion", "epochs", "seed", "fold")
SETTINGS = set(asked()) - {"data", "model", "start"}

with_trial_settings = with_settings(SETTINGS, several=SEVERAL)


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where the trials run.

    Parameters
    ----------
    out
        The study's folder, or any fsspec URL (s3://bucket/study). With that of an earlier study,
        what is done there is not done again.
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
    """Run the grid of a TOML file: keys of a config, each with a value or a list of values; `folds
    = 5` runs every fold.

    Example: `prunedge study criteria.toml --out studies/criteria`

    Parameters
    ----------
    file
        For example: data = "cracks/", model = ["resnet18", "vgg16_bn"], criterion = ["taylor",
        "random"], seed = [0, 1, 2]
    """
    from prunedge.study import Grid

    speak("study")  # what is to be mended stands in the file
    _run(Grid.from_toml(file), where)


@study.command
@with_trial_settings
def crossval(data: str, *, model: Models, where: Where, **values: Any) -> None:
    """How stable is it? Cross-validation: accuracy at each pruned fraction over the folds, and
    where the rule stops each.

    Example: `prunedge study crossval cracks/ --model vgg16_bn --folds 5 --out studies/crossval`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards. Folds never part a source.
    model
        A model, or several with commas between them.
    """
    from prunedge.study import presets

    folds = values.pop("folds", presets.FOLDS)
    _run(presets.crossval(_paths(data), model, folds, steered(values)), where)


@study.command
@with_trial_settings
def epochs(data: str, *, model: Models, where: Where, **values: Any) -> None:
    """How few epochs of fine-tuning are enough? Accuracy against the pruned fraction for each
    number, and the pruning time of each.

    Example: `prunedge study epochs cracks/ --model vgg16_bn --epochs 1,2,5,10 --out studies/epochs`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A model, or several with commas between them.
    """
    from prunedge.study import presets

    counts = values.pop("epochs", [])
    if len(counts) < 2:
        counts = presets.EPOCHS
    _run(presets.epochs(_paths(data), model, counts, steered(values)), where)


@study.command
@with_trial_settings
def criteria(data: str, *, model: Models, where: Where, **values: Any) -> None:
    """Which criterion? All of them (or those of --criterion) from the same starting model, with
    the baselines.

    Example: `prunedge study criteria cracks/ --model resnet18 --seed 0,1,2 --out studies/criteria`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A model, or several with commas between them.
    """
    from prunedge.study import presets

    names = values.pop("criterion", [])
    _run(presets.criteria(_paths(data), model, names, steered(values)), where)


@study.command
@with_trial_settings
def models(data: str, *, model: Models, where: Where, **values: Any) -> None:
    """Which model? Filters left in each layer, time, size, MACs and accuracy side by side.

    Example: `prunedge study models cracks/ --models vgg16_bn,resnet18 --out studies/models`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards.
    model
        A model, or several with commas between them.
    """
    from prunedge.study import presets

    _run(presets.models(_paths(data), model, steered(values)), where)


@study.command
@with_trial_settings
def talk(
    cracks: str, corrosion: str, *, model: Models | None = None, where: Where, **values: Any
) -> None:
    """All results of the talk (Wu et al. 2019) on two sets of images, each beside the talk's own
    figure.

    Example: `prunedge study talk cracks/ corrosion/ --out studies/talk`

    Parameters
    ----------
    cracks
        Class folders, a CSV manifest, or shards.
    corrosion
        Another.
    model
        A model, or several with commas between them (vgg16,resnet18).
    """
    from prunedge.study import presets

    folds = values.pop("folds", presets.FOLDS)
    if len(values.get("epochs", [])) < 2:
        values["epochs"] = list(presets.TALK_EPOCHS)
    first, second = _paths(cracks, corrosion)
    models = model or ["vgg16", "resnet18"]
    _run(presets.talk(first, second, models, folds, steered(values)), where)


@study.command
def status(
    folder: str, *, workers: int = 1, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
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
    from prunedge.errors import PrunedgeError
    from prunedge.study import open_study

    if workers < 1:
        raise PrunedgeError(
            f"{workers} trials at a time", where="--workers", remedy="give at least 1"
        )
    counts = open_study(folder).counts(workers)
    if json:
        print_json(vars(counts))
        return
    tell(said(counts))
    for title, names in (("running", counts.running), ("left", counts.left)):
        for name in names:
            tell(f"{title}: {name}")
    for line in by_kind(counts.failed):
        tell(f"failed: {line}")


def said(counts: StudyProgress) -> str:
    """The counts in a line."""
    left = (
        ""
        if counts.seconds_left is None or not (counts.left or counts.running)
        else f", about {_duration(counts.seconds_left)} left"
    )
    return (
        f"{len(counts.done)} done, {len(counts.running)} running, {len(counts.failed)} failed, "
        f"{len(counts.left)} left{left}"
    )


def _run(grid: Grid, where: Where) -> None:
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.errors import PrunedgeError
    from prunedge.study import create, execute
    from prunedge.study.engines.local import NOT_NOTED
    from prunedge.study.validate import check

    engine = execute.Engine(where.engine, where.address, where.workers, where.threads, where.gpus)
    check(grid, here=engine.name == "local")
    study = create(where.out, grid)
    if not where.json:
        say(f"{len(study.trials)} trials from {len(study.starts)} starting models")
    with progress("study", quiet=where.json) as advance:
        total = len(study.trials) + len(study.starts)
        callbacks = execute.Callbacks(
            on_line=(lambda line: None) if where.json else say,
            looked=lambda counts: advance(
                len(counts.done), total, said(counts).partition(" done, ")[2]
            ),
        )
        counts, rows = execute.run(study, engine, callbacks)
    axes, lines = _summary(study, rows)
    if where.json:
        print_json({"counts": vars(counts), "summary": [asdict(line) for line in lines]})
    else:
        _table(axes, lines)
        tell(
            f"{said(counts)}\ntables: {study.path / 'study.csv'}, study.parquet\nnext: "
            f"{command('report', where.out)}"
        )
    if counts.failed:
        raise PrunedgeError(
            _failures(counts.failed, where.out), remedy="mend it and give the same command again"
        )
    if counts.left:
        what = f"{len(counts.left)} trials are left, {counts.left[0]} first: {NOT_NOTED}"
        raise PrunedgeError(what, remedy="mend it and give the same command again")


def _failures(failed: Mapping[str, str], out: str) -> str:
    """How many trials failed and why, the reason of the first one; others are told elsewhere."""
    count, first = len(failed), next(iter(failed))
    alike = next(names for names in kinds(failed) if first in names)
    (why,) = by_kind({name: failed[name] for name in alike})
    rest = (
        f"; {count - len(alike)} for other reasons, see {command('study', 'status', out)}"
        if count > len(alike)
        else ""
    )
    return f"{count} trial{'s' if count > 1 else ''} failed: {why}{rest}"


def _paths(*data: str) -> list[str]:
    from prunedge.data.paths import absolute

    return [absolute(one) for one in data]


def _summary(study: StudyStore, rows: list[Row]) -> tuple[tuple[str, ...], list[Line]]:
    """The axes that vary, and a line for each combination of their values."""
    from prunedge.study.summary import axes_of, summary

    axes = axes_of(rows, study.grid.axes)
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
            *(
                data_name(str(value)) if key == "data" else str(value)
                for key, value in line.values.items()
            ),
            str(line.n),
            *(_spread(one, "{:.1%}") for one in (line.before, line.after, line.removed)),
            *(_spread(one, "{:.1f} x") for one in (line.macs_ratio, line.size_ratio)),
            _spread(line.seconds, "{:.0f}"),
        )
    out.print(table)


def _spread(value: Any, text: str) -> str:
    return text.format(value.mean) + (
        f" ± {text.format(value.variance**0.5)}" if value.n > 1 else ""
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
