"""`prunedge study`: many runs, one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from prunedge.cli.console import split
from prunedge.cli.settings import steered, with_settings
from prunedge.cli.study_output import failure_text, progress_text, summary_table
from prunedge.config import asked
from prunedge.utils.advice import command, speak
from prunedge.utils.sanitize import by_kind

if TYPE_CHECKING:
    from prunedge.study import Grid, StudyProgress

study = App(
    name="study",
    help=(
        "Run many trials and put them into one table: a grid from a TOML file, or one of the "
        "ready-made questions below.\n\n"
        "Example: `prunedge study crossval cracks/ --model resnet18 --folds 5 --out studies/cracks`"
    ),
    help_format="markdown",
)

Data = Annotated[str, Parameter(help="Class folders, a CSV manifest, or shards.")]
Models = Annotated[
    list[str],
    Parameter(
        name=("--model", "--models"),
        converter=split,
        negative="",
        help="A model, or several with commas between them.",
    ),
]

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
    """
    from prunedge.study import presets

    folds = values.pop("folds", presets.FOLDS)
    _run(presets.crossval(_paths(data), model, folds, steered(values)), where)


@study.command
@with_trial_settings
def epochs(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """How few epochs of fine-tuning are enough? Accuracy against the pruned fraction for each
    number, and the pruning time of each.

    Example: `prunedge study epochs cracks/ --model vgg16_bn --epochs 1,2,5,10 --out studies/epochs`
    """
    from prunedge.study import presets

    counts = values.pop("epochs", [])
    if len(counts) < 2:
        counts = presets.EPOCHS
    _run(presets.epochs(_paths(data), model, counts, steered(values)), where)


@study.command
@with_trial_settings
def criteria(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """Which criterion? All of them (or those of --criterion) from the same starting model, with
    the baselines.

    Example: `prunedge study criteria cracks/ --model resnet18 --seed 0,1,2 --out studies/criteria`
    """
    from prunedge.study import presets

    names = values.pop("criterion", [])
    _run(presets.criteria(_paths(data), model, names, steered(values)), where)


@study.command
@with_trial_settings
def models(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """Which model? Filters left in each layer, time, size, MACs and accuracy side by side.

    Example: `prunedge study models cracks/ --models vgg16_bn,resnet18 --out studies/models`
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
    tell(progress_text(counts))
    for title, names in (("running", counts.running), ("left", counts.left)):
        for name in names:
            tell(f"{title}: {name}")
    for line in by_kind(counts.failed):
        tell(f"failed: {line}")


def _run(grid: Grid, where: Where) -> None:
    """Run what is left of a grid, and print its table; PrunedgeError where a trial failed."""
    from prunedge.cli.console import out, print_json, progress, say, tell
    from prunedge.errors import PrunedgeError
    from prunedge.study import create, execute
    from prunedge.study.engines.local import NOT_NOTED
    from prunedge.study.summary import axes_of, metric_of, summary
    from prunedge.study.validate import check

    engine = execute.Engine(where.engine, where.address, where.workers, where.threads, where.gpus)
    check(grid, here=engine.name == "local")
    study = create(where.out, grid)
    if not where.json:
        say(f"{len(study.trials)} trials from {len(study.starts)} starting models")

    with progress("study", quiet=where.json) as advance:
        total = len(study.trials) + len(study.starts)

        def on_counts(counts: StudyProgress) -> None:
            _, _, rest = progress_text(counts).partition(" done, ")
            advance(len(counts.done), total, rest)

        callbacks = execute.Callbacks(
            on_line=(lambda line: None) if where.json else say, on_counts=on_counts
        )
        counts, rows = execute.run(study, engine, callbacks)

    axes = axes_of(rows, study.grid.axes)
    lines = summary(rows, axes)
    if where.json:
        print_json({"counts": vars(counts), "summary": [asdict(line) for line in lines]})
    else:
        out.print(summary_table(axes, lines, metric_of(rows)))
        tell(progress_text(counts))
        tell(f"tables: {study.path / 'study.csv'}, study.parquet")
        tell(f"next: {command('report', where.out)}")

    remedy = "mend it and give the same command again"
    if counts.failed:
        raise PrunedgeError(failure_text(counts.failed, where.out), remedy=remedy)
    if counts.left:
        what = f"{len(counts.left)} trials are left, {counts.left[0]} first: {NOT_NOTED}"
        raise PrunedgeError(what, remedy=remedy)


def _paths(*data: str) -> list[str]:
    from prunedge.data.paths import absolute

    return [absolute(path) for path in data]
