"""What a new run is asked to do by the command line, and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunedge.errors import PrunedgeError

if TYPE_CHECKING:
    from prunedge.config import RunConfig


def new_folder(out: Path | None) -> Path:
    """The folder to make; PrunedgeError where none is named."""
    from prunedge.utils.files import refuse_url

    if out is None:
        remedy = "name the folder to make: --out runs/NAME"
        raise PrunedgeError("no run folder", where="--out", remedy=remedy)
    refuse_url(out)
    return out


def config_to_train(values: Mapping[str, Any]) -> RunConfig:
    """What `train` is asked to do."""
    from prunedge.config import RunConfig

    if "data" not in values:
        remedy = "prunedge train DATA --model resnet18 --out RUN, or --resume RUN"
        raise PrunedgeError("no images to learn from", remedy=remedy)
    return RunConfig.make("prunedge train", **values)


def config_to_prune(start: Path | None, values: Mapping[str, Any]) -> RunConfig:
    """What `prune` is asked to do, with a model of its own or from that of another run."""
    from prunedge.config import RunConfig
    from prunedge.runs.onward import config_from_run

    if start is not None:
        return config_from_run(start, values)
    for key, name in (("data", "images"), ("model", "model")):
        if key not in values:
            remedy = (
                "prunedge prune DATA --model resnet18 --out RUN, or --from RUN, or --resume RUN"
            )
            raise PrunedgeError(f"no {name} to prune with", remedy=remedy)
    return RunConfig.make("prunedge prune", **values)
