"""`prunedge train`: transfer learning alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prunedge.cli.options import Flag, TrustCode
from prunedge.cli.settings import BASIC, with_settings
from prunedge.config import START_KEYS

if TYPE_CHECKING:
    from prunedge.config import RunConfig

MODEL = "resnet18"


@with_settings(
    set(START_KEYS) - {"data"}, names={"train_epochs": "--epochs"}, defaults={"model": MODEL}
)
def train(
    data: Annotated[str | None, Parameter(group=BASIC)] = None,
    *,
    out: Annotated[Path | None, Parameter(group=BASIC)] = None,
    resume: Annotated[Path | None, Parameter(group=BASIC)] = None,
    trust_code: TrustCode = False,
    json: Flag = False,
    **values: Any,
) -> None:
    """Teach a model the classes of your images, and keep its best epoch in a run folder.

    `prunedge prune --from RUN` goes on from there. A training that was cut off goes on with
    `prunedge train --resume RUN`.

    Example: `prunedge train cracks/ --model vgg16 --weights imagenet --epochs 10 --out runs/vgg16`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar,
        'train-{000..012}.tar', a folder of them, or a URL.
    out
        The run folder to make; it must not hold anything yet.
    resume
        A run folder of `train` to go on with, from its last epoch; nothing else is needed. DATA may
        be given where the images were moved; whatever else differs from what the run began with is
        refused.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.cli.resume import changes_to
    from prunedge.data.paths import absolute
    from prunedge.report.text import trained
    from prunedge.runs import execute
    from prunedge.runs.callbacks import Callbacks
    from prunedge.utils import trust

    trust.trust_everything(trust_code)
    if data is not None:
        values["data"] = absolute(data)

    with progress("training", quiet=json) as advance:
        callbacks = Callbacks(progress=advance, on_line=None if json else say)
        if resume is not None:
            run = execute.resume_training(
                resume, callbacks, changes_to(resume, out, values, "train")
            )
        else:
            run = execute.train(*_config(out, values), callbacks)

    if json:
        print_json(run.summary())
    else:
        tell(trained(run))


def _config(out: Path | None, values: dict[str, Any]) -> tuple[RunConfig, Path]:
    """What a new run is asked to do, and its folder."""
    from prunedge.config import RunConfig
    from prunedge.errors import PrunedgeError
    from prunedge.utils.files import refuse_url

    if "data" not in values:
        remedy = "prunedge train DATA --model resnet18 --out RUN, or --resume RUN"
        raise PrunedgeError("no images to learn from", remedy=remedy)
    if out is None:
        remedy = "name the folder to make: --out runs/NAME"
        raise PrunedgeError("no run folder", where="--out", remedy=remedy)
    refuse_url(out)
    return RunConfig.make("prunedge train", **{"model": MODEL, **values}), out
