"""`prunedge inspect`: look for damage in photographs, videos or a camera's images. Needs no
torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def inspect(
    bundle: Path,
    source: str,
    *,
    out: Path | None = None,
    damage: str | None = None,
    threshold: float = 0.5,
    patch: str | None = None,
    overlap: float = 0.5,
    batch: int = 16,
    mm_per_pixel: float | None = None,
    max_megapixels: float = 200.0,
    range: str | None = None,
    every: float | None = None,
    frames: int | None = None,
    threads: int | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Look for damage: overlays, maps and tables of each photograph, and a page that shows the
    worst first.

    The model is shown what training showed it: photographs whole, or overlapping patches of
    larger ones.

    A file that can't be read is told and skipped. The same command goes on
    where an earlier one was interrupted.

    Example: `prunedge inspect bundles/cracks photos/ --out inspected --mm-per-pixel 0.4`

    Parameters
    ----------
    bundle
        What `prunedge export` made.
    source
        A photograph, a folder of them, a video (needs `prunedge[video]`), or a camera: camera:0,
        /dev/video0 or rtsp://...
    out
        The folder to keep the results in; without it they are only printed.
    damage
        Classes that count as damage, with commas between them; without it those whose names don't
        say that all is well.
    threshold
        An area is damaged from this probability on.
    patch
        Width of a patch in the photograph's pixels (224), or its width and height (96x48): as much
        as a training image showed; or whole, to cut none. Without it, what the bundle tells.
    overlap
        Share of a patch that the next one sees again: damage up to that share of a patch lies whole
        in some patch.
    batch
        Patches at a time.
    mm_per_pixel
        Millimetres that a pixel shows: gives sizes in millimetres too.
    max_megapixels
        Larger images are refused before they are decoded.
    range
        LOW:HIGH, the stored values that become black and white in greys of more than eight bits;
        without it, what the bundle tells.
    every
        Seconds from one inspected frame of a video or camera to the next (1 unless given; 0: every
        frame).
    frames
        End a video or camera after so many inspected frames.
    threads
        Threads that the model may use; all cores, unless given.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.cli.inspect_tables import print_inspection
    from prunedge.edge import open_bundle
    from prunedge.edge.bench.hardware import device
    from prunedge.edge.image.read import parse_range
    from prunedge.edge.inspect import Settings
    from prunedge.edge.inspect.results import images_per_second, open_results
    from prunedge.edge.inspect.runner import describe, inspect_source
    from prunedge.edge.inspect.settings import parse_patch
    from prunedge.edge.inspect.sources import open_source
    from prunedge.edge.session import open_session
    from prunedge.errors import DataError
    from prunedge.utils.systems import limit_memory_to_machine

    if threads is not None and threads < 1:
        raise DataError("--threads must be at least 1", remedy="mend this value")
    limit_memory_to_machine()
    opened = open_bundle(bundle)
    wanted = tuple(name.strip() for name in (damage or "").split(",") if name.strip())
    settings = Settings(
        wanted,
        threshold,
        None if patch is None else parse_patch(patch),
        overlap,
        batch,
        mm_per_pixel,
        max_megapixels,
        None if range is None else parse_range(range),
    ).fitted(opened.manifest)
    session = open_session(opened, threads or _cores())
    if warning := session.warning():
        say(f"mind: {warning}")
    images = open_source(source, out=out, every=every, frames=frames)
    about = describe(opened, images, settings, device())
    results = open_results(out, about) if out is not None else None
    sound = [name for name in opened.manifest.task.classes if name not in settings.damage]
    choice = (
        f"damage: {', '.join(settings.damage)}; sound: {', '.join(sound)}; "
        f"{settings.looked(opened.manifest)}"
    )
    if images.total != 1:
        say(choice)
    with progress("inspecting", quiet=json) as advance:
        outcome = inspect_source(images, session, settings, results, advance=advance, tell=say)
    if not outcome.records and outcome.trouble is None:
        what = (
            f"none of {len(outcome.skipped)} images could be inspected"
            if outcome.skipped
            else "no images came"
        )
        raise DataError(what, where=images.title, remedy="see the lines above, and name others")
    rate = images_per_second(outcome.records)
    if json:
        skipped = [{"name": name, "reason": why} for name, why in outcome.skipped]
        print_json(
            {
                **about,
                "images": outcome.records,
                "skipped": skipped,
                "images_per_second": rate,
                "out": str(out) if out else None,
            }
        )
    else:
        print_inspection(outcome, rate, out)
        if images.total == 1:
            tell(choice)
    if outcome.trouble is not None:
        raise outcome.trouble  # the images are sound as far as anybody knows


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
