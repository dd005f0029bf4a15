"""A training of the user's own by its name: `package.module:object`, imported from the working
directory. Whether it may be imported was asked before (`prunedge.utils.trust`).
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunedge.errors import ConfigError, PrunedgeError, RunError, TrainError
from prunedge.models import working_directory_importable
from prunedge.pruning.function_trainer import FunctionTrainer
from prunedge.pruning.functions import Functions
from prunedge.pruning.prune_with import GIVEN, OwnTraining
from prunedge.utils import trust
from prunedge.utils.machine import pass_on
from prunedge.utils.wording import words_of

if TYPE_CHECKING:
    from prunedge.runs.run import Run

ATTRIBUTES = "model, example, fit, evaluate, and as far as there are loss, batches, metric"


def training_named(name: str) -> OwnTraining:
    """The training that an object of the user's own describes by its attributes; a function or a
    class of that name is called for it.

    The attributes are the arguments of `pe.prune`: `model` and `example` (or functions that give
    them), `fit`, `evaluate`, `loss`, `batches`, `metric`, `higher_is_better`. PrunedgeError where
    it can't be imported, or has neither model nor example. What its functions raise is a TrainError
    that says where.
    """
    described = _object_named(name)
    model = _part(described, "model", name)
    if not isinstance(model, nn.Module):
        raise _wrong(name, "model", f"is {type(model).__name__}", "let it be a torch.nn.Module")
    example = _part(described, "example", name)
    higher = getattr(described, "higher_is_better", True)
    if not isinstance(higher, bool):
        raise _wrong(name, "higher_is_better", f"is {higher!r}", "let it be True or False")
    metric = getattr(described, "metric", None)
    if metric is not None and not isinstance(metric, str):
        kind = type(metric).__name__
        raise _wrong(name, "metric", f"is {kind}", "let it be a name that evaluate gives")
    functions = Functions(
        fit=_function(described, "fit", name),
        evaluate=_function(described, "evaluate", name),
        loss=_function(described, "loss", name),
        batches=_batches(getattr(described, "batches", None), name),
    )
    return OwnTraining(model, FunctionTrainer(example, functions), metric, higher, name)


def training_of(run: Run, name: str | None = None) -> OwnTraining:
    """The training of a run: the one that made it, or the one that the user names now where that
    came from Python and has no name.

    RunError where it has none, and none is given, or has another; PrunedgeError where its name may
    not be imported from here.
    """
    kept = run.config.trainer.name
    if name is not None:
        if kept not in (GIVEN, name):
            raise fixed_trainer(run)
        trust.give(name)
        return training_named(name)
    if kept is None or kept == GIVEN:
        raise RunError(
            "the model and the functions of this run came from Python, and have no name",
            where=run.path,
            remedy=(
                f"{run.how_to_go_on()} goes on with it; or name an object that has them: "
                "--trainer package.module:object"
            ),
        )
    trust.check(kept, run.path)
    return training_named(kept)


def fixed_trainer(run: Run) -> RunError:
    """The error for another training than the one that made the run."""
    return RunError(
        "--trainer can't change in a run that has begun",
        where=run.path,
        remedy=f"go on with {run.how_to_go_on()}, or start a new run in another folder",
    )


def model_named(run: Run) -> nn.Module:
    """The unpruned model of a run that a named training made; RunError where it has no name."""
    if run.config.trainer.name == GIVEN:
        raise RunError(
            "the model of this run came from Python, and no name tells how to make it again",
            where=run.path,
            remedy=f"pe.load({str(run.path)!r}, model=...) takes the unpruned one",
        )
    return training_of(run).model


def _object_named(name: str) -> Any:
    """What stands under a name, called where that gives it."""
    module_name, colon, path = name.partition(":")
    remedy = "write it as package.module:object, run where it can be imported"
    if not (module_name and colon and path):
        raise ConfigError("no name of an object", where=f"--trainer {name}", remedy=remedy)
    try:
        with working_directory_importable():
            found: Any = import_module(module_name)
            for part in path.split("."):
                found = getattr(found, part)
    # Whatever is in the user's module, or names that lead up or nowhere.
    except (Exception, SystemExit) as error:
        pass_on(error)
        at = _line_of(error)
        raise PrunedgeError(
            f"can't import {name}: {_said(error)}",
            where=at or "--trainer",
            remedy="mend it there" if at else remedy,
        ) from error
    is_maker = isinstance(found, type) or (callable(found) and not hasattr(found, "fit"))
    if not is_maker:
        return found
    with _told(name):
        return found()


def _part(described: Any, attribute: str, name: str) -> Any:
    """The model or the example: as it is, or what a function gives."""
    with _told(f"{name}, {attribute}"):
        part = getattr(described, attribute, None)
    if part is None:
        kind = type(described).__name__
        raise PrunedgeError(
            f"{name} ({kind}) has no {attribute}",
            where="--trainer",
            remedy=f"it needs {ATTRIBUTES} and higher_is_better",
        )
    if callable(part) and not isinstance(part, nn.Module):
        with _told(f"{name}, {attribute}"):
            return part()
    return part


def _function(described: Any, attribute: str, name: str) -> Callable[..., Any] | None:
    """One of its functions, whose errors say where they were raised; None where it has none."""
    function = getattr(described, attribute, None)
    if function is None:
        return None
    if not callable(function):
        kind = type(function).__name__
        raise _wrong(name, attribute, f"is {kind}", "let it be a function")

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with _told(attribute), working_directory_importable():
            return function(*args, **kwargs)

    return called


def _batches(batches: Any, name: str) -> Callable[[], Iterable[Any]] | Iterable[Any] | None:
    """Its batches, whose errors say where they were raised as well."""
    if batches is None or isinstance(batches, Iterator):
        return batches  # which is refused where it can be gone through only once
    if not callable(batches) and not isinstance(batches, Iterable):
        kind = type(batches).__name__
        raise _wrong(name, "batches", f"is {kind}", "let it be a function, a list or a DataLoader")

    def given() -> Any:
        with _told("batches"):
            found = batches() if callable(batches) else batches
        return _iterated(found) if isinstance(found, Iterable) else found

    return given


def _iterated(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; what goes wrong while they are made says where."""
    with _told("batches"):
        iterator = iter(batches)
    nothing = object()
    while True:
        with _told("batches"):
            batch = next(iterator, nothing)
        if batch is nothing:
            return
        yield batch


def _wrong(name: str, attribute: str, what: str, remedy: str) -> PrunedgeError:
    return ConfigError(f"{attribute} of {name} {what}", where="--trainer", remedy=remedy)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the user's own code raises inside the block as a TrainError, which says where."""
    try:
        yield
    except PrunedgeError:
        raise
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        pass_on(error)
        raise TrainError(
            f"{name} raised {type(error).__name__}: {words_of(error)}",
            where=_place_of(error) or name,
            remedy="mend it there",
        ) from error


def _said(error: BaseException) -> str:
    """What an error says; of a line that is no Python without its place, which is told beside."""
    return error.msg if isinstance(error, SyntaxError) else words_of(error)


def _line_of(error: BaseException) -> str | None:
    """The user's own line that can't be imported; None where the error tells nothing of it, as of a
    module that there is not.
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{Path(error.filename).name}, line {error.lineno}"
    return _place_of(error)


def _place_of(error: BaseException) -> str | None:
    """The last line of the user's own that led to an error, which called into a library perhaps."""
    place = None
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        is_own = file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts
        if is_own and file != Path(__file__):
            place = f"{file.relative_to(Path.cwd())}, line {frame.lineno}"
    return place
