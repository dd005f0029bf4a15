"""`prunedge study`: many runs, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from prunedge.cli.console import split
from prunedge.cli.settings import steered, with_settings
from prunedge.cli.study_run import Where, run_grid
from prunedge.cli.study_status import status
from prunedge.config import asked
from prunedge.utils.advice import speak

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
        help="A model, or several with commas between them.",
    ),
]

# Several values of these make several trials.
SEVERAL = ("criterion", "epochs", "seed", "fold")
SETTINGS = set(asked()) - {"data", "model", "start"}

with_trial_settings = with_settings(SETTINGS, several=SEVERAL)

study.command(status)


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
    run_grid(Grid.from_toml(file), where)


@study.command
@with_trial_settings
def crossval(data: str, *, model: Models, where: Where, **values: Any) -> None:
    """How stable is it? Cross-validation: the metric at each pruned fraction over the folds, and
    where the rule stops each.

    Example: `prunedge study crossval cracks/ --model vgg16_bn --folds 5 --out studies/crossval`

    Parameters
    ----------
    data
        Class folders, a CSV manifest, or shards. Folds never part a source.
    """
    from prunedge.study import presets

    folds = values.pop("folds", presets.FOLDS)
    run_grid(presets.crossval(_paths(data), model, folds, steered(values)), where)


@study.command
@with_trial_settings
def epochs(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """How few epochs of fine-tuning are enough? The metric against the pruned fraction for each
    number, and the pruning time of each.

    Example: `prunedge study epochs cracks/ --model vgg16_bn --epochs 1,2,5,10 --out studies/epochs`
    """
    from prunedge.study import presets

    counts = values.pop("epochs", [])
    if len(counts) < 2:
        counts = presets.EPOCHS
    run_grid(presets.epochs(_paths(data), model, counts, steered(values)), where)


@study.command
@with_trial_settings
def criteria(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """Which criterion? All of them (or those of --criterion) from the same starting model, with
    the baselines.

    Example: `prunedge study criteria cracks/ --model resnet18 --seed 0,1,2 --out studies/criteria`
    """
    from prunedge.study import presets

    names = values.pop("criterion", [])
    run_grid(presets.criteria(_paths(data), model, names, steered(values)), where)


@study.command
@with_trial_settings
def models(data: Data, *, model: Models, where: Where, **values: Any) -> None:
    """Which model? Filters left in each layer, time, size, MACs and the metric side by side.

    Example: `prunedge study models cracks/ --models vgg16_bn,resnet18 --out studies/models`
    """
    from prunedge.study import presets

    run_grid(presets.models(_paths(data), model, steered(values)), where)


def _paths(*data: str) -> list[str]:
    from prunedge.data.paths import absolute

    return [absolute(path) for path in data]
