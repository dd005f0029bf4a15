"""Small networks, taught for as long as the pruned one: is one of them better?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from prunedge.config import RunConfig
from prunedge.config.small_networks import SmallNetwork
from prunedge.errors import MachineError, PrunedgeError, WeightsError
from prunedge.latency import Timer
from prunedge.latency.side_by_side import require_exportable, time_side_by_side
from prunedge.models import Loaded, build_with_report, cost
from prunedge.pruning.from_config import transfer_settings
from prunedge.runs.compared import TIMES
from prunedge.runs.leakage import refuse_seen
from prunedge.runs.session import timer_of
from prunedge.runs.training import first_rate
from prunedge.tasks import refuse_ending
from prunedge.train import FitResult, TrainExtras, transfer
from prunedge.utils import distributed, trust
from prunedge.utils.advice import option

if TYPE_CHECKING:
    from prunedge.runs.session import RunSession


def small_networks(config: RunConfig) -> list[SmallNetwork]:
    """The small networks that a config asks for."""
    return [SmallNetwork.parse(text) for text in config.prune.small]


def refuse_unfit(session: RunSession) -> list[str]:
    """PrunedgeError where a small network or its weights can't be had, where it can't learn the
    task from these images, or can't be timed. Gives what is to be said of their weights.
    """
    networks = small_networks(session.config)
    if not networks:
        return []
    require_exportable(session.model, session.data.example())
    lines = []
    for network in networks:
        try:
            lines += _unfit(session, network)
        except MachineError:
            raise
        except PrunedgeError as error:
            raise of_network(network, error) from None
    return lines


def of_network(network: SmallNetwork, error: PrunedgeError) -> PrunedgeError:
    """The error as one of this network's, with a remedy that can be written where it is named."""
    remedy = error.remedy
    if isinstance(error, WeightsError) and network.weights == "imagenet":
        file, none = (option("small", f"{network.model}={weights}") for weights in ("FILE", "none"))
        remedy = f"use {file} or {none}: a file that you have, or random weights"
    return type(error)(error.what, where=option("small", network.text), remedy=remedy)


def _unfit(session: RunSession, network: SmallNetwork) -> list[str]:
    """The same of one network, with what is wrong in its own words."""
    trust.give(network.model)
    config = _first_training(session.config, network, epochs=0)
    lines = refuse_seen(config, session.data)
    model, loaded = _built(session, network)
    example = session.data.example(4)
    cost(model, example)  # does it take images of this size?
    refuse_ending(model, example, session.task, network.model)
    require_exportable(model, example)
    if loaded is not None:
        lines.append(f"{network.model}: {loaded.sentence()}")
    return lines


def taught(session: RunSession, network: SmallNetwork, epochs: int) -> FitResult:
    """The network after a first training of so many epochs, as a run of its own would have it."""
    config = _first_training(session.config, network, epochs)
    seed = config.data.seed
    model, _ = _built(session, network, seed)
    settings = transfer_settings(config, session.data)
    rate = first_rate(
        config,
        model,
        session.data,
        settings.config(model),
        session.engine,
        progress=session.callbacks.progress,
    )
    session.callbacks.say(f"{network.model}: {rate.sentence()}")
    return transfer(
        model,
        session.data,
        settings,
        engine=session.engine,
        seed=seed,
        rate=rate,
        extras=TrainExtras(progress=session.callbacks.progress),
    )


def _built(
    session: RunSession, network: SmallNetwork, seed: int = 0
) -> tuple[nn.Module, Loaded | None]:
    """The network as it sees the run's images, and what became of its weights."""
    images = session.config.data
    return build_with_report(
        network.model,
        session.task.outputs,
        network.weights,
        seed=seed,
        in_channels=images.in_channels,
        image_norm=images.image_norm,
    )


def note_times(session: RunSession, models: Mapping[str, nn.Module]) -> None:
    """Time the small networks beside the unpruned and the pruned model, and keep it in the run:
    on the device that the run names, or else here.
    """
    run = session.run
    if run.read(TIMES) is not None:
        return
    timer = Timer() if run.config.device.address is None else timer_of(run.config)
    chosen = {"baseline": run.load_first(), "best": run.load()}
    for network in small_networks(session.config):
        chosen[network.text] = models[network.text]
    timed = distributed.rank_zero_only(time_side_by_side)(chosen, session.data.example(), timer)
    run.write(TIMES, timed.to_json())


def _first_training(config: RunConfig, network: SmallNetwork, epochs: int) -> RunConfig:
    """What a run would be asked to do that begins with this network."""
    return config.with_values(
        model=network.model,
        weights=network.weights,
        start=None,
        train_epochs=epochs,
        freeze=0,  # counts the blocks of the run's own model
        small=[],
    )
