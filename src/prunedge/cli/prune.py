"""`prunedge prune`: the main job."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from prunedge.cli.given import ASIDE, opened_to_resume, tells_given

if TYPE_CHECKING:
    from prunedge.cli.console import Advance
    from prunedge.config import Recipe
    from prunedge.pruning.loop import Step
    from prunedge.runs.session import Watch


@tells_given
def prune(
    data: str | None = None,
    *,
    model: str | None = None,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    resume: Path | None = None,
    out: Path | None = None,
    weights: str = "imagenet",
    train_epochs: int = 10,
    criterion: str = "taylor",
    normalise: Literal["none", "l2", "mean", "rank"] = "l2",
    per_layer: bool = False,
    macs_penalty: float = 0.0,
    per_mac: bool = False,
    step: float = 0.1,
    epochs: int = 1,
    max_drop: float = 3.0,
    confidence: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    max_steps: int | None = None,
    target_latency: str | None = None,
    device: str | None = None,
    runtime: Literal["onnx", "openvino", "tensorrt"] = "onnx",
    device_threads: int = 1,
    extra_rounds: int = 1,
    compensate: Literal["none", "mean", "lstsq"] = "none",
    rewind: bool = False,
    distill: float = 0.0,
    regularise: Literal["none", "bn-l1", "group-lasso", "growing"] = "none",
    strength: float | None = None,
    control: list[Literal["scratch", "random"]] | None = None,
    keep_out: list[str] | None = None,
    least: int = 2,
    multiple: int = 1,
    cap: float | None = None,
    metric: Literal["accuracy", "f1", "auroc"] | None = None,
    seed: int | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    augment: Literal["none", "flips", "full"] | None = None,
    lr: float | None = None,
    finetune_lr: float | None = None,
    folds: int | None = None,
    fold: int | None = None,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | None = None,
    precision: Literal["auto", "32", "32-channels-last", "bf16"] = "auto",
    profile: Annotated[bool, Parameter(negative="")] = False,
    trust_code: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    given: Annotated[frozenset[str], Parameter(parse=False)] = frozenset(),
) -> None:
    """Teach a network your pictures, then remove the channels that they don't need, as far as the rule allows.

    Each step ranks the channels, removes the least important, fine-tunes and measures on validation data. A step that drops
    the metric by more than --max-drop points below the unpruned network's is taken back and halved. The last network that kept the
    rule is the result; both are measured once on the test split at the end.

    Example: `prunedge prune cracks/ --model resnet18 --criterion taylor --step 0.1 --epochs 1 --max-drop 3 --out runs/cracks`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar, 'train-{000..012}.tar', a folder of them, or a URL.
        May be left out with --from.
    model
        Any torchvision or timm name, or package.module:function of your own; it is trained first.
    start
        A run folder (of `train` or `prune`) whose best network is the start, instead of --model. Its split is kept: one that has
        pictures among test or validation that taught this network is refused.
    resume
        A run folder to go on with, from its last step; nothing else is needed. What ends a run (--max-steps, --max-drop, --confidence,
        --extra-rounds, --target-...) may be given anew, also to a run that has ended, and DATA where the pictures were moved; whatever
        else differs from what the run began with is refused.
    out
        The run folder to make; it must not hold anything yet.
    weights
        imagenet (downloaded), none (random), or a file (.pth, .safetensors), a run or a bundle.
    train_epochs
        Epochs of the transfer learning that comes before the pruning.
    criterion
        How channels are ranked: taylor, taylor-fo, taylor-bn, fisher, weight-l1, weight-l2, fpgm, bn-scale, activation-mean,
        activation-std, apoz, mutual-information, mutual-information-prediction, random, or your own.
        `prunedge audit` says which suits your network.
    normalise
        What each layer's scores are divided by before layers are compared: their Euclidean norm (l2), their mean, nothing (none), or
        their ranks are compared instead.
    per_layer
        Don't compare layers: each loses the same share.
    macs_penalty
        Takes this much times a channel's share of the network's MACs off its score, so that costly channels go first.
    per_mac
        Divide scores by the MACs that the channel costs.
    step
        Share of the remaining channels that a step removes.
    epochs
        Epochs of fine-tuning in each step.
    max_drop
        The rule: percentage points that the metric may lose on validation data, against the unpruned network (with --from a run that was
        pruned, the first of that chain).
    confidence
        Call the rule broken only when accuracy has dropped by more with this confidence (0.95), from the validation pictures; patches of
        one source count together.
    target_macs
        Stop at this share of the unpruned network's MACs.
    target_params
        Stop at this share of the unpruned network's parameters.
    max_steps
        Stop after this many steps.
    target_latency
        Stop when the network takes this long for a picture on the --device: 5ms, 0.8ms.
    device
        What channels cost is the time that they take on this device: local (this machine), or ssh://user@host with prunedge installed
        there. The layers are timed there first (seconds, kept for the next time), every step's network is timed there before it is
        fine-tuned, and a step that makes it no faster is not taken.
    runtime
        The runtime that the device will use: onnx, openvino, tensorrt.
    device_threads
        Threads that one inference may use there.
    extra_rounds
        How often a step that breaks the rule is fine-tuned for --epochs more before it is taken back.
    compensate
        Hand what the removed channels gave on average to their consumers' biases (mean), or solve the consumers' weights anew for the
        least squared difference (lstsq), before fine-tuning.
    rewind
        Fine-tune with the last --epochs of the training's learning-rate schedule, instead of a whole schedule of its own.
    distill
        Weight (0 to 1) of the unpruned network's answers in the loss of the fine-tuning.
    regularise
        Draw channels to zero while training: L1 on the scales of batch norms, group lasso over all weights of a channel, or a
        penalty that grows for --epochs on those that are about to leave.
    strength
        Of --regularise, instead of its usual one.
    control
        Also train the pruned shape from random weights for as many epochs (scratch), or prune as many channels of each layer at
        random with the same fine-tuning (random), and compare on test data; may be repeated.
    keep_out
        A pattern of layer or group names that keep all their channels (`layer1.*`; `prunedge groups` lists them); may be repeated.
    least
        Every group keeps at least this many channels.
    multiple
        Groups that lose channels keep a multiple of this many (8 or 16 suits many devices).
    cap
        The largest share that a group may lose in one step. Without it half, or twice the --step where that is more, so that groups still
        compare; but a group keeps at least a quarter of what the step leaves on average (--step 0.5: an eighth).
    metric
        What the rule watches (accuracy).
    seed
        Decides the split, the random weights and the order of the pictures (0).
    size
        Pictures are stretched to size x size pixels (224).
    batch_size
        Pictures in a training step (32).
    augment
        How training pictures are changed in every epoch: full (the usual one: quarter turns, flips, a little brightness and contrast),
        flips (left for right, top for bottom: where a picture turned by a quarter would never be seen, as of courses of bricks), or none.
    lr
        Peak learning rate of the transfer learning, instead of the one that a short test on training pictures finds for pretrained
        weights, or of the usual one from random weights.
    finetune_lr
        Peak learning rate of the fine-tuning in each step, instead of that of the transfer learning.
    folds
        Cross-validation: share all pictures out anew into this many parts, one of which is the test split.
    fold
        Which part, from 0.
    group_by
        `parent`, or a regular expression on each path: pictures of one group stay on one side of the split.
    skip_unreadable
        Go on without pictures that can't be read.
    range
        LOW:HIGH, the stored values that become black and white, for greys of more than eight bits (0:4095; -20:120 as --range=-20:120).
        Without it, what the training pictures need; it is kept with the run and its bundles.
    precision
        auto measures which is fastest here.
    profile
        Write where the time goes into the run (`profile/`): a table, also in the report, and a trace that opens in Perfetto. The result
        stays the same; on a GPU the run takes a little longer.
    trust_code
        Run code that a run names (package.module:function) from the working directory, as the one who made the run wanted. What you
        named there yourself needs no such word.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, tell
    from prunedge.cli.profile import print_profile
    from prunedge.data.paths import absolute
    from prunedge.errors import PrunedgeError
    from prunedge.report.text import pruned
    from prunedge.runs.resumption import changes_of
    from prunedge.runs.session import prune as start_job
    from prunedge.runs.session import resume as resume_job
    from prunedge.utils import trust

    pictures = {
        "metric": metric, "seed": seed, "size": size, "batch_size": batch_size, "group_by": group_by, "folds": folds, "fold": fold,
        "augment": augment, "range": range, "data": None if data is None else absolute(data),
    }  # fmt: skip
    knobs = {
        "criterion": criterion, "normalise": normalise, "per_layer": per_layer, "macs_penalty": macs_penalty, "per_mac": per_mac,
        "step": step, "epochs": epochs, "max_drop": max_drop, "confidence": confidence, "target_macs": target_macs,
        "target_params": target_params, "max_steps": max_steps, "finetune_lr": finetune_lr, "precision": precision,
        "compensate": compensate, "rewind": rewind, "distill": distill, "regularise": regularise, "strength": strength,
        "target_latency": None if target_latency is None else milliseconds(target_latency),
        "device": device, "runtime": runtime, "device_threads": device_threads,
        "control": list(dict.fromkeys(control or [])), "extra_rounds": extra_rounds,
        "keep_out": keep_out or [], "least": least, "multiple": multiple, "cap": cap,
    }  # fmt: skip
    training = {"weights": weights, "train_epochs": train_epochs, "lr": lr}
    trust.trust_everything(trust_code)
    if resume is not None:
        for name in (model, criterion):
            if name is not None:
                trust.give(name)
        begun = opened_to_resume(resume, out, "prune")
        named = {"model": model, "start": None if start is None else str(start.resolve()), "skip_unreadable": skip_unreadable}
        values = {**pictures, **knobs, **training, **named}
        changes = changes_of(begun, {key: values[key] for key in given if key not in ASIDE}, "prune")
        with _profiled(resume if profile else None), progress("pruning", quiet=json) as advance:
            run = resume_job(resume, watch(advance, json), changes)
    else:
        if out is None:
            raise PrunedgeError("no run folder", where="--out", remedy="name the folder to make: --out runs/NAME")
        asked = {key: value for key, value in pictures.items() if value is not None}
        if skip_unreadable:
            asked["skip_unreadable"] = True
        if target_latency is not None:
            knobs["device"] = device or "local"
        recipe = _from_run(start, model, asked, knobs) if start is not None else _from_model(model, data, {**asked, **knobs, **training})
        with _profiled(out if profile else None), progress("pruning", quiet=json) as advance:
            run = start_job(recipe, out, watch(advance, json))
    if json:
        print_json(run.summary())
    else:
        tell(pruned(run))
        if profile:
            print_profile(run.path)


