"""How far a study is. Pure but for the looks at its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunedge.study.grid import Start, Trial

if TYPE_CHECKING:
    from prunedge.study.store import StudyStore


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is: names of the trials (and of the starting models that they wait for) in
    each state, and how many of its `trials` are done.
    """

    done: tuple[str, ...]
    running: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]
    seconds_left: float | None
    trials_done: int
    trials: int


def progress_of(study: StudyStore, workers: int | None) -> StudyProgress:
    """How far a study is, and the seconds that `workers` at a time (None: as many as run now) would
    still need, from those done.
    """
    done: list[Start | Trial] = []
    running: list[Start | Trial] = []
    waiting: list[Start | Trial] = []
    failed: dict[str, str] = {}
    for work in study.work:
        if study.is_done(work):
            done.append(work)
        elif study.is_running(work):
            running.append(work)
        else:
            reason = study.failure(work)
            if reason:
                failed[work.name] = reason
            else:
                waiting.append(work)
    return StudyProgress(
        done=_names(done),
        running=_names(running),
        failed=failed,
        left=_names(waiting),
        seconds_left=_seconds_left(study, done, [*running, *waiting], workers or len(running)),
        trials_done=sum(isinstance(work, Trial) for work in done),
        trials=len(study.trials),
    )


def _names(work: Sequence[Start | Trial]) -> tuple[str, ...]:
    return tuple(unit.name for unit in work)


def _seconds_left(
    study: StudyStore,
    done: Sequence[Start | Trial],
    waiting: Sequence[Start | Trial],
    workers: int,
) -> float | None:
    """What is left, as long as those of its kind took on average; None where none of it is done."""
    if not waiting:
        return 0.0
    total = 0.0
    for kind in (Start, Trial):
        count = sum(isinstance(work, kind) for work in waiting)
        took = [study.seconds(work) for work in done if isinstance(work, kind)]
        known = [seconds for seconds in took if seconds is not None]
        if count and not known:
            return None
        if known:
            total += count * (sum(known) / len(known))
    return total / max(1, workers)
