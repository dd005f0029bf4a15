"""`prunedge export`: a bundle that a device needs and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.console import split
from prunedge.cli.options import Flag, TrustCode
from prunedge.edge.denormals import TINY
from prunedge.edge.targets import TARGETS
from prunedge.utils.advice import command
from prunedge.utils.wording import counted, figure, first_of, probability

if TYPE_CHECKING:
    from prunedge.edge import Bundle, Form
    from prunedge.edge.tasks.base import TaskSpec
    from prunedge.edge.tasks.decision import OperatingRule

FORMATS = (
    f"{', '.join(TARGETS)}; several with commas between them. The first runs unless another is "
    "asked for."
)


def export(
    run: Path,
    *,
    out: Path,
    formats: Annotated[
        list[str] | None, Parameter(name="--format", converter=split, help=FORMATS)
    ] = None,
    max_int8_drop: str | None = None,
    opset: int | None = None,
    fixed_batch: int | None = None,
    step: int | None = None,
    baseline: Flag = False,
    operate: str | None = None,
    cost: str | None = None,
    trainer: str | None = None,
    trust_code: TrustCode = False,
    json: Flag = False,
) -> None:
    """Export the best model of a run (or another step's) as a bundle: the model, labels,
    preprocessing, self-test, checksums.

    Every form of the model is run by its own runtime and compared with torch on real images of
    the run's validation split before it is kept. Eight-bit integers are calibrated on training
    images. Where a form fails, the others are kept; a line says which, and the exit code is 2.

    Example: `prunedge export runs/cracks --out bundles/cracks --format onnx,onnx-int8`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`.
    out
        The bundle's folder to make.
    max_int8_drop
        How much worse eight-bit integers may make the metric on validation data: percentage points,
        or the metric's own unit where it has one; 5% is a share of its value. Where it is more,
        layers of onnx-int8 go back to float until it holds; other forms are refused.
        Unless given: 1 point, or 5% where the metric has a unit of its own.
    opset
        The version of ONNX's operations, for runtimes that are older: 13 to what the installed onnx
        knows. Unless given: 18.
    fixed_batch
        Let the ONNX file, and what is made of it, take just so many images at a time, for runtimes
        that take no other. Unless given, any number.
    step
        Export the model after this step instead of the best, by the number that `show` prints.
    baseline
        Export the unpruned model: the first of the chain where the run goes on from one that was
        pruned before.
    operate
        Where damage is reported from, instead of the run's own: "recall >= 0.95", "alarms <= 0.02"
        or cost. The threshold of each form is chosen anew on validation data.
    cost
        What a miss and a false alarm cost, for --operate cost: miss=50,alarm=1.
    trainer
        Of a run of your own training that functions from Python made: package.module:object with
        its model and functions (`prunedge prune --trainer`).
    json
        Print the manifest as JSON.
    """
    from prunedge.cli.console import tell
    from prunedge.cli.own_trainer import OwnExport, tell_export
    from prunedge.edge import open_bundle
    from prunedge.edge.tasks.metric import as_drop
    from prunedge.errors import PartialExport, PrunedgeError
    from prunedge.export.onnx import OPSET, OnnxOptions
    from prunedge.runs.export import write_bundle
    from prunedge.runs.run import open_run
    from prunedge.utils import trust
    from prunedge.utils.files import refuse_url

    if baseline and step is not None:
        raise PrunedgeError("--step and --baseline exclude each other", remedy="use one of them")
    if formats == []:
        raise PrunedgeError(
            "no format", where="--format", remedy="name one, or leave it out for onnx"
        )
    try:
        drop = None if max_int8_drop is None else as_drop(max_int8_drop)
    except ValueError as error:
        raise PrunedgeError(
            str(error), where=f"--max-int8-drop {max_int8_drop}", remedy="mend this value"
        ) from None
    if cost is not None and operate is None:
        raise PrunedgeError(
            "--cost acts only with --operate cost", where="--cost", remedy="give both, or neither"
        )
    refuse_url(out)
    _refuse_idle(formats or ["onnx"], {"--opset": opset, "--fixed-batch": fixed_batch})
    trust.trust_everything(trust_code)
    opened = open_run(run)
    index = None if step is None else opened.step_numbered(step).index
    if opened.config.has_own_trainer or trainer is not None:
        wanted: dict[str, object] = {"--operate": operate, "--cost": cost}
        wanted |= {"--max-int8-drop": max_int8_drop, "--opset": opset, "--fixed-batch": fixed_batch}
        place = 0 if baseline else index
        tell_export(OwnExport(opened, out, place, formats, trainer, wanted), json=json)
        return
    try:
        bundle = write_bundle(
            opened,
            out,
            index,
            formats or ["onnx"],
            drop,
            baseline=baseline,
            rule=None if operate is None else _rule(operate, cost),
            onnx_options=OnnxOptions(OPSET if opset is None else opset, fixed_batch),
        )
    except PartialExport as error:
        _tell_bundle(open_bundle(error.bundle), json=json)
        raise
    _tell_bundle(bundle, json=json)
    if not json:
        tell(f"next: {command('bench', bundle.path)}")


def _refuse_idle(formats: Sequence[str], options: Mapping[str, object]) -> None:
    """PrunedgeError for an option of the ONNX file where no form is made of that."""
    from prunedge.errors import PrunedgeError

    given = [name for name, value in options.items() if value is not None]
    known = [name for name in formats if name in TARGETS]
    if not given or not known or any(TARGETS[name].batches for name in known):
        return
    raise PrunedgeError(
        f"{' and '.join(given)}: of the ONNX file and what is made of it alone",
        where=f"--format {','.join(known)}",
        remedy="leave it out, or add a form such as onnx",
    )


def _rule(operate: str, cost: str | None) -> OperatingRule:
    """The rule that is asked for; PrunedgeError where it is none."""
    from prunedge.edge.tasks.decision import costs_in, rule_in
    from prunedge.errors import PrunedgeError

    try:
        return rule_in(operate, None if cost is None else costs_in(cost))
    except ValueError as error:
        where = f'--operate "{operate}"'
        raise PrunedgeError(str(error), where=where, remedy="mend this value") from None


def _tell_bundle(bundle: Bundle, *, json: bool) -> None:
    """Each form with its size, and how it compares with torch; the manifest as JSON."""
    from prunedge.cli.console import print_json, tell

    if json:
        print_json(bundle.manifest.model_dump())
        return
    task = bundle.manifest.task
    if zeroed := bundle.manifest.zeroed:
        tell(f"{counted(zeroed, 'weight')} below {TINY:g} became zero: they make processors slow")
    for target, form in bundle.manifest.forms.items():
        size_mb = bundle.size_bytes(target) / 1e6
        tell(f"{bundle.path}: {target}, {size_mb:.2f} MB, {_check_text(form, task)}")
        if form.float_layers:
            layers = counted(len(form.float_layers), "layer")
            tell(f"  {layers} in float, or too much is lost: {first_of(form.float_layers)}")
        figures = bundle.manifest.metrics.get("decision", {})
        told = _decision_text(bundle.seen_as(target).manifest.task, form, figures)
        if told:
            tell(f"  {told}")


def _decision_text(task: TaskSpec, form: Form, float_figures: Mapping[str, float]) -> str:
    """Where damage is reported from, and what that finds on validation data: before and after where
    the form was judged there, else what the float model's `recall` and `alarms` are, whose answers
    it gives; empty where nobody asked for a threshold.
    """
    decision = task.decision
    if decision is None or decision.threshold is None:
        return ""
    text = f"damage from a probability of {probability(decision.threshold)} on ({decision.rule})"
    if form.check is None:
        return text
    metrics = form.check.metrics
    if "recall" not in metrics:
        # It gives torch's answers.
        return (
            f"{text}; on validation data recall {float_figures['recall']:.1%}, false alarms "
            f"{float_figures['alarms']:.1%}"
        )
    return (
        f"{text}; on validation data recall {metrics['recall_float']:.1%} -> "
        f"{metrics['recall']:.1%}, false alarms {metrics['alarms_float']:.1%} -> "
        f"{metrics['alarms']:.1%}"
    )


def _check_text(form: Form, task: TaskSpec) -> str:
    """How a form of the model compares with torch."""
    from prunedge.edge.tasks import decoder_of
    from prunedge.tasks import metric_named

    check = form.check
    if check is None:
        return (
            "not checked here (its runtime is on the device only): prunedge bench checks it there"
        )
    noun = decoder_of(task).noun
    text = (
        f"differs from torch by at most {check.max_abs_difference:.1e} on "
        f"{counted(check.images, 'image')}, same {noun} on {check.agreement:.1%}"
    )
    if not check.metrics:
        return text
    name = next(key for key in check.metrics if f"{key}_float" in check.metrics)
    metric = metric_named(name, task.name)
    before = metric.text(check.metrics[f"{name}_float"])
    after = metric.text(check.metrics[name])
    if "largest_difference" in check.metrics:
        text += (
            f"; answers differ by at most {figure(check.metrics['largest_difference'])} "
            f"({figure(check.metrics['mean_difference'])} in the mean)"
        )
    return (
        f"{text}; {name} on validation data {before} -> {after}, same {noun} on "
        f"{check.metrics['agreement']:.1%} of {counted(round(check.metrics['images']), 'image')}"
    )