def _profiled(run: Path | None) -> AbstractContextManager[Any]:
    from prunedge.runs.profile import profiled

    return nullcontext() if run is None else profiled(run)


def milliseconds(text: str) -> float:
    """`5ms`, `0.2s` or a number of milliseconds."""
    from prunedge.errors import PrunedgeError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", text.strip())
    if found is None or not (value := float(found[1])):
        raise PrunedgeError(f"not a time: {text}", where="--target-latency", remedy="write it as 5ms")
    return value * (1000 if found[2] == "s" else 1)


def watch(advance: Advance, quiet: bool) -> Watch:
    """Tell the console of batches and of each step that is kept."""
    from prunedge.cli.console import say
    from prunedge.runs.session import Watch

    def on_step(step: Step) -> None:
        if not quiet:
            verdict = "" if step.accepted else f"  taken back: {step.reason}"
            say(
                f"step {step.index}: {step.fraction_removed:.1%} of the channels removed, {step.macs / 1e6:,.1f} million MACs, "
                + (f"{step.latency_ms:.3g} ms on the device, " if step.latency_ms else "")
                + f"validation {step.metric_before:.1%} -> {step.metric_after:.1%} after fine-tuning{verdict}"
            )

    return Watch(progress=advance, on_step=on_step, told=None if quiet else say)


def _from_run(start: Path, model: str | None, given: dict[str, Any], knobs: dict[str, Any]) -> Recipe:
    from prunedge.config import TRAINING_KEYS, Recipe
    from prunedge.errors import PrunedgeError
    from prunedge.runs.run import open_run

    if model is not None:
        raise PrunedgeError("--model and --from exclude each other", remedy="--from takes the run's own network")
    source = open_run(start)
    source.best()
    kept = {key: source.recipe[key] for key in TRAINING_KEYS}
    schedule = source.recipe["train_epochs"] or source.recipe["schedule_epochs"]
    ours = {"start": str(start.resolve()), "train_epochs": 0, "schedule_epochs": schedule}
    return Recipe.make("prunedge prune", **{**kept, **given, **knobs, **ours})


def _from_model(model: str | None, data: str | None, values: dict[str, Any]) -> Recipe:
    from prunedge.config import Recipe
    from prunedge.errors import PrunedgeError

    if model is None or data is None:
        missing = "pictures" if data is None else "network"
        raise PrunedgeError(
            f"no {missing} to prune with", remedy="prunedge prune DATA --model resnet18 --out RUN, or --from RUN, or --resume RUN"
        )
    return Recipe.make("prunedge prune", model=model, **values)
