"""`prunedge check`: what is there, and what speaks against training on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunedge.cli.options import Flag
from prunedge.cli.settings import with_settings
from prunedge.config import IMAGE_KEYS
from prunedge.edge.tasks import usual_model
from prunedge.utils.advice import command, option


@with_settings(set(IMAGE_KEYS) - {"folds", "fold", "skip_unreadable"})
def check(
    data: str,
    *,
    max_distance: int = 6,
    strict: Flag = False,
    json: Flag = False,
    **values: Any,
) -> None:
    """Look at images before training on them: classes, counts, sizes, unreadable files,
    imbalance, leaks.

    It splits them just as `prunedge prune` will, and leaves the decoded images in the cache for
    it.

    Example: `prunedge check cracks/ --group-by parent`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar,
        'train-{000..012}.tar', a folder of them, or a URL. Several labels of an image (--task
        multilabel) have a semicolon between them, or a column of 0 and 1 each; numbers (--task
        regression) a column value, or a column each.
    max_distance
        Bits in which the perceptual hashes (of 64) of two images that look alike may differ.
    strict
        Exit with 1 when there is a problem.
    json
        Print the whole report as JSON.
    """
    from prunedge.cli.check_tables import print_check
    from prunedge.cli.console import print_json, progress, tell
    from prunedge.data import check as do_check

    with progress("checking", quiet=json) as advance:
        report = do_check(data, max_distance=max_distance, progress=advance, **values)
    if json:
        print_json(report.to_json())
    else:
        print_check(report)
        when = ", when that is mended or meant" if report.problems else ""
        tell(f"\nnext{when}: {_pruning(data, values)}")
    if strict and report.problems:
        raise SystemExit(1)


def _pruning(data: str, values: Mapping[str, object]) -> str:
    """The command that goes on with these images, seen as the check saw them."""
    words = [f"{option(key)}={value}" for key, value in values.items()]
    folder = Path(data).stem
    run = folder if re.fullmatch(r"\w[\w.-]*", folder) else "NAME"
    model = usual_model(values)
    return command("prune", data, "--model", model, *words, "--out", f"runs/{run}")
