"""A run's model or a bundle's, in any of its forms, as something that labelled images are shown
to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset, Split
from prunedge.data.judged import Sight
from prunedge.edge import open_bundle
from prunedge.edge.bench.ssh import Host, files_of
from prunedge.edge.bundle import Bundle
from prunedge.edge.image.normalise import normalise, statistics
from prunedge.edge.image.read import Greys, parse_range
from prunedge.edge.predict import Predictor
from prunedge.edge.session import Session, open_session, require_threads
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.decision import Decision
from prunedge.errors import BundleError, PrunedgeError, RunError
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.runs.deciding import chosen_aloud
from prunedge.runs.decision_record import DecisionRecord
from prunedge.runs.images import images_of
from prunedge.runs.run import Run, open_run
from prunedge.runs.task import task_of
from prunedge.tasks import Meter, Task, make_task
from prunedge.tasks.operating import detection_of, with_decision
from prunedge.train import make_engine, observe
from prunedge.utils.advice import command, option
from prunedge.utils.signs import CONFIG
from prunedge.utils.systems import cores

TORCH = "torch"
BATCH = 32


@dataclass(frozen=True)
class JudgedModel:
    """A model, what it predicts, and how it sees images. `metric` is the name of the one that it
    is judged by, `form` what computes it, `observe` the meter of its answers to a split.

    Of a run, `run` is that, and `own` its images as they are now, or why they can't be had.
    `decision` gives what its threshold and temperature are: of a bundle those that it has, of a run
    those that its validation images and its own rule choose; None where there are none.
    """

    title: str
    form: str
    task: Task
    metric: str
    sight: Sight
    observe: Callable[[Split], Meter]
    decision: Callable[[], Decision | None]
    run: Run | None = None
    own: Dataset | PrunedgeError | None = None


def is_run(place: Path) -> bool:
    """Whether a folder holds a run, and no bundle."""
    return (place / CONFIG).is_file()


def open_model(
    place: Path,
    *,
    target: str | None = None,
    step: int | None = None,
    baseline: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> JudgedModel:
    """The model of a run (its best, the one after a `step` as `show` numbers them, or the first
    unpruned one as `baseline`), or that of a bundle for a `target`; on a `device`
    (`ssh://user@host`) it is a bundle's alone, computed by the prunedge there.

    Raises RunError or BundleError where it is not there or asked for in a way that it has not.
    """
    if threads is not None:
        require_threads(threads)
    if is_run(place):
        if device is not None:
            exporting = command("export", place, "--out", "BUNDLE")
            raise RunError(
                "a device runs bundles, and no run's model",
                where=place,
                remedy=f"evaluate its bundle there ({exporting} makes one)",
            )
        if threads is not None:
            torch.set_num_threads(threads)
        return _of_run(open_run(place), target, step, baseline=baseline)
    if step is not None or baseline:
        raise BundleError(
            "--step and --baseline are for runs: a bundle holds one model",
            where=place,
            remedy="leave them out, or name the run that it was exported from",
        )
    bundle = open_bundle(place)
    if device is not None:
        return _of_device(Host.parse(device), bundle, target, threads)
    return _of_bundle(bundle, target, cores() if threads is None else threads)


def _of_run(run: Run, target: str | None, step: int | None, *, baseline: bool) -> JudgedModel:
    title, model = _chosen(run, target, step, baseline=baseline)
    task = task_of(run.config)
    assert task.spec is not None
    own = _own_images(run.config)
    engine = make_engine("32")
    return JudgedModel(
        title=f"{run.path}: {title}",
        form=TORCH,
        task=task,
        metric=run.config.task.metric,
        sight=Sight(
            targets=task.targets,
            size=task.spec.size,
            resize=task.spec.resize,
            in_channels=task.spec.in_channels,
            image_norm=run.config.data.image_norm,
            greys=_greys(run.config, own),
            tile=run.config.data.tile,
        ),
        observe=lambda split: observe(model, split, engine, task),
        decision=lambda: _decision_of(
            run,
            _tested_as(run, step, baseline=baseline),
            own,
            lambda split: observe(model, split, engine, task),
        ),
        run=run,
        own=own,
    )


def _tested_as(run: Run, step: int | None, *, baseline: bool) -> str | None:
    """What test.json calls a model of a run; None of one that was not tested."""
    if baseline:
        return run.references()[0].tested
    best = run.best().index
    index = best if step is None else run.step_numbered(step).index
    if index == best:
        return "best"
    return run.references()[-1].tested if index == 0 else None


def _decision_of(
    run: Run,
    tested: str | None,
    own: Dataset | PrunedgeError | None,
    observed: Callable[[Split], Meter],
) -> Decision | None:
    """The decision that the run keeps of a model, or else what its validation images choose; None
    where these are gone.
    """
    kept = (run.test() or {}).get("decisions", {}).get(tested)
    if kept is not None:
        return DecisionRecord.model_validate(kept).decision
    if not isinstance(own, Dataset):
        return None
    chosen = chosen_aloud(task_of(run.config), observed(own.val), run.config.task.rule)
    return None if chosen is None else chosen.decision


def _chosen(
    run: Run, target: str | None, step: int | None, *, baseline: bool
) -> tuple[str, nn.Module]:
    """What a model of a run is called, and the model. RunError where the run has no such one."""
    if target not in (None, TORCH):
        exporting = command("export", run.path, "--out", "BUNDLE", "--format", target)
        raise RunError(
            f"a run's model is computed by torch, not by {target}",
            where=run.path,
            remedy=f"evaluate its bundle ({exporting} makes one), or leave --runtime out",
        )
    if baseline and step is not None:
        raise RunError("--step and --baseline exclude each other", remedy="use one of them")
    if baseline:
        return run.references()[0].name, run.load_first()
    chosen = run.best() if step is None else run.step_numbered(step)
    return chosen.name, run.load(chosen.index)


def _own_images(config: RunConfig) -> Dataset | PrunedgeError:
    """A run's images as they are now; the error where they are gone or can't be used any more."""
    try:
        return images_of(config)
    except PrunedgeError as error:
        return error


def _greys(config: RunConfig, own: Dataset | PrunedgeError | None) -> Greys | None:
    """The range of greys that its images have; where these are gone, the one that a run keeps."""
    if isinstance(own, Dataset):
        return own.greys
    if config.data.range is None:
        return None
    return Greys(*parse_range(str(config.data.range)))


def _of_bundle(bundle: Bundle, target: str | None, threads: int) -> JudgedModel:
    session = open_session(bundle, threads, target)
    name = session.target.name
    return _answering(bundle, name, name, lambda split: _observed(session, split))


def _of_device(host: Host, bundle: Bundle, target: str | None, threads: int | None) -> JudgedModel:
    name = bundle.target if target is None else target
    bundle.form(name)  # BundleError where it has none
    if DEFINITIONS[bundle.manifest.task.name].reads_masks:
        raise BundleError(
            "maps are too many numbers to come back from a device",
            where=bundle.path,
            remedy=f"evaluate it here ({option('runtime', name)}); bench --device tells its time",
        )

    def observed(split: Split) -> Meter:
        return _observed_on(host, bundle, name, threads, split)

    return _answering(bundle, name, f"{name} on {host.destination}", observed)


def _answering(
    bundle: Bundle, target: str, form: str, observe: Callable[[Split], Meter]
) -> JudgedModel:
    """A bundle's model for a target, whose answers `observe` gives."""
    manifest = bundle.seen_as(target).manifest
    task = make_task(manifest.task)
    validated = manifest.metrics.get("validation") or {}
    judged = [name for name in validated if name in task.metrics]
    return JudgedModel(
        title=str(bundle.path),
        form=form,
        task=task,
        metric=judged[0] if judged else next(iter(task.metrics)),
        sight=Sight(
            targets=task.targets,
            size=manifest.task.size,
            resize=manifest.task.resize,
            in_channels=manifest.task.in_channels,
            greys=bundle.greys,
        ),
        observe=observe,
        decision=lambda: manifest.task.decision,
    )


