"""Going on with a run from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunedge.runs.run import Run


def changes_to(
    resume: Path, out: Path | None, values: Mapping[str, Any], verb: str
) -> dict[str, Any]:
    """What the command line asks for that the run was not asked for yet; an error where that can't
    change any more.
    """
    from prunedge.runs.resumption import changes_of
    from prunedge.utils import trust

    for key in ("model", "criterion"):
        if key in values:
            trust.give(values[key])
    for text in values.get("small", []):
        trust.give(text.partition("=")[0])
    return changes_of(_opened(resume, out, verb), values, verb)


def _opened(resume: Path, out: Path | None, verb: str) -> Run:
    """The run to go on with; RunError where another verb made it, or `--out` names another
    folder.
    """
    from prunedge.errors import RunError
    from prunedge.runs.run import open_run
    from prunedge.utils.advice import command
    from prunedge.utils.files import real_path

    run = open_run(resume)
    if out is not None and real_path(out) != real_path(resume):
        remedy = "a run goes on in its own folder: leave --out away"
        raise RunError("--out and --resume name two folders", where=out, remedy=remedy)
    made_by = run.verb() or verb
    if made_by == verb:
        return run
    remedy = run.how_to_go_on()
    if made_by == "train" and run.steps():
        pruning = command("prune", "--from", resume, "--out", f"{resume}-pruned")
        remedy = f"it has ended: {pruning}"
    raise RunError(f"`prunedge {made_by}` made this run", where=resume, remedy=remedy)
