"""The loop over images: what can't be inspected is told and skipped, what is finished is kept."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any

from prunedge import __version__
from prunedge.edge.bundle import Bundle, sha256
from prunedge.edge.image.photograph import Photo, open_photo
from prunedge.edge.inspect.inspection import (
    Classifier,
    Inspection,
    inspect_photo,
)
from prunedge.edge.inspect.items import Item, Source
from prunedge.edge.inspect.results import Record, Results, worst_first
from prunedge.edge.inspect.settings import Settings, settings_to_json
from prunedge.edge.manifest import MANIFEST
from prunedge.errors import DataError, MachineError
from prunedge.utils.files import real_path

REFRESH_S = 30.0  # someone may be looking at the page while the rest goes on

Advance = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """What came of a source: records worst first, names and reasons of what was skipped, and how
    many an earlier run had inspected.

    `trouble` is the machine's, with the first image that could not be inspected for it.
    """

    records: list[Record]
    skipped: list[tuple[str, str]]
    reused: int
    trouble: MachineError | None = None


def inspect_source(
    source: Source,
    session: Classifier,
    settings: Settings,
    results: Results | None,
    *,
    advance: Advance,
    tell: Callable[[str], None],
) -> Outcome:
    """Inspect every image of a source, and keep what is found in `results`. `advance(done, total,
    what)` and `tell(line)` report.

    A live source ends without an error when it is interrupted. Raises what can't be skipped: a
    bundle that fails, a disk that is full, an error in the only image.
    """
    records: list[Record] = []
    skipped: list[tuple[str, str]] = []
    reused, problems_told, written = 0, 0, perf_counter()
    trouble: MachineError | None = None

    def summarise() -> None:
        if results is not None and (records or skipped):
            results.summarise(worst_first(records), skipped + source.problems)
        elif results is not None:
            results.withdraw()

    def tell_problems() -> None:
        nonlocal problems_told
        for name, reason in source.problems[problems_told:]:
            tell(f"{name}: {reason}")
        problems_told = len(source.problems)

    def patches(done: int, total: int) -> None:
        if source.total == 1:
            advance(done, total, "patches")

    try:
        for item in source.items:
            tell_problems()
            if results is not None and (known := results.known(item)) is not None:
                records.append(known)
                reused += 1
            else:
                try:
                    photo, inspection = _inspect(item, session, settings, patches)
                except (
                    DataError,
                    MachineError,
                ) as error:  # what is skipped is tried again by the next run
                    if source.total == 1:
                        raise
                    if isinstance(error, MachineError):
                        trouble = trouble or error
                    skipped.append(
                        (item.name, error.what + (f" ({error.remedy})" if error.remedy else ""))
                    )
                    tell(f"skipped {item.name}: {skipped[-1][1]}")
                else:
                    records.append(
                        results.keep(item, inspection, photo)
                        if results is not None
                        else {**inspection.to_json(), **item.about}
                    )
                    for note in inspection.notes:
                        tell(f"{item.name}: {note}")
            done = len(records) + len(skipped)
            if source.total != 1:
                advance(done, source.total or done, "inspecting")
            if perf_counter() - written > REFRESH_S:
                summarise()
                written = perf_counter()
    except KeyboardInterrupt:
        if not source.is_live:
            raise
    finally:
        tell_problems()
        summarise()
    return Outcome(worst_first(records), skipped + source.problems, reused, trouble)


def describe(
    bundle: Bundle, source: Source, settings: Settings, device: dict[str, Any]
) -> dict[str, Any]:
    """What was inspected, with what, where and when, for the results."""
    manifest = bundle.manifest
    return {
        "source": source.title,
        "settings": settings_to_json(settings),
        "device": device,
        "bundle": {
            "name": real_path(bundle.path).name,
            "model": manifest.model,
            "classes": list(manifest.task.classes),
            "input_size": manifest.task.size.plain(),
            "sha256": sha256(bundle.path / MANIFEST),
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"prunedge": __version__, "python": platform.python_version()},
    }


def _inspect(
    item: Item, session: Classifier, settings: Settings, patches: Callable[[int, int], None]
) -> tuple[Photo, Inspection]:
    started = perf_counter()
    photo = open_photo(item.image, settings.max_megapixels, settings.greys(session.bundle))
    inspection = inspect_photo(photo, session, settings, item.name, patches)
    return photo, replace(inspection, seconds=perf_counter() - started)
