"""history.jsonl: a line for each step, sealed with the SHA-256 of each file of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunedge.errors import RunError
from prunedge.pruning.steps import Step
from prunedge.runs.step_record import require_step
from prunedge.utils import checksums
from prunedge.utils.files import read_bytes, write_text
from prunedge.utils.formats import FORMAT, KEY, refuse_newer, refuse_other
from prunedge.utils.records import require

if TYPE_CHECKING:
    from prunedge.runs.run import Run

NAME = "history.jsonl"
REMEDY = "bring it back from a copy, or begin the run anew"
# Between its checkpoint and its line in the history a step 0 can be alone; these come later.
LATER = ("checkpoints/step-001", "test.json", "stop.json")


@dataclass(frozen=True)
class HistoryLine:
    """A step, and the SHA-256 of each file of its checkpoint by name; none where it was taken
    back.
    """

    step: Step
    files: Mapping[str, str]


def read_history(run: Run) -> list[HistoryLine]:
    """The lines of a run's history; empty before step 0. RunError where it is damaged or gone."""
    file = run.path / NAME
    if not file.exists():
        if any((run.path / name).exists() for name in LATER):
            raise RunError("the history is missing", where=file, remedy=REMEDY)
        return []
    lines: list[HistoryLine] = []
    for number, record in enumerate(_records(run, file)):
        try:
            lines.append(_line(run, record, number, lines))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise _damaged(file, number, error) from None
    return lines


def _records(run: Run, file: Path) -> Iterator[dict[str, Any]]:
    """What each line holds, after its checksum."""
    for number, line in enumerate(read_bytes(file, RunError).removesuffix(b"\n").split(b"\n")):
        try:
            sealed = dict(json.loads(line))
            refuse_newer(sealed.get(KEY), "history", file)
            record = checksums.opened(sealed, run.about(file.name))
            refuse_other(record.pop(KEY, None), "history", file)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(file, number, error) from None
        yield record


def _line(run: Run, record: dict[str, Any], number: int, before: list[HistoryLine]) -> HistoryLine:
    files = record.pop("files", {})
    require(dict[str, str], files)
    require(Step, record)
    counted = _number(record, before)
    # Older histories don't have it.
    step = Step(**{"number": counted, **record})
    if step.number != counted:
        raise checksums.Broken(f"it is step {counted}, and says that it is step {step.number}")
    if step.index != number:
        raise checksums.Broken(f"it is that of step {step.index}")
    require_step(step, run.config, before[0].step if before else step)
    return HistoryLine(step, files)


def _number(record: Mapping[str, Any], before: list[HistoryLine]) -> int:
    """The number that users see of a step after those `before` it."""
    if record.get("is_polish"):
        return before[record["start"]].step.number
    return sum(not line.step.is_polish for line in before)


def _damaged(file: Path, number: int, error: Exception) -> RunError:
    what = f"the history is damaged in line {number + 1}: {error}"
    return RunError(what, where=file, remedy=REMEDY)


def write_history(run: Run, lines: list[HistoryLine]) -> None:
    """Write all lines anew, atomically."""
    texts = []
    for line in lines:
        record = {KEY: FORMAT, **line.step.to_json()}
        if line.files:
            record["files"] = dict(line.files)
        texts.append(json.dumps(checksums.sealed(record, run.about(NAME))))
    write_text(run.path / NAME, "\n".join(texts) + "\n")
