"""`prunedge train`: transfer learning alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prunedge.cli.given import ASIDE, opened_to_resume, tells_given


@tells_given
def train(
    data: str | None = None,
    *,
    resume: Path | None = None,
    model: str = "resnet18",
    weights: str = "imagenet",
    epochs: int = 10,
    out: Path | None = None,
    size: int = 224,
    seed: int = 0,
    batch_size: int = 32,
    augment: Literal["none", "flips", "full"] = "full",
    lr: float | None = None,
    metric: Literal["accuracy", "f1", "auroc"] = "accuracy",
    regularise: Literal["none", "bn-l1", "group-lasso", "growing"] = "none",
    strength: float | None = None,
    folds: int | None = None,
    fold: int = 0,
    group_by: str | None = None,
    skip_unreadable: bool = False,
    range: str | None = None,
    precision: Literal["auto", "32", "32-channels-last", "bf16"] = "auto",
    trust_code: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    given: Annotated[frozenset[str], Parameter(parse=False)] = frozenset(),
) -> None:
    """Teach a network the classes of your pictures, and keep its best epoch in a run folder.

    `prunedge prune --from RUN` goes on from there. A training that was cut off goes on with `prunedge train --resume RUN`.

    Example: `prunedge train cracks/ --model vgg16 --weights imagenet --epochs 10 --out runs/vgg16`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar, 'train-{000..012}.tar', a folder of them, or a URL.
    resume
        A run folder of `train` to go on with, from its last epoch; nothing else is needed. DATA may be given where the pictures were moved;
        whatever else differs from what the run began with is refused.
    model
        Any torchvision or timm name, or package.module:function of your own.
    weights
        imagenet (downloaded), none (random), or a file (.pth, .safetensors), a run or a bundle.
    epochs
        Times that every training picture is seen; the epoch that is best on validation data is kept.
    out
        The run folder to make; it must not hold anything yet.
    size
        Pictures are stretched to size x size pixels.
    seed
        Decides the split, the random weights and the order of the pictures.
    batch_size
        Pictures in a training step.
    augment
        How training pictures are changed in every epoch: full (quarter turns, flips, a little brightness and contrast), flips (left for
        right, top for bottom: where a picture turned by a quarter would never be seen, as of courses of bricks), or none.
    lr
        The peak learning rate, instead of the one that a short test on training pictures finds for pretrained weights, or of the usual
        one from random weights.
    metric
        What makes an epoch the best.
    regularise
        Draw channels to zero, so that they can be pruned later: L1 on the scales of batch norms, group lasso over all weights of a
        channel, or a penalty on all channels that grows.
    strength
        Of --regularise, instead of its usual one.
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
    trust_code
        Run code that a run names (package.module:function) from the working directory, as the one who made the run wanted. What you
        named there yourself needs no such word.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.config import Recipe
    from prunedge.data.paths import absolute
    from prunedge.errors import PrunedgeError
    from prunedge.report.text import trained
    from prunedge.runs.resumption import changes_of
    from prunedge.runs.session import Watch, resume_training
    from prunedge.runs.session import train as do_train
    from prunedge.utils import trust

    values = {
        "data": None if data is None else absolute(data),
        "model": model,
        "weights": weights,
        "epochs": epochs,
        "size": size,
        "seed": seed,
        "batch_size": batch_size,
        "augment": augment,
        "lr": lr,
        "metric": metric,
        "regularise": regularise,
        "strength": strength,
        "folds": folds,
        "fold": fold,
        "group_by": group_by,
        "skip_unreadable": skip_unreadable,
        "range": range,
        "precision": precision,
    }
    trust.trust_everything(trust_code)
    if resume is not None:
        if model is not None:
            trust.give(model)
        begun = opened_to_resume(resume, out, "train")
        asked = {"train_epochs" if key == "epochs" else key: values[key] for key in given if key not in ASIDE}
        changes = changes_of(begun, asked, "train")
        with progress("training", quiet=json) as advance:
            run = resume_training(resume, Watch(progress=advance, told=None if json else say), changes)
    else:
        if data is None:
            raise PrunedgeError("no pictures to learn from", remedy="prunedge train DATA --model resnet18 --out RUN, or --resume RUN")
        if out is None:
            raise PrunedgeError("no run folder", where="--out", remedy="name the folder to make: --out runs/NAME")
        recipe = Recipe.make("prunedge train", train_epochs=values.pop("epochs"), **values)
        with progress("training", quiet=json) as advance:
            run = do_train(recipe, out, Watch(progress=advance, told=None if json else say))
    if json:
        print_json(run.summary())
    else:
        tell(trained(run))
