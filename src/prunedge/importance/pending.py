"""When a batch is counted: its sums are kept apart until the next batch begins.

Only then it is known whether its examples could be told apart.
"""

from __future__ import annotations

from typing import Protocol


class Settling(Protocol):
    """A collector that gathers batch by batch: `_batch` examples of the one that waits, `_here` of
    them in this process.
    """

    _batch: int
    _here: int
    _examples: int
    _failed: str

    @property
    def undecided(self) -> str:
        """Why the waiting batch's examples can't be told apart; empty when they can."""

    def drop_batch(self) -> None:
        """Forget the waiting batch."""

    def _settle(self) -> None:
        """Add the waiting batch's sums to those of all."""


def settle(collector: Settling) -> None:
    """Count the batch that waits, if one does, or note why it can't be counted."""
    if not collector._batch:
        return
    if collector.undecided:
        collector._failed = collector._failed or collector.undecided
    else:
        collector._settle()
        collector._examples += collector._here
    collector.drop_batch()
