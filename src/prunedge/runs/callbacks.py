"""Who hears how a run goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunedge.pruning.steps import Step


@dataclass(frozen=True)
class Callbacks:
    """`progress` hears of batches done, of all, with what is going on; `on_step` of each step when
    it is kept; `on_line` of what is to be said about the run.
    """

    progress: Callable[[int, int, str], None] | None = None
    on_step: Callable[[Step], None] | None = None
    on_line: Callable[[str], None] | None = None

    def say(self, line: str) -> None:
        """A line about the run."""
        if self.on_line is not None:
            self.on_line(line)
