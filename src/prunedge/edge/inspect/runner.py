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
from prunedge.edge.inspect.kept import place_in_json, with_digest, write_listing
from prunedge.edge.inspect.results import Record, Results, images_per_second, worst_first
from prunedge.edge.inspect.settings import Settings, settings_to_json
from prunedge.edge.inspect.written_files import FILES
from prunedge.edge.manifest import MANIFEST
from prunedge.errors import DataError, MachineError
from prunedge.utils.files import real_path
from prunedge.utils.wording import counted, first_of

MOST_REMOVED = 8  # names that are told
REFRESH_S = 30.0  # someone may be looking at the page while the rest goes on

Advance = Callable[[int, int, str], None]


@dataclass(frozen=True)
class InspectionOutcome:
    """What came of a source: records worst first, names and reasons of what was skipped, and how
    many an earlier run had inspected.

    `trouble` is the machine's, with the first image that could not be inspected for it.
    """

    records: list[Record]
    skipped: list[tuple[str, str]]
    reused: int
    trouble: MachineError | None = None

    @property
    def images_per_second(self) -> float:
        """How fast they were read, inspected and drawn."""
        return images_per_second(self.records)

    def refuse_nothing(self, title: str) -> None:
        """DataError where no image of the source with this title could be inspected, and the
        machine is not to blame.
        """
        if self.records or self.trouble is not None:
            return
        what = "no images came"
        if self.skipped:
            what = f"none of {counted(len(self.skipped), 'image')} could be inspected"
        raise DataError(what, where=title, remedy="see the lines above, and name others")


def inspect_source(
    source: Source,
    session: Classifier,
    settings: Settings,
    results: Results | None,
    *,
    advance: Advance,
    tell: Callable[[str], None],
) -> InspectionOutcome:
    """Inspect every image of a source, and keep what is found in `results`. `advance(done, total,
    what)` and `tell(line)` report.

    A live source ends without an error when it is interrupted. Raises what can't be skipped: a
    bundle that fails, a disk that is full, an error in the only image.
    """
    inspecting = _Inspecting(source, session, settings, results, advance, tell)
    try:
        for item in source.items:
            inspecting.take(item)
    except KeyboardInterrupt:
        if not source.is_live:
            raise
        inspecting.count_what_was_kept()
    finally:
        inspecting.tell_problems()
        inspecting.summarise()
        inspecting.tell_removed()
    return inspecting.outcome()


class _Inspecting:
    """An inspection under way: what it has done so far, and to whom it reports."""

    def __init__(
        self,
        source: Source,
        session: Classifier,
        settings: Settings,
        results: Results | None,
        advance: Advance,
        tell: Callable[[str], None],
    ) -> None:
        self.source = source
        self.session = session
        self.settings = settings
        self.results = results
        self.advance = advance
        self.tell = tell

        self.records: list[Record] = []
        self.skipped: list[tuple[str, str]] = []
        self.reused = 0
        self.trouble: MachineError | None = None
        self._current: Item | None = None
        self._problems_told = 0
        self._summarised_at = perf_counter()

    def take(self, item: Item) -> None:
        """Inspect an image, or take what an earlier run found in it."""
        self.tell_problems()
        known = self.results.known(item) if self.results is not None else None
        if known is not None:
            self.records.append(known)
            self.reused += 1
        else:
            self._inspect_or_skip(item)

        done = len(self.records) + len(self.skipped)
        if self.source.total != 1:
            self.advance(done, self.source.total or done, "inspecting")
        if perf_counter() - self._summarised_at > REFRESH_S:
            self.summarise()
            self._summarised_at = perf_counter()

    def count_what_was_kept(self) -> None:
        """After an interruption: the image in work counts where its files were all written."""
        if self._current is None or self.results is None:
            return
        kept = self.results.known(self._current)
        is_counted = any(record["name"] == self._current.name for record in self.records)
        if kept is not None and not is_counted:
            self.records.append(kept)

    def tell_problems(self) -> None:
        """Tell what the source has met since the last time."""
        for name, reason in self.source.problems[self._problems_told :]:
            self.tell(f"{name}: {reason}")
        self._problems_told = len(self.source.problems)

    def summarise(self) -> None:
        """Write the tables and the page; where nothing has come, leave no folder behind."""
        if self.results is None:
            return
        if self.records or self.skipped:
            records = worst_first(self.records)
            self.results.summarise(records, self._all_skipped())
            about = {**self.results.about, FILES: sorted(self.results.files)}
            write_listing(self.results.path, about, records, self._all_skipped())
        else:
            self.results.withdraw()

    def tell_removed(self) -> None:
        """Tell which files of an earlier inspection are gone, since this one doesn't write them."""
        if self.results is None or not self.results.removed:
            return
        names = first_of(self.results.removed, MOST_REMOVED)
        self.tell(f"removed, since this inspection does not write what an earlier one did: {names}")

    def outcome(self) -> InspectionOutcome:
        """What has come of it."""
        return InspectionOutcome(
            worst_first(self.records), self._all_skipped(), self.reused, self.trouble
        )

    def _inspect_or_skip(self, item: Item) -> None:
        self._current = item
        try:
            photo, inspection = self._inspect(item)
        except (DataError, MachineError) as error:
            if self.source.total == 1:
                raise
            self._skip(item, error)
        else:
            self._keep(item, photo, inspection)

    def _inspect(self, item: Item) -> tuple[Photo, Inspection]:
        started = perf_counter()
        greys = self.settings.greys(self.session.bundle)
        photo = open_photo(item.image, self.settings.max_megapixels, greys)
        inspection = inspect_photo(photo, self.session, self.settings, item.name, self._patches)
        return photo, replace(inspection, seconds=perf_counter() - started)

    def _keep(self, item: Item, photo: Photo, inspection: Inspection) -> None:
        if self.results is None:
            record = {**inspection.to_json(), **item.about}
        else:
            record = self.results.keep(with_digest(item), inspection, photo)
        self.records.append(record)
        self._current = None
        for note in inspection.notes:
            self.tell(f"{item.name}: {note}")

    def _skip(self, item: Item, error: DataError | MachineError) -> None:
        """What is skipped is tried again by the next run."""
        if isinstance(error, MachineError):
            self.trouble = self.trouble or error
        reason = f"{error.what} ({error.remedy})" if error.remedy else error.what
        self.skipped.append((item.name, reason))
        self.tell(f"skipped {item.name}: {reason}")

    def _patches(self, done: int, total: int) -> None:
        if self.source.total == 1:
            self.advance(done, total, "patches")

    def _all_skipped(self) -> list[tuple[str, str]]:
        return self.skipped + self.source.problems


def describe(
    bundle: Bundle, source: Source, settings: Settings, device: dict[str, Any]
) -> dict[str, Any]:
    """What was inspected, with what, where and when, for the results."""
    manifest = bundle.manifest
    return {
        "source": source.title,
        "photographs": place_in_json(source.place),
        "settings": settings_to_json(settings),
        "device": device,
        "bundle": {
            "name": real_path(bundle.path).name,
            "model": manifest.model,
            "task": manifest.task.name,
            "classes": list(manifest.task.classes),
            "input_size": manifest.task.size.plain(),
            "sha256": sha256(bundle.path / MANIFEST),
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"prunedge": __version__, "python": platform.python_version()},
    }
