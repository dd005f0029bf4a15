"""`prunedge check`: what is there, and what speaks against training on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from prunedge.cli.options import Flag
from prunedge.edge.image.size import Resize
from prunedge.utils.advice import command


def check(
    data: str,
    *,
    size: str = "224",
    resize: Resize = "stretch",
    seed: int = 0,
    group_by: str | None = None,
    range: str | None = None,
    max_distance: int = 6,
    strict: Flag = False,
    json: Flag = False,
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
        'train-{000..012}.tar', a folder of them, or a URL.
    size
        Pixels of the images that the model will see: 224, or 128x384 (height x width).
    resize
        How an image of another shape gets that size: stretch, pad or crop.
    seed
        Decides the split.
    group_by
        `parent`, or a regular expression on each path: images of one group stay on one side of
        the split.
    range
        LOW:HIGH, the stored values that become black and white, for greys of more than eight bits;
        what the training images need, unless given.
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
        report = do_check(
            data,
            size=size,
            resize=resize,
            seed=seed,
            group_by=group_by,
            range=range,
            max_distance=max_distance,
            progress=advance,
        )
    if json:
        print_json(report.to_json())
    else:
        print_check(report)
        options = {
            "size": size,
            "resize": resize,
            "seed": seed,
            "group-by": group_by,
            "range": range,
        }
        when = ", when that is mended or meant" if report.problems else ""
        tell(f"\nnext{when}: {_pruning(data, options)}")
    if strict and report.problems:
        raise SystemExit(1)


def _pruning(data: str, options: Mapping[str, object]) -> str:
    """The command that goes on with these images, seen as the check saw them."""
    usual = {"size": "224", "resize": "stretch", "seed": 0}
    words = []
    for name, value in options.items():
        if value != usual.get(name):
            words.append(f"--{name}={value}")
    folder = Path(data).stem
    run = folder if re.fullmatch(r"\w[\w.-]*", folder) else "NAME"
    return command("prune", data, "--model", "resnet18", *words, "--out", f"runs/{run}")
