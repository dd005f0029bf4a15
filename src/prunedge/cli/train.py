"""`prunedge train`: transfer learning alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prunedge.cli.new_run import config_to_train, new_folder
from prunedge.cli.options import OTHER, Flag, TrustCode
from prunedge.cli.settings import BASIC, with_settings
from prunedge.config import START_KEYS
from prunedge.edge.tasks import usual_model


@with_settings(
    set(START_KEYS) - {"data"},
    names={"train_epochs": "--epochs"},
    defaults={"model": usual_model({})},
)
def train(
    data: Annotated[str | None, Parameter(group=BASIC)] = None,
    *,
    out: Annotated[Path | None, Parameter(group=BASIC)] = None,
    resume: Annotated[Path | None, Parameter(group=BASIC)] = None,
    trust_code: Annotated[TrustCode, Parameter(group=OTHER)] = False,
    json: Annotated[Flag, Parameter(group=OTHER)] = False,
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
            config = config_to_train({"model": usual_model(values), **values})
            run = execute.train(config, new_folder(out), callbacks)

    if json:
        print_json(run.summary())
    else:
        tell(trained(run))
