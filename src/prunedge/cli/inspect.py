"""`prunedge inspect`: look for damage in photographs, videos or a camera's images. Needs no
torch.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunedge.cli.inspect_options import DEFAULT, InspectOptions
from prunedge.cli.options import Flag
from prunedge.cli.output_options import DEFAULT_OUTPUT, OutputOptions

if TYPE_CHECKING:
    from prunedge.edge.inspect import Settings
    from prunedge.edge.manifest import Manifest


def inspect(
    bundle: Path,
    source: str,
    *,
    out: Path | None = None,
    inspection: InspectOptions = DEFAULT,
    every: float | None = None,
    frames: int | None = None,
    threads: int | None = None,
    output: OutputOptions = DEFAULT_OUTPUT,
    pdf: Flag = False,
    json: Flag = False,
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
    every
        Seconds from one inspected frame of a video or camera to the next (1 unless given; 0: every
        frame).
    frames
        End a video or camera after so many inspected frames.
    threads
        Threads that the model may use; all cores, unless given.
    pdf
        Print a card for each defect, to be noted on and signed, into defects.pdf in that folder:
        needs Chromium. `prunedge report` does it later, or elsewhere.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import progress, say, tell
    from prunedge.cli.inspect_tables import print_inspection, print_inspection_json
    from prunedge.edge import open_bundle
    from prunedge.edge.bench.hardware import device
    from prunedge.edge.inspect.exports import left_out
    from prunedge.edge.inspect.results import open_results
    from prunedge.edge.inspect.runner import describe, inspect_source
    from prunedge.edge.inspect.sources import open_source
    from prunedge.edge.session import open_session
    from prunedge.errors import DataError
    from prunedge.utils.systems import cores, limit_memory_to_machine

    if threads is not None and threads < 1:
        raise DataError("--threads must be at least 1", remedy="mend this value")
    browser = _browser(out) if pdf else None
    limit_memory_to_machine()
    outputs = replace(output.outputs(out, source), has_cards=pdf)
    opened = open_bundle(bundle).seen_as()
    settings = inspection.settings().fitted(opened.manifest)
    session = open_session(opened, threads or cores())
    if warning := session.warning():
        say(f"mind: {warning}")
    images = open_source(source, out=out, every=every, frames=frames)
    about = describe(opened, images, settings, device())

    # Of one photograph it is said after the result, so that nothing stands before it.
    choice = _choice(settings, opened.manifest)
    if images.total != 1:
        say(choice)
    with (
        open_results(out, about, outputs) if out is not None else nullcontext() as results,
        progress("inspecting", quiet=json) as advance,
    ):
        outcome = inspect_source(images, session, settings, results, advance=advance, tell=say)
    outcome.refuse_nothing(images.title)
    for name, why in left_out(outputs.formats, outcome.records):
        say(f"{name}: {why}")
    cards = [] if browser is None or out is None else _cards(out, browser)
    if json:
        print_inspection_json(about, outcome, out)
    else:
        classes = settings.width_classes
        print_inspection(outcome, out, classes.names if classes is not None else ())
        if images.total == 1:
            tell(choice)
        for file in cards:
            tell(f"cards: {file}")
    if outcome.trouble is not None:
        raise outcome.trouble  # the images are sound as far as anybody knows


def _choice(settings: Settings, manifest: Manifest) -> str:
    """What counts as damage, and how photographs are looked at."""
    from prunedge.edge.tasks import decoder_of

    assert settings.threshold is not None  # after `fitted`
    choice = decoder_of(manifest.task).choice(settings.damage, settings.threshold)
    return f"{choice}; {settings.looked(manifest)}"


def _browser(out: Path | None) -> str:
    """The browser that prints cards, before anything is inspected."""
    from prunedge.edge.inspect.cards import browser_for_cards
    from prunedge.errors import DataError

    if out is None:
        raise DataError("--pdf needs a folder to print into", remedy="give --out FOLDER")
    return browser_for_cards()


def _cards(out: Path, browser: str) -> list[Path]:
    """The files of the cards."""
    from prunedge.edge.inspect.cards import write_cards
    from prunedge.edge.inspect.kept import open_inspection

    return write_cards(open_inspection(out), browser=browser)
