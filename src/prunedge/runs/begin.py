"""A new run: its folder is made only when the images load and the model can be built."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.importance import criterion_named
from prunedge.pruning.from_config import (
    currency_of,
    max_drop_of,
    refuse_wrong_metric,
    transfer_settings,
    what_a_step_saves,
)
from prunedge.pruning.judging import refuse_undefined, with_usual_metric
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.checks import refuse_unsuited, refuse_wholly_frozen, told_of_grey
from prunedge.runs.leakage import refuse_seen
from prunedge.runs.new import create
from prunedge.runs.run import SEEN
from prunedge.runs.session import LATENCY, RunSession, timer_of
from prunedge.runs.small import refuse_unfit
from prunedge.runs.training import refuse_one_class, taught
from prunedge.tasks import refuse_ending
from prunedge.utils import trust
from prunedge.utils.tracing import phase, traced

log = logging.getLogger(__name__)


@traced("start", phase)
def begin(config: RunConfig, out: Path, callbacks: Callbacks, verb: str) -> RunSession:
    """Check what a run of `train` or `prune` (`verb`) is asked to do, and make its folder: neither
    a typing error nor a device out of reach leaves anything behind.
    """
    trust.give(config.prune.criterion)
    if not config.model.start:
        trust.give(config.model.name)
    criterion_named(config.prune.criterion)
    refuse_wrong_metric(config)
    if config.device.address is not None:
        timer_of(config)

    session = RunSession(config, callbacks, out=out)
    config, of_metric = with_usual_metric(config, session.data)
    session.config = config
    refuse_undefined(config, session.data, ("val", "test"))
    unknown = refuse_seen(config, session.data)
    if session.start is not None:
        how = taught(session.start, config.model.start)
        refuse_one_class(session.start.best(), session.task, how)
    refuse_ending(session.model, session.data.example(4), session.task, config.model.name)
    frozen = refuse_wholly_frozen(session)
    refuse_unsuited(session, verb)
    of_small = refuse_unfit(session)
    of_grey = told_of_grey(session)
    device = session.device if verb == "prune" else None

    session.run = create(out, _with_chosen(config, session.data, verb), verb)
    if device is not None:
        session.run.write(LATENCY, device.to_json())
    if unknown:
        session.run.write(SEEN, unknown)
        for line in unknown:
            log.warning("%s", line)
    if session.loaded is not None:
        session.run.write("weights.json", session.loaded.to_json())
        callbacks.say(session.loaded.sentence())
    of_metrics = [] if of_metric is None else [of_metric]
    for line in [*of_metrics, *of_grey, *frozen, *of_small]:
        callbacks.say(line)
    if verb == "prune":
        callbacks.say(what_a_step_saves(session.config))
    return session


def _with_chosen(config: RunConfig, data: Dataset, verb: str) -> RunConfig:
    """The config with what was left to be chosen: a run says what it does, also to whoever repeats
    it with another release.
    """
    chosen: dict[str, Any] = {
        "batch_size": transfer_settings(config, data).batch_size,
        "metric": config.task.metric,
    }
    if verb == "prune":
        chosen["cost"] = currency_of(config)
        chosen["max_drop"] = max_drop_of(config)
    return config.with_values(**chosen)
