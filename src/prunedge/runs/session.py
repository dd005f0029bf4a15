"""The main job on a run folder: train, prune, test. Whatever is cut off goes on from its last
step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.edge.bench.hardware import processor
from prunedge.errors import PrunedgeError, RunError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import find, gathered_while_training, refuse_unjudged, refuse_without_norms
from prunedge.latency import Steering, Timer, steer
from prunedge.models import Loaded, build_told, rebuild
from prunedge.models.final_activation import refuse_probabilities
from prunedge.pruning.baselines import epochs_of, random, scratch
from prunedge.pruning.context import PruneContext, RecoveryConfig
from prunedge.pruning.gathered import gathered, gathering
from prunedge.pruning.loop import baseline, iterate, refuse_unprunable
from prunedge.pruning.policy import Outcome, StopPolicy
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.steps import Iteration, Step
from prunedge.runs import origin
from prunedge.runs.chain import Reference
from prunedge.runs.checkpoint import RunCheckpointer
from prunedge.runs.images import images_of
from prunedge.runs.leakage import refuse_seen
from prunedge.runs.resumption import change, note_computing, policy_of
from prunedge.runs.run import SEEN, Run, create, open_run, writing
from prunedge.runs.testing import metrics_of, on_test
from prunedge.runs.training import NAME as RATE
from prunedge.runs.training import inherit_rate, rate_of, refuse_one_class, taught, with_rate
from prunedge.surgery import restore_model, save_model
from prunedge.train import (
    Engine,
    Rate,
    TrainExtras,
    TransferSettings,
    make_engine,
    measure_engine,
    penalty,
    predict,
    transfer,
)
from prunedge.utils import distributed, trust
from prunedge.utils.advice import command, option
from prunedge.utils.checksums import Broken, check, file_digest
from prunedge.utils.files import written
from prunedge.utils.tracing import phase, span, traced

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Callbacks:
    """Who is told how the job goes: batches done of all with what is going on, each step when it is
    kept, and lines about the run.
    """

    progress: Callable[[int, int, str], None] | None = None
    on_step: Callable[[Step], None] | None = None
    on_line: Callable[[str], None] | None = None

    def tell(self, line: str) -> None:
        """Say a line about the run."""
        if self.on_line is not None:
            self.on_line(line)


def train(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """Transfer learning alone: a run whose history is the unpruned model."""
    callbacks = callbacks or Callbacks()
    return resume_training(_start(config, out, callbacks, "train").path, callbacks)


def resume_training(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a training from its last kept epoch, to the same result as if it had never been
    cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `train`.
    """
    callbacks = callbacks or Callbacks()
    with _writing(path):
        run = _opened(path, changes, callbacks)
        if not run.steps():
            run, data, engine = _setting(run, callbacks)
            _begin(run, data, engine, callbacks)
        return run


