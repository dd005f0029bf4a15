"""The baselines that a run is compared with, trained and kept in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from prunedge.errors import RunError
from prunedge.models import cost, rebuild
from prunedge.pruning.baselines import epochs_of, random, scratch
from prunedge.pruning.from_config import transfer_settings
from prunedge.pruning.steps import lineage
from prunedge.runs.run import Run
from prunedge.runs.small import note_times, small_networks, taught
from prunedge.surgery import restore_model, save_model
from prunedge.train import FitResult
from prunedge.utils import distributed
from prunedge.utils.checksums import Broken, check, file_digest
from prunedge.utils.files import written
from prunedge.utils.tracing import phase, traced

if TYPE_CHECKING:
    from prunedge.runs.session import RunSession

RECORD = "baselines.json"


@traced("baselines", phase)
def make(session: RunSession) -> dict[str, nn.Module]:
    """The models of the baselines that the config asks for: trained, or as they were kept when the
    run was cut off.
    """
    run = session.run
    config = session.config
    models: dict[str, nn.Module] = {}
    for name in config.prune.baseline:
        # Random weights of its own, in the unpruned shape.
        fresh = rebuild(
            config.model.name,
            session.task.outputs,
            seed=config.data.seed + 1,
            in_channels=config.data.in_channels,
        )
        seed = 20_000 * (config.data.seed + 1) + len(models)
        kept = _kept(run, name, fresh)
        if kept is None:
            made = _MAKERS[name](session, fresh, seed)
            if made is None:
                continue
            kept = _keep(session, name, *made)
        models[name] = kept

    for network in small_networks(config):
        outputs = session.task.outputs
        fresh = rebuild(network.model, outputs, in_channels=config.data.in_channels)
        kept = _kept(run, network.text, fresh)
        if kept is None:
            epochs = _epochs(run)
            kept = _keep(session, network.text, taught(session, network, epochs), epochs)
        models[network.text] = kept
    if config.prune.small:
        note_times(session, models)
    return models


def _kept(run: Run, name: str, fresh: nn.Module) -> nn.Module | None:
    """The model of a baseline as it was kept when the run was cut off; None before that."""
    if name not in (run.read(RECORD) or {}):
        return None
    return restore_model(fresh, baseline_file(run, name))


def _keep(session: RunSession, name: str, fitted: FitResult, epochs: int) -> nn.Module:
    """Keep the model of a baseline in the run, and give it."""
    run = session.run
    assert fitted.val is not None
    measured = cost(fitted.model, session.data.example())
    file = _file(run, name)
    file.parent.mkdir(exist_ok=True)
    record = {
        "epochs": epochs,
        "macs": measured.macs,
        "params": measured.params,
        "size_mb": measured.size_mb,
        "seconds": fitted.seconds,
        "val": fitted.val.to_json(),
        "sha256": _write(fitted.model, file),
    }
    run.write(RECORD, {**(run.read(RECORD) or {}), name: record})
    return fitted.model


def _scratch(session: RunSession, fresh: nn.Module, seed: int) -> tuple[FitResult, int]:
    """The result's shape from random weights."""
    run = session.run
    epochs = _epochs(run)
    # Random weights that were left as they are would be no match; and as many epochs as the result.
    settings = transfer_settings(session.config, session.data)
    settings = replace(settings, pretrained=False, patience=None, freeze=0)
    fitted = scratch(
        fresh,
        run.plan(run.best().index),
        session.data,
        epochs=epochs,
        config=settings.config(fresh),
        engine=session.engine,
        seed=seed,
        progress=session.callbacks.progress,
    )
    return fitted, epochs


def _random(session: RunSession, fresh: nn.Module, seed: int) -> tuple[FitResult, int] | None:
    """As many channels drawn at random, over the same steps; None where nothing was pruned."""
    run = session.run
    steps = lineage(run.steps(), run.best().index)
    if not steps:
        return None
    # From the first model on, over the removals of the runs before this one as well.
    chain = run.chain()
    plans = [(cut.plan, cut.epochs) for cut in chain.cuts] if chain else []
    for step in steps:
        plans.append((run.plan(step.index), step.epochs))
    fitted = random(
        run.load_first(),
        plans,
        session.data,
        config=session.finetune(fresh),
        engine=session.engine,
        seed=seed,
        progress=session.callbacks.progress,
    )
    return fitted, sum(epochs for _, epochs in plans)


_MAKERS = {"scratch": _scratch, "random": _random}


def _epochs(run: Run) -> int:
    """How many epochs the best model of a run has seen, in the runs that it began from as well."""
    config = run.config
    chain = run.chain()
    before = config.train.epochs if chain is None else chain.epochs
    return epochs_of(run.steps(), run.best().index, before)


@distributed.rank_zero_only
def _write(model: nn.Module, file: Path) -> str:
    """Write a baseline's model; gives the file's SHA-256."""
    with written(file) as temporary:
        save_model(model, temporary)
        return file_digest(temporary)


def baseline_file(run: Run, name: str) -> Path:
    """The weights of a baseline, which are what was written; RunError where they are not."""
    file = _file(run, name)
    record = run.read(RECORD)[name]
    try:
        if file.exists():
            check(file, {file.name: record["sha256"]})
    except Broken as error:
        remedy = (
            f"bring it back from a copy, or delete {file.parent}.json and the folder: --resume "
            "makes the baselines again"
        )
        raise RunError(f"damaged, or of another run: {error}", where=file, remedy=remedy) from None
    return file


def _file(run: Run, name: str) -> Path:
    small = run.config.prune.small
    # A network's text may be a path; the config's list never changes in a run.
    stem = f"small-{small.index(name)}" if name in small else name
    return run.path / "baselines" / f"{stem}.safetensors"
