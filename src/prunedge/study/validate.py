"""Whether each value of a grid is one that there is: better said before the first trial than by
every trial that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prunedge.config import RunConfig
from prunedge.config.small_networks import SmallNetwork
from prunedge.data.mask_listing import MaskOptions, list_images
from prunedge.data.paths import is_url
from prunedge.data.records import refuse_without_training
from prunedge.edge.tasks import DEFINITIONS, targets_of
from prunedge.errors import MachineError, PrunedgeError
from prunedge.importance import criterion_named
from prunedge.latency import Timer
from prunedge.models import refuse_unknown
from prunedge.pruning.from_config import refuse_wrong_metric
from prunedge.runs.small import of_network
from prunedge.study.grid import Grid, trials
from prunedge.train.engine import NAMES
from prunedge.utils import trust
from prunedge.utils.advice import option

# What listed images are taken for: the task and the order of its labels, the place of the masks,
# and how these are read.
_Listed = tuple[str, str | None, str | None, MaskOptions]


def check(grid: Grid, *, here: bool = True) -> None:
    """Raise PrunedgeError that names every value of the grid that no trial could be run with.

    Images that can't be listed, models, weights and criteria that nobody knows, precisions and
    devices. Where trials run on other machines (`here` is false), files and the user's own modules
    are theirs to find.
    """
    configs = [trial.config for trial in trials(grid)]
    faults = [
        *(_images(configs) if here else ()),
        *_of(
            "model",
            {config.model.name for config in configs if here or ":" not in config.model.name},
            _model,
        ),
        *_weights(configs, here),
        *_of("small", _small_networks(configs, here), _small),
        *_of(
            "criterion",
            {
                config.prune.criterion
                for config in configs
                if here or ":" not in config.prune.criterion
            },
            _criterion,
        ),
        *_metrics(configs),
        *_of("precision", {config.train.precision for config in configs}, _precision),
        *_of(
            "device",
            {config.device.address for config in configs if config.device.address is not None},
            Timer,
        ),
    ]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise PrunedgeError(
            f"{len(faults)} values of the grid are none: {'; '.join(map(str, faults))}",
            remedy="mend these",
        )


def _of(key: str, values: Iterable[str], use: Callable[[str], object]) -> list[PrunedgeError]:
    """What is wrong with the values of a key."""
    faults = []
    for value in sorted(values):
        try:
            use(value)
        except MachineError:
            raise
        except PrunedgeError as error:
            where = error.where if error.where is not None else option(key, value)
            faults.append(type(error)(error.what, where=where, remedy=error.remedy))
    return faults


def _images(configs: Iterable[RunConfig]) -> list[PrunedgeError]:
    """What is wrong with images that can't be listed, or are labelled for another task."""
    paths: dict[_Listed, set[str]] = {}
    for config in configs:
        data = config.data
        if not is_url(data.path):
            how = MaskOptions(
                skips=data.skip_unreadable,
                tile=data.tile,
                overlap=data.overlap,
                is_wanted=DEFINITIONS[config.task.name].reads_masks,
            )
            key = (config.task.name, config.task.order, data.masks, how)
            paths.setdefault(key, set()).add(data.path)

    faults = []
    for of_task, places in paths.items():

        def use(path: str, of_task: _Listed = of_task) -> None:
            task, order, masks, how = of_task
            listing = list_images(path, masks, how)
            refuse_without_training(listing)
            targets_of(task, listing.labels, order)

        faults += _of("data", places, use)
    return faults


def _metrics(configs: Iterable[RunConfig]) -> list[PrunedgeError]:
    faults = {}
    for config in configs:
        try:
            refuse_wrong_metric(config)
        except PrunedgeError as error:
            faults[str(error)] = error
    return list(faults.values())


def _weights(configs: Iterable[RunConfig], here: bool) -> list[PrunedgeError]:
    """Weights are those of a model; what is wrong with a file is said once for all models."""
    faults: dict[str, PrunedgeError] = {}
    for model, weights in sorted({(config.model.name, config.model.weights) for config in configs}):
        if not here and weights != "imagenet":
            continue
        try:
            refuse_unknown(model, weights)
        except MachineError:
            raise
        except PrunedgeError as error:
            # An unknown model was told already.
            if not _of("model", [model], _model):
                faults.setdefault(error.what, error)
    return list(faults.values())


def _model(name: str) -> None:
    trust.give(name)  # the grid names it, which the user gave
    refuse_unknown(name, "none")


def _small_networks(configs: Iterable[RunConfig], here: bool) -> set[str]:
    """Those that can be looked at from here."""
    found = set()
    for text in {text for config in configs for text in config.prune.small}:
        network = SmallNetwork.parse(text)
        is_elsewhere = ":" in network.model or network.weights not in ("imagenet", "none")
        if here or not is_elsewhere:
            found.add(text)
    return found


def _small(text: str) -> None:
    network = SmallNetwork.parse(text)
    trust.give(network.model)
    try:
        refuse_unknown(network.model, network.weights)
    except MachineError:
        raise
    except PrunedgeError as error:
        raise of_network(network, error) from None


def _criterion(name: str) -> None:
    trust.give(name)
    criterion_named(name)


def _precision(name: str) -> None:
    if name != "auto" and name not in NAMES:
        raise PrunedgeError(
            f"no precision is called {name!r}", remedy=f"choose auto, {', '.join(NAMES)}"
        )
