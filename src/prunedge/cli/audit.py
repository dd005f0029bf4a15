"""`prunedge audit`: which criterion suits this model and these images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from prunedge.cli.options import Flag, TrustCode
from prunedge.cli.settings import with_settings
from prunedge.config import IMAGE_KEYS


@with_settings(set(IMAGE_KEYS) - {"folds", "fold"})
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
    trust_code: TrustCode = False,
    json: Flag = False,
    **values: Any,
) -> None:
    """Compare the criteria with the truth: what the validation loss does when each channel is
    zeroed, one at a time.

    The table gives Spearman's rank correlation of each criterion with the absolute change, by layer
    and over all layers, raw and after each normalisation, with 95 % intervals. An audit that is cut
    off goes on when the same command is given again. What is not said of the images is as in the
    run.

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
    json
        Print the result as JSON.
    """
    import torch

    from prunedge.cli.audit_table import print_audit
    from prunedge.cli.console import print_json, progress
    from prunedge.importance.audit import AuditRequest
    from prunedge.importance.audit import audit as start
    from prunedge.runs.auditing import subject_named, subject_of_run
    from prunedge.runs.run import open_run
    from prunedge.utils import trust

    _refuse_unclear(run, data, model, weights)
    criteria = () if criterion in (None, ["all"]) else tuple(dict.fromkeys(criterion or ()))
    asked = AuditRequest(criteria, None if channels == "all" else channels, images)
    target = _target(run, model, out)
    trust.trust_everything(trust_code)
    with progress("auditing", quiet=json) as advance:
        if model is not None:
            place = run or data
            assert place is not None
            subject = subject_named(model, weights, place, values, advance)
        else:
            assert run is not None
            subject = subject_of_run(open_run(run), data, step, values, advance)
        result = start(
            subject.model,
            subject.data,
            target,
            replace(asked, seed=subject.seed),
            model_name=subject.name,
            progress=advance,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    if json:
        print_json(result.to_json())
    else:
        print_audit(result, target)


def _refuse_unclear(run: Path | None, data: Path | None, model: str | None, weights: str) -> None:
    """PrunedgeError where it isn't said which model is audited on which images."""
    from prunedge.errors import PrunedgeError

    named = "prunedge audit DATA --model NAME --weights FILE --out DIR"
    if model is not None and (run is None) == (data is None):
        raise PrunedgeError("no images, or two sets of them", remedy=named)
    if model is None and run is None:
        raise PrunedgeError("no model to audit", remedy=f"prunedge audit RUN, or {named}")
    if model is None and weights != "imagenet":
        raise PrunedgeError(
            "a run has weights of its own",
            where="--weights",
            remedy="leave it out, or give --model",
        )


def _target(run: Path | None, model: str | None, out: Path | None) -> Path:
    """The folder for the results."""
    from prunedge.errors import PrunedgeError

    if out is not None:
        return out
    if model is not None or run is None:
        raise PrunedgeError(
            "no folder for the results", where="--out", remedy="name one: --out audits/NAME"
        )
    return run / "audit"
