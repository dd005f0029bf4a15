"""A new run folder, and the lock that whoever writes into a run holds."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from prunedge.config import RunConfig
from prunedge.edge.bench.hardware import processor
from prunedge.errors import RunError
from prunedge.runs.run import Run, open_run
from prunedge.utils.distributed import rank_zero_only
from prunedge.utils.files import clear_below, held, is_ours, make_folder, refuse_url, write_text
from prunedge.utils.machine import unwritable
from prunedge.utils.packages import versions_of
from prunedge.utils.signs import CONFIG, signed
from prunedge.utils.wording import counted

ENVIRONMENT = "environment.json"
PACKAGES = ("torch", "torchvision", "timm", "onnxruntime", "numpy")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends; what killed processes left in it is removed.
    InUse when another process holds it.
    """
    with held(path, "run"):
        clear_below(path)
        yield


@rank_zero_only
def create(path: Path | str, config: RunConfig, verb: str = "prune") -> Run:
    """Start a run folder of `train` or `prune` (`verb`); RunError when the folder already holds
    something.
    """
    folder = Path(path)
    refuse_url(folder)
    refuse_full(folder)
    run = Run(folder, config, secrets.token_hex(8))
    try:
        make_folder(folder)
        with held(folder, "run"):
            refuse_full(folder)  # another process may have been faster
            # The config comes last: a folder without one is no run yet, and can be begun again.
            run.write(ENVIRONMENT, {"verb": verb, **_environment()})
            write_config(run, config)
    except OSError as error:
        raise unwritable(error, folder) from None
    return run


def write_config(run: Run, config: RunConfig) -> None:
    """Write what a run is asked to do, with the run's sign and a checksum in the last line."""
    write_text(run.path / CONFIG, signed(config.to_toml(), run.sign))


def refuse_full(folder: Path) -> None:
    """RunError where a folder holds something, but for what a killed process that began a run there
    has left.
    """
    if not folder.exists():
        return
    has_config = (folder / CONFIG).exists()
    begun = set() if has_config else {ENVIRONMENT}
    if folder.is_dir() and all(
        is_ours(file.name) or file.name in begun for file in folder.iterdir()
    ):
        return
    remedy = "choose another --out"
    if has_config:
        remedy = f"go on with {open_run(folder).how_to_go_on()}, or {remedy}"
    raise RunError("the folder is not empty", where=folder, remedy=remedy)


def _environment() -> dict[str, Any]:
    versions = {"python": platform.python_version(), **versions_of(PACKAGES)}
    machine = (
        f"{processor()}, {counted(torch.get_num_threads(), 'thread')}, {platform.system()} "
        f"{platform.machine()}"
    )
    return {"versions": versions, "device": machine}