def prune(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """The whole job in a new run folder: train (or take over `config.model.start`), prune until the
    rule speaks, test once.
    """
    _start(config, out, callbacks or Callbacks(), "prune")
    return resume(out, callbacks)


def resume(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a run from its last kept step, to the same result as if it had never been cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `prune`; a
    run that has ended goes on if they let it.
    """
    callbacks = callbacks or Callbacks()
    with _writing(path):
        return _resumed(path, callbacks, changes)


def _resumed(path: Path, callbacks: Callbacks, changes: Mapping[str, Any] | None) -> Run:
    run = _opened(path, changes, callbacks)
    if run.test() is not None:
        return run
    run, data, engine = _setting(run, callbacks)
    if not run.steps():
        _begin(run, data, engine, callbacks)
    config = run.config
    steps = run.steps()
    refuse_one_class(steps[0], data.classes, taught(run))
    policy = policy_of(config)
    context = replace(
        _context(
            with_rate(config, run),
            data,
            engine,
            callbacks,
            teacher=run.load_first() if config.recover.distill else None,
        ),
        device=_device(run, data, callbacks),
        first=_first(run),
    )
    if run.plan(run.best().index).keep:
        run.require_plan(run.best().index, trace(run.load_first(), data.example()))
    for iteration in iterate(
        context, policy, steps, run.state(run.best().index), finished=run.finish
    ):
        with phase(f"step {iteration.step.index}"):
            _keep(run, iteration, callbacks)
    baselines = _baselines(run, data, engine, context, callbacks) if config.prune.baseline else {}
    run.write("test.json", _test(run, data, engine, baselines))
    return run


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends: the first process does, for all of them.
    RunError when it is none, or in use.
    """
    open_run(path)
    with ExitStack() as stack:
        distributed.rank_zero_only(lambda: stack.enter_context(writing(path)))()
        yield


def _opened(path: Path, changes: Mapping[str, Any] | None, callbacks: Callbacks) -> Run:
    run = open_run(path)
    for name in (run.config.model.name, run.config.prune.criterion):
        trust.check(name, path)
    # As the first process finds them: it may have made them before another looks.
    changes = distributed.broadcast_object(changes)
    return change(run, changes, callbacks.tell) if changes else run


@traced("start", phase)
def _start(config: RunConfig, out: Path, callbacks: Callbacks, verb: str) -> Run:
    """A new run folder, made only when the images load and the model can be built: a typing
    error leaves nothing behind.
    """
    trust.give(config.prune.criterion)
    if not config.model.start:
        trust.give(config.model.name)
    find(config.prune.criterion)
    if config.device.address is not None:
        _timer(config)
    data = _images(
        config,
        callbacks,
        *(
            ("prune", "DATA", "--from", config.model.start, "--out", out)
            if config.model.start
            else ()
        ),
    )
    _every_class(config, data)
    unknown = refuse_seen(config, data)
    start = config.model.start
    loaded: Loaded | None = None
    if start:
        source = open_run(start)
        refuse_one_class(source.best(), data.classes, taught(source, start))
        model = source.load()
    else:
        model, loaded = build_told(
            config.model.name, data.classes, config.model.weights, seed=config.data.seed
        )
    refuse_probabilities(model, data.example(4), config.model.name)
    _suited(config, model, data, verb)
    run = create(out, config, verb)
    if unknown:
        run.write(SEEN, unknown)
        for line in unknown:
            log.warning("%s", line)
    if loaded is not None:
        run.write("weights.json", loaded.to_json())
        callbacks.tell(loaded.sentence())
    return run


def _every_class(config: RunConfig, data: Dataset) -> None:
    """AUROC is not defined where a class has no image: better said before hours of training than
    after.
    """
    for name, split in (("validation", data.val), ("test", data.test)):
        absent = [
            label
            for place, label in enumerate(data.classes)
            if all(sample.label != place for sample in split.samples)
        ]
        if config.task.metric == "auroc" and absent:
            remedy = f"use {option('metric', 'accuracy')}, or give it images of that class"
            raise PrunedgeError(
                f"the {name} split has no image of '{absent[0]}', so auroc is not defined",
                where=config.data.path,
                remedy=remedy,
            )


def _suited(config: RunConfig, model: nn.Module, data: Dataset, verb: str) -> None:
    """What the config asks of the model's channels is there."""
    if verb != "prune" and config.train.sparsity == "none":
        return
    graph = trace(model, data.example())
    if verb == "prune":
        refuse_unprunable(graph, config.model.name)
    if config.prune.ignore:
        _matching(config, graph)
    refuse_unjudged(model, graph, config.prune.criterion)
    if config.train.sparsity == "bn-l1":
        refuse_without_norms(
            model, graph, option("sparsity", "bn-l1"), remedy="use another, such as group-lasso"
        )


def _matching(config: RunConfig, graph: ChannelGraph) -> None:
    """A pattern that matches nothing is a typing error: what was to be kept out would be pruned."""
    for pattern in config.prune.ignore:
        if not any(PlanConstraints((pattern,)).excludes(group) for group in graph.groups):
            remedy = f"`{command('groups', '--model', config.model.name)}` lists them"
            raise PrunedgeError(
                f"no layer that could be pruned matches '{pattern}'",
                where=option("ignore"),
                remedy=remedy,
            )


@traced("load")
def _images(config: RunConfig, callbacks: Callbacks, *moved: object) -> Dataset:
    return images_of(config, *moved, progress=callbacks.progress)


@traced("start", phase)
def _setting(run: Run, callbacks: Callbacks) -> tuple[Run, Dataset, Engine]:
    """The images and the engine of a run: the same on every resumption."""
    config = run.config
    data = _images(config, callbacks, run.verb(), "DATA", "--resume", run.path)
    kept = run.engine()
    if kept is None:
        model = rebuild(config.model.name, data.classes, seed=config.data.seed)
        engine = measure_engine(model, data.example(8), precision=config.train.precision)
        kept = {
            "precision": engine.name,
            "threads": torch.get_num_threads(),
            "processes": distributed.world_size(),
            "processor": processor(),
            "accelerator": engine.accelerator,
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "range": None if data.greys is None else str(data.greys),
        }
        run.write("engine.json", kept := distributed.broadcast_object(kept))
    else:
        engine = make_engine(kept["precision"])
    if kept["fingerprint"] != data.fingerprint or kept["classes"] != list(data.classes):
        remedy = "put the images back as they were, or start a new run"
        raise RunError(
            f"the images in {config.data.path} have changed since this run began",
            where=run.path,
            remedy=remedy,
        )
    for line in note_computing(
        run, torch.get_num_threads(), distributed.world_size(), engine.accelerator
    ):
        log.warning("%s", line)
    return run.of_images(kept), data, engine


@traced("train", phase)
def _begin(run: Run, data: Dataset, engine: Engine, callbacks: Callbacks) -> None:
    config = run.config
    context, policy = (
        replace(_context(config, data, engine, callbacks), device=_device(run, data, callbacks)),
        StopPolicy(metric=config.task.metric),
    )
    keeper = RunCheckpointer(run.path, str(gathering(context)), run.sign)
    source: Run | None = None
    if config.model.start is not None:
        source = origin.open_start(run)
        inherit_rate(run, source)
        iteration = _from_start(
            run,
            source,
            context,
            StopPolicy(
                config.stop.max_drop, metric=config.task.metric, confidence=config.stop.confidence
            ),
        )
    else:
        model = build_told(
            config.model.name, data.classes, config.model.weights, seed=config.data.seed
        )[0]
        graph = trace(model, data.example())
        collector = gathered_while_training(config.prune.criterion, graph)
        settings = _transfer_settings(config)
        rate = rate_of(
            run,
            model,
            data,
            settings.config(model),
            engine,
            progress=callbacks.progress,
            tell=callbacks.tell,
        )
        fitted = transfer(
            model,
            data,
            settings,
            engine=engine,
            seed=config.data.seed,
            rate=rate,
            lowered=lambda lower: _lowered(run, lower, keeper, callbacks),
            extras=TrainExtras(
                progress=callbacks.progress,
                collector=collector,
                penalty=penalty(config.train.sparsity, graph, config.train.sparsity_strength),
                checkpointer=keeper,
            ),
        )
        iteration = baseline(
            context,
            fitted.model,
            policy,
            gathered(context, fitted.model, fitted.collected),
            fitted.state,
        )
    _keep(run, iteration, callbacks)
    keeper.forget()
    if source is not None:
        run.share_model(source)


def _lowered(run: Run, rate: Rate, keeper: RunCheckpointer, callbacks: Callbacks) -> None:
    """Note that the training begins anew at a lower rate. Cut off in between, it begins anew at the
    one before, to the same result.
    """
    keeper.forget()
    run.write(RATE, rate.to_json())
    callbacks.tell(rate.sentence())


def _from_start(run: Run, source: Run, context: PruneContext, policy: StopPolicy) -> Iteration:
    """Step 0 of a run that goes on from another, whose first model it keeps and measures on its
    own images.
    """
    best = source.best().index
    chain = origin.chain_to(source, best)
    state = source.state(best)
    if state.plan.keep:
        origin.keep_first(run, source)
        first = _measured_first(run, replace(context, first=None), policy)
        chain = replace(
            chain, first=first, weights=distributed.rank_zero_only(file_digest)(run.first_file())
        )
    run.write("chain.json", chain.to_json())
    iteration = baseline(
        replace(context, first=chain.first), state.model, policy, state.scores, plan=state.plan
    )
    if chain.first is not None:
        outcome = Outcome.of_step(iteration.step)
        accepted, reason = policy.accepts(chain.first, outcome, context.sources())
        if not accepted:
            log.warning("the start breaks the rule already: %s", reason)
    return iteration


def _measured_first(run: Run, context: PruneContext, policy: StopPolicy) -> Step:
    """The first model of the chain on this run's validation images (and on the device that
    steers).
    """
    model = run.load_first()
    step = baseline(replace(context, device=None), model, policy).step
    if context.device is None:
        return step
    return replace(
        step,
        latency_ms=distributed.broadcast_object(
            context.device.measure(model, context.data.example())
        ),
    )


def _first(run: Run) -> Step | None:
    """The first model of the run's chain, where that is not its step 0."""
    chain = run.chain()
    return None if chain is None else chain.first


def _transfer_settings(config: RunConfig) -> TransferSettings:
    """How the first training goes; the fine-tunings and the baselines differ in one thing each."""
    return TransferSettings(
        pretrained=config.model.weights != "none",
        epochs=config.train.epochs,
        batch_size=config.train.batch_size,
        metric=config.task.metric,
        augment=config.train.augment,
    )


def _context(
    config: RunConfig,
    data: Dataset,
    engine: Engine,
    callbacks: Callbacks,
    teacher: nn.Module | None = None,
) -> PruneContext:
    settings = replace(_transfer_settings(config), lr=config.recover.lr)
    finetune = settings.config(rebuild(config.model.name, data.classes))
    finetune = replace(
        finetune,
        called="finetune_lr",
        distill=config.recover.distill if teacher is not None else 0.0,
    )
    schedule = config.train.schedule_epochs or config.train.epochs
    if config.recover.rewind and schedule > config.recover.epochs:
        finetune = replace(finetune, start=1 - config.recover.epochs / schedule)
    return PruneContext(
        data,
        engine,
        finetune,
        config.prune.criterion,
        config.recover.epochs,
        config.data.seed,
        callbacks.progress,
        constraints=PlanConstraints(
            tuple(config.prune.ignore),
            config.prune.min_channels,
            config.prune.round_to,
            config.prune.max_ratio,
        ),
        extra_rounds=config.recover.extra_rounds,
        scaling=ScoreScaling(
            config.prune.normalise,
            config.prune.per_layer,
            config.prune.macs_penalty,
            config.prune.per_mac,
        ),
        recovery=RecoveryConfig(
            config.recover.compensate,
            sparsity=config.train.sparsity,
            sparsity_strength=config.train.sparsity_strength,
            teacher=teacher,
        ),
    )


def _device(run: Run, data: Dataset, callbacks: Callbacks) -> Steering | None:
    """The device that steers, if one does: what was measured of it when the run began is kept in
    the run.
    """
    config = run.config
    if config.device.address is None:
        return None
    steering = run.read_as("latency.json", Steering.from_json)
    if steering is None:
        if callbacks.progress is not None:
            callbacks.progress(0, 1, f"timing layers on {config.device.address}")
        model = (
            origin.open_start(run).load()
            if config.model.start
            else rebuild(config.model.name, data.classes, seed=config.data.seed)
        )
        with span("device"):
            found = steer(model.eval(), data.example(), _timer(config)).to_json()
        run.write("latency.json", found := distributed.broadcast_object(found))
        steering = Steering.from_json(found)
    return steering


def _timer(config: RunConfig) -> Timer:
    assert config.device.address is not None
    return Timer(config.device.address, config.device.runtime, config.device.threads)


@traced("baselines", phase)
def _baselines(
    run: Run, data: Dataset, engine: Engine, context: PruneContext, callbacks: Callbacks
) -> dict[str, nn.Module]:
    """The models of the baselines that the config asks for: trained, or as they were kept when the
    run was cut off.
    """
    config, best, chain = run.config, run.best().index, run.chain()
    found: dict[str, nn.Module] = {}
    for name in config.prune.baseline:
        model = rebuild(config.model.name, data.classes, seed=config.data.seed + 1)
        file, records = _baseline_file(run, name), run.read("baselines.json") or {}
        if name in records:
            found[name] = restore_model(model, baseline_file(run, name))
            continue
        steps = [step for step in run.steps()[: best + 1] if step.accepted and step.index]
        seed = 20_000 * (config.data.seed + 1) + len(found)
        if name == "scratch":
            epochs = _epochs(run)
            settings = replace(_transfer_settings(config), pretrained=False)
            bold = settings.config(model)
            plan = run.plan(best)
            fitted = scratch(
                model,
                plan,
                data,
                epochs=epochs,
                config=bold,
                engine=engine,
                seed=seed,
                progress=callbacks.progress,
            )
        elif steps:
            # From the first model on, over the removals of the runs before this one as well.
            plans = [(cut.plan, cut.epochs) for cut in (chain.cuts if chain else ())]
            plans += [(run.plan(step.index), step.rounds * config.recover.epochs) for step in steps]
            epochs = sum(count for _, count in plans)
            fitted = random(
                run.load_first(),
                plans,
                data,
                config=replace(context.finetune, distill=0.0),
                engine=engine,
                seed=seed,
                progress=callbacks.progress,
            )
        else:
            continue  # nothing was pruned
        assert fitted.val is not None
        file.parent.mkdir(exist_ok=True)
        digest = _keep_baseline(fitted.model, file)
        about = {
            "epochs": epochs,
            "seconds": fitted.seconds,
            "val": fitted.val.to_json(),
            "sha256": digest,
        }
        run.write("baselines.json", {**records, name: about})
        found[name] = fitted.model
    return found


@distributed.rank_zero_only
def _keep_baseline(model: nn.Module, file: Path) -> str:
    """Write a baseline's model; gives the file's SHA-256."""
    with written(file) as temporary:
        save_model(model, temporary)
        return file_digest(temporary)


def baseline_file(run: Run, name: str) -> Path:
    """The weights of a baseline, which are what was written; RunError where they are not."""
    file, about = _baseline_file(run, name), run.read("baselines.json")[name]
    try:
        if file.exists():
            check(file, {file.name: about["sha256"]})
    except Broken as error:
        remedy = (
            f"bring it back from a copy, or delete {file.parent}.json and the folder: --resume "
            "makes the baselines again"
        )
        raise RunError(f"damaged, or of another run: {error}", where=file, remedy=remedy) from None
    return file


def _baseline_file(run: Run, name: str) -> Path:
    return run.path / "baselines" / f"{name}.safetensors"


def _epochs(run: Run) -> int:
    """How many epochs the best model of a run has seen, in the runs that it began from as
    well.
    """
    config, chain = run.config, run.chain()
    before = config.train.epochs if chain is None else chain.epochs
    return epochs_of(run.steps(), run.best().index, before, config.recover.epochs)


def _keep(run: Run, iteration: Iteration, callbacks: Callbacks) -> None:
    run.commit(iteration)
    if callbacks.on_step is not None:
        callbacks.on_step(iteration.step)


def _referred(run: Run, reference: Reference) -> nn.Module:
    return run.load(0) if reference.tested == "start" else run.load_first()


@traced("test", phase)
def _test(
    run: Run, data: Dataset, engine: Engine, baselines: Mapping[str, nn.Module]
) -> dict[str, Any]:
    """The models, and the baselines, on the test split: the one time that it is looked at, unless
    an ended run went on.
    """
    models = {reference.tested: _referred(run, reference) for reference in run.references()}
    found = on_test({**models, "best": run.load()}, data, engine)
    tested = {
        name: metrics_of(*predict(model.eval(), data.test, engine))
        for name, model in baselines.items()
    }
    return {**found, "baselines": tested, "looks_before": run.looks_before()}
