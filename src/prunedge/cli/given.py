"""Which options somebody gave, told apart from those that stand at their defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from prunedge.utils.advice import command

if TYPE_CHECKING:
    from pathlib import Path

    from prunedge.runs.run import Run

Verb = TypeVar("Verb", bound=Callable[..., None])

# Said of the command, not of the run.
ASIDE = ("resume", "out", "profile", "trust_code", "json")


def tells_given(verb: Verb) -> Verb:
    """Hand a verb, as its argument `given`, the names of the parameters that it was called with: the command line passes no others."""

    @wraps(verb)
    def told(*arguments: Any, **named: Any) -> None:
        names = signature(verb).bind(*arguments, **named).arguments
        verb(*arguments, **{**named, "given": frozenset(names) - {"given"}})

    return told  # type: ignore[return-value]


def opened_to_resume(resume: Path, out: Path | None, verb: str) -> Run:
    """The run to go on with; PrunedgeError where another verb made it, or `--out` names another folder."""
    from prunedge.errors import RunError
    from prunedge.runs.run import open_run

    run = open_run(resume)
    if out is not None and out.resolve() != resume.resolve():
        raise RunError("--out and --resume name two folders", where=out, remedy="a run goes on in its own folder: leave --out away")
    made_by = run.verb()
    if made_by == verb:
        return run
    remedy = run.how_to_go_on()
    if made_by == "train" and run.steps():
        remedy = f"it has ended: {command('prune', '--from', resume, '--out', f'{resume}-pruned')}"
    raise RunError(f"`prunedge {made_by}` made this run", where=resume, remedy=remedy)
