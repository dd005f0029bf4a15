"""One trial of a study, in a process of its own: `python -m prunedge.study FOLDER NAME`. The local
engine starts these.
"""

from __future__ import annotations

import logging
import os
import sys

from prunedge.errors import PrunedgeError
from prunedge.runs.callbacks import Callbacks
from prunedge.study.folder import open_study
from prunedge.study.store import Busy
from prunedge.utils.sanitize import Lines, shown

# Exit codes.
FAILED = 2
BUSY = 75


def main() -> int:
    """Do the work that the arguments name; 0 when it is done, 2 when it can't be, 75 when another
    process has it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    folder, name = sys.argv[1:]
    study = open_study(folder)
    parent = os.getppid()

    def look(done: int, total: int, what: str) -> None:
        if os.getppid() != parent:
            os._exit(1)  # the study was killed: what it began must not go on unseen

    try:
        study.perform(study.find(name), Callbacks(progress=look))
    except Busy:
        return BUSY
    except PrunedgeError as error:
        sys.stderr.write(f"{shown(error)}\n")
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
