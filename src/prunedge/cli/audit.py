"""`prunedge audit`: which criterion suits this model and these images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from prunedge.edge.image.size import Resize

if TYPE_CHECKING:
    from prunedge.importance.audit import Audit


def audit(
    run: Path | None = None,
    data: Path | None = None,
    *,
    model: str | None = None,
    weights: str = "imagenet",
    out: Path | None = None,
    criterion: list[str] | None = None,
    channels: int | Literal["all"] = 64,
    images: int = 512,
    step: int | None = None,
    size: str | None = None,
    resize: Resize | None = None,
    seed: int | None = None,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | None = None,
    trust_code: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare the criteria with the truth: what the validation loss does when each channel is
    zeroed, one at a time.

    The table gives Spearman's rank correlation of each criterion with the absolute change, by layer
    and over all layers, raw and after each normalisation, with 95 % intervals. An audit that is cut
    off goes on when the same command is given again.

    Example: `prunedge audit runs/cracks`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`, whose best model is audited. With --model the images
        come here.
    data
        Other images than the run's own: class folders, a CSV manifest, or shards.
    model
        Instead of a run: any torchvision or timm name, or package.module:function of your own.
    weights
        Of --model: imagenet, none, a file, a run or a bundle. Its classes must be those of the
        images.
    out
        The folder for the results (RUN/audit).
    criterion
        One to compare; may be repeated (all).
    channels
        At most this many channels of each group are zeroed, drawn at random; or all.
    images
        At most this many validation images for the oracle, and as many training images for the
        criteria.
    step
        Audit the model of this step of the run, instead of its best.
    size
        Pixels of the images: 224, or 128x384 (height x width); 224, or the run's.
    resize
        How an image of another shape gets that size: stretch, pad or crop; stretch, or the run's.
    seed
        Decides the split and what is drawn (0, or the run's).
    group_by
        `parent`, or a regular expression on each path: images of one group stay on one side of
        the split.
    skip_unreadable
        Go on without images that can't be read.
    range
        LOW:HIGH, the stored values that become black and white, for greys of more than eight bits;
        the run's, or what the training images need, unless given.
    trust_code
        Run code that the run names (package.module:function) from the working directory, as the one
        who made it wanted. What you named there yourself needs no such word.
    json
        Print the result as JSON.
    """
    import torch

    from prunedge import data as sets
    from prunedge.cli.console import print_json, progress
    from prunedge.config import LARGEST_SEED
    from prunedge.errors import PrunedgeError
    from prunedge.importance.audit import Asked
    from prunedge.importance.audit import audit as start
    from prunedge.models import build
    from prunedge.runs.images import refuse_gone
    from prunedge.runs.run import open_run
    from prunedge.utils import trust

    if model is not None and (run is None) == (data is None):
        raise PrunedgeError(
            "no images, or two sets of them",
            remedy="prunedge audit DATA --model NAME --weights FILE --out DIR",
        )
    if model is None and run is None:
        raise PrunedgeError(
            "no model to audit",
            remedy=(
                "prunedge audit RUN, or prunedge audit DATA --model NAME --weights FILE --out DIR"
            ),
        )
    if model is None and weights != "imagenet":
        raise PrunedgeError(
            "a run has weights of its own",
            where="--weights",
            remedy="leave it out, or give --model",
        )
    asked = Asked(
        tuple(dict.fromkeys(criterion or ())) if criterion != ["all"] else (),
        None if channels == "all" else channels,
        images,
    )
    if images < 1 or (asked.channels is not None and asked.channels < 2):
        raise PrunedgeError(
            f"{images} images and {channels} channels are too few",
            remedy="give --images 1 and --channels 2 or more",
        )
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise PrunedgeError(f"a seed of {seed}", where="--seed", remedy=f"give 0 to {LARGEST_SEED}")
    trust.trust_everything(trust_code)
    with progress("auditing", quiet=json) as advance:
        if model is None:
            assert run is not None
            opened = open_run(run)
            config, name, target = opened.config, opened.config.model.name, out or run / "audit"
            settings: dict[str, Any] = config.image_settings()
            source = data or Path(config.data.path)
            if data is None:
                refuse_gone(config, "audit", run, "DATA")
            audited_model = opened.load(step)
        else:
            if out is None:
                raise PrunedgeError(
                    "no folder for the results", where="--out", remedy="name one: --out audits/NAME"
                )
            name, target, source = model, out, run or data or Path()
            settings = {
                "size": 224,
                "resize": "stretch",
                "seed": 0,
                "group_by": None,
                "skip_unreadable": False,
                "range": None,
            }
            audited_model = None
        given = {
            "size": size,
            "resize": resize,
            "seed": seed,
            "group_by": group_by,
            "skip_unreadable": skip_unreadable or None,
            "range": range,
        }
        settings.update({key: value for key, value in given.items() if value is not None})
        loaded = sets.load(source, progress=advance, **settings)
        if audited_model is None:
            audited_model = build(name, loaded.classes, weights, seed=settings["seed"])
        asked = Asked(asked.criteria, asked.channels, asked.images, settings["seed"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        found = start(
            audited_model, loaded, target, asked, model_name=name, progress=advance, device=device
        )
    if json:
        print_json(found.to_json())
    else:
        _print(found, target)


def _print(found: Audit, target: Path) -> None:
    from rich.table import Table

    from prunedge.cli.console import Plain, out, tell

    truth = found.truth
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (
        "criterion",
        "channels",
        "per layer",
        "all, raw",
        "all, l2",
        "all, mean",
        "all, rank",
        "signed, l2",
    ):
        table.add_column(column, justify="left" if column == "criterion" else "right", no_wrap=True)
    signed = {one.criterion: one for one in found.signed}
    for one in sorted(found.absolute, key=lambda one: -_key(one.overall["l2"].rho)):
        table.add_row(
            one.criterion,
            str(one.channels),
            str(one.per_layer),
            _short(one.overall["none"].rho),
            str(one.overall["l2"]),
            *(_short(one.overall[how].rho) for how in ("mean", "rank")),
            _short(signed[one.criterion].overall["l2"].rho),
        )
    tell(
        "Spearman's rank correlation with the oracle, the absolute change of the validation loss "
        "when a channel is zeroed.\n"
        f"{found.model}, {truth.channels} channels, {truth.examples} images; 95 % intervals from "
        "resampled channels\n"
    )
    # A table of figures is of no use when it is broken to fit.
    Plain(width=max(out.width, 140)).print(table)
    tell()
    for name, why in found.unjudged.items():
        tell(f"{name}: {why}")
    tell(
        f"a channel cost {truth.fraction:.2f} of an evaluation of the whole model "
        f"({truth.seconds:.0f} s for {truth.channels} channels)"
    )
    tell(found.recommendation)
    tell(f"written: {target}/audit.json, audit.csv, channels.csv")


def _short(rho: float) -> str:
    return "-" if rho != rho else f"{rho:.2f}"


def _key(rho: float) -> float:
    return -2.0 if rho != rho else rho
