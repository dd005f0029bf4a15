"""While a process works on a run: nobody else writes into it, and what it fails of is noted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prunedge.errors import MachineError, PrunedgeError
from prunedge.runs.new import writing
from prunedge.runs.run import FAILED, Run, open_run
from prunedge.utils import distributed


@contextmanager
def held_run(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends: the first process does, for all of them.
    RunError when it is none, or in use.
    """
    open_run(path)
    with ExitStack() as stack:
        distributed.rank_zero_only(lambda: stack.enter_context(writing(path)))()
        yield


@contextmanager
def failure_noted(run: Run) -> Iterator[None]:
    """Note in the run the error that the work ends in, for whoever looks at it later; not the
    machine's trouble, which says nothing of the run.
    """
    distributed.rank_zero_only((run.path / FAILED).unlink)(missing_ok=True)
    try:
        yield
    except MachineError:
        raise
    except PrunedgeError as error:
        if distributed.get_rank() == 0:
            with suppress(OSError):  # the error itself is what matters
                run.write(FAILED, {"error": str(error)})
        raise