def _observed_on(
    host: Host, bundle: Bundle, target: str, threads: int | None, split: Split
) -> Meter:
    """The meter of a bundle's answers on another machine: pixels go there, outputs come back."""
    task = make_task(bundle.manifest.task)
    spec = bundle.manifest.task
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pixels.npy")
        shape = (len(split), *spec.size, spec.in_channels)
        pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, len(split), BATCH):
            chosen = np.arange(start, min(start + BATCH, len(split)))
            pixels[start : start + len(chosen)] = split.pixels(chosen)
        pixels.flush()
        words = ["predict", "bundle", file.name, "--out", "-", "--json", f"--runtime={target}"]
        if threads is not None:
            words.append(f"--threads={threads}")
        answer = host.run(words, {**files_of(bundle, "bundle"), file.name: file})
    try:
        outputs = torch.tensor(answer["outputs"], dtype=torch.float32)
    except (KeyError, TypeError, ValueError):
        outputs = torch.empty(0)
    if len(outputs) != len(split):
        raise BundleError(
            "its answer is another prunedge's",
            where=host.destination,
            remedy="install the same version there",
        )
    meter = task.meter()
    targets = torch.from_numpy(split.targets())
    for each, truth in zip(outputs.split(BATCH), targets.split(BATCH), strict=True):
        meter.update(meter.observe(each, truth))
    return meter


def _observed(session: Session, split: Split) -> Meter:
    """The meter of a bundle's answers, which normalises pixels as its manifest says."""
    meter = make_task(session.bundle.manifest.task).meter()
    for start in range(0, len(split), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(split)))
        outputs = torch.from_numpy(session.answer(split.pixels(chosen)))
        meter.update(meter.observe(outputs, torch.from_numpy(split.targets(chosen))))
    return meter


def predictor_of(
    place: Path,
    *,
    target: str | None = None,
    step: int | None = None,
    baseline: bool = False,
    threads: int = 1,
) -> Predictor:
    """What answers images by the model of a run (`open_model`)."""
    require_threads(threads)
    torch.set_num_threads(threads)
    run = open_run(place)
    _, model = _chosen(run, target, step, baseline=baseline)
    task = task_of(run.config)
    assert task.spec is not None
    tested = _tested_as(run, step, baseline=baseline)
    is_kept = tested in (run.test() or {}).get("decisions", {})
    decides = detection_of(task.spec) is not None
    # Only images with deep greys, and those that have to choose a threshold, tell more than the
    # run's files.
    needs_images = run.config.data.range is not None or (decides and not is_kept)
    own = _own_images(run.config) if needs_images else None
    mean, std = statistics(run.config.data.image_norm, run.config.data.in_channels)

    def outputs(pixels: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(normalise(pixels, mean, std))
        with evaluating(model), torch.no_grad(), full_float32():
            answers: np.ndarray = task.outputs_of(model(inputs)).float().numpy()
        return answers

    spec = task.spec
    if decides:
        engine = make_engine("32")
        decision = _decision_of(run, tested, own, lambda split: observe(model, split, engine, task))
        spec = with_decision(spec, decision)
    return Predictor(spec, _greys(run.config, own), outputs)
