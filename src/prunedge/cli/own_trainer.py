"""`prunedge prune --trainer`: the loop around a training of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunedge.errors import PrunedgeError

if TYPE_CHECKING:
    from prunedge.cli.console import Advance
    from prunedge.runs.run import Run


@dataclass(frozen=True)
class OwnJob:
    """What the command line names: the training, and the run to make or to go on with."""

    trainer: str | None
    resume: Path | None
    out: Path | None
    start: Path | None


def is_of_own_trainer(resume: Path | None) -> bool:
    """Whether the run to go on with is of a training of the user's own."""
    from prunedge.runs.run import open_run

    return resume is not None and open_run(resume).config.has_own_trainer


def prune_own(job: OwnJob, values: Mapping[str, Any], advance: Advance, *, quiet: bool) -> Run:
    """Begin a run of the training, or go on with one."""
    _refuse_images(job, values)
    if job.resume is not None:
        return _resumed(job, job.resume, values, advance, quiet=quiet)
    return _begun(job, values, advance, quiet=quiet)


def _begun(job: OwnJob, values: Mapping[str, Any], advance: Advance, *, quiet: bool) -> Run:
    from dataclasses import replace

    from prunedge.cli.new_run import new_folder
    from prunedge.cli.pruning_lines import callbacks
    from prunedge.edge.tasks.metric import Metric
    from prunedge.pruning.from_config import OWN_UNIT
    from prunedge.pruning.function_trainer import metric_watched
    from prunedge.pruning.prune_with import refuse_of_training
    from prunedge.runs import own
    from prunedge.runs.new import refuse_full
    from prunedge.runs.own_trainer import training_named
    from prunedge.utils import trust

    assert job.trainer is not None
    folder = new_folder(job.out)
    refuse_full(folder)
    refuse_of_training(values)
    trust.give(job.trainer)
    training = training_named(job.trainer)
    training.trainer.functions.refuse_missing(values.get("criterion", "taylor"))
    name = values.get("metric") or training.metric
    name = metric_watched(training.trainer, training.model, name)
    training = replace(training, metric=name)
    metric = Metric(name, higher_is_better=training.higher_is_better, unit=OWN_UNIT)
    return own.prune(training, folder, values, callbacks(metric, advance, quiet))


def _resumed(
    job: OwnJob, resume: Path, values: Mapping[str, Any], advance: Advance, *, quiet: bool
) -> Run:
    from prunedge.cli.pruning_lines import callbacks
    from prunedge.cli.resume import changes_to
    from prunedge.report.metric_text import metric_of
    from prunedge.runs import own
    from prunedge.runs.run import open_run

    metric = metric_of(open_run(resume).config)
    given = {key: value for key, value in values.items() if key != "metric"}
    if values.get("metric", metric.name) != metric.name:
        raise PrunedgeError(
            f"the run watches {metric.name}",
            where=f"--metric {values['metric']}",
            remedy="leave it out, or start a new run in another folder",
        )
    changes = changes_to(resume, job.out, given, "prune")
    return own.resume(resume, callbacks(metric, advance, quiet), changes, job.trainer)


def _refuse_images(job: OwnJob, values: Mapping[str, Any]) -> None:
    """PrunedgeError for what needs images, or a run that has them."""
    beside = "--trainer" if job.trainer is not None else f"--resume {job.resume}"
    wrong = ["DATA"] if "data" in values else []
    wrong += ["--from"] if job.start is not None else []
    if wrong:
        raise PrunedgeError(
            f"{' and '.join(wrong)} beside {beside}, whose functions know the data themselves",
            where="prune",
            remedy="leave it out",
        )


@dataclass(frozen=True)
class OwnExport:
    """What is exported of a run, where to, and the `others` among the options, which need a task
    and images.
    """

    run: Run
    out: Path
    index: int | None
    formats: Sequence[str] | None
    trainer: str | None
    others: Mapping[str, object]


def tell_export(job: OwnExport, *, json: bool) -> None:
    """Export the model of a run of the user's own training, and tell how it compares with torch."""
    from prunedge.cli.console import print_json, tell
    from prunedge.runs.own_export import EXAMPLE, export_own
    from prunedge.utils.wording import counted

    if not job.run.config.has_own_trainer:
        raise PrunedgeError(
            "the model of this run is made by its name",
            where=f"--trainer {job.trainer}",
            remedy="leave it out",
        )
    wrong = [name for name, value in job.others.items() if value is not None]
    if wrong:
        raise PrunedgeError(
            f"{', '.join(wrong)} can't be had of a training of your own, whose model is written as "
            "ONNX alone, for any number of examples",
            where=job.run.path,
            remedy="leave it out",
        )
    record = export_own(job.run, job.out, job.index, job.formats or ("onnx",), job.trainer)
    if json:
        print_json(record)
        return
    compared = record["compared"]
    size_mb = (job.out / "model.onnx").stat().st_size / 1e6
    shown = "the example alone"
    if compared["on"] != EXAMPLE:
        shown = f"{counted(compared['examples'], 'example')} of {compared['on']}"
    tell(
        f"{job.out}: onnx, {size_mb:.2f} MB, differs from torch by at most "
        f"{compared['largest_difference']:.1e} on {shown}"
    )
    for each in record["inputs"]:
        sizes = ", ".join("any" if size is None else str(size) for size in each["shape"])
        tell(f"  it takes {each['name']} ({sizes}), {each['kind']}")
