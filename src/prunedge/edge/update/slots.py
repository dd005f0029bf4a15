"""Which bundle is in use, which was before it, and where announced ones lie: in the agent's own
folder, so that they stay.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prunedge.edge.agent.database import Store
from prunedge.edge.bundle import Bundle, open_bundle, sha256
from prunedge.edge.logs import log, one_line
from prunedge.edge.manifest import MANIFEST
from prunedge.edge.session import open_session
from prunedge.edge.update.statement import Release, Taken
from prunedge.errors import AgentError, MachineError, PrunedgeError
from prunedge.utils.files import make_folder
from prunedge.utils.systems import replace, sync_folder

DEATHS = 3  # of the agent over the first image with a new bundle, until that bundle is given up


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that is loaded. `sha256` is its manifest's, and so stands for all of its files.

    `release` is what was signed of it, None for one that nobody signed, or that was not announced
    since the start.
    """

    bundle: Bundle
    session: Any
    sha256: str
    release: Release | None = None


class BundleSlots:
    """Announced bundles, in folders named by their manifests' SHA-256, and the one that the command
    line gave.

    The one that was accepted last is used. When it can't be loaded, or the agent died DEATHS times
    over the first image with it, the one before it is; at last the given one. When another bundle
    is given than before, the operator has changed it by hand: it is used.
    """

    def __init__(
        self, folder: Path, store: Store, given: Path, threads: int, runtime: str | None
    ) -> None:
        self.folder, self.incoming = folder, folder / ".incoming"
        self._store, self._given = store, given
        self._threads, self._runtime = threads, runtime
        self._is_on_trial = self._is_begun = False
        self.passed_over: list[str] = []  # why bundles were not taken at the start

    def start(self) -> LoadedBundle:
        """The bundle to begin with; BundleError when none can be loaded, MachineError when the
        machine can't load it now.
        """
        shutil.rmtree(self.incoming, ignore_errors=True)
        make_folder(self.folder)
        manifest = self._given / MANIFEST
        given = sha256(manifest) if manifest.is_file() else None
        if given is not None and given != self._store.note("given"):
            if self._store.note("current") is not None:
                log.info("another bundle is given than before, and is used: %s", self._given)
            self._store.write_notes(
                given=given, current=None, previous=None, trial=None, deaths=None
            )
        names = [
            name
            for name in (self._store.note("current"), self._store.note("previous"))
            if name is not None
        ]
        for name in names:
            try:
                bundle = self._load_accepted(name)
            except MachineError:
                raise  # it was loaded here before: the next start finds the machine mended
            except PrunedgeError as error:
                log.warning(
                    "the accepted bundle %s is not used any more, the one before it is: %s",
                    name[:12],
                    one_line(error),
                )
                self.passed_over.append(one_line(error))
                self._store.refuse(name)
                continue
            if name != names[0]:
                self._store.write_notes(current=name, previous=None, trial=None, deaths=None)
            self._is_on_trial = self._store.note("trial") is not None
            return bundle
        if names:
            self._store.write_notes(current=None, previous=None, trial=None, deaths=None)
        self._is_on_trial = False
        return load(self._given, self._threads, self._runtime)

    def accept(self, loaded: LoadedBundle) -> LoadedBundle:
        """Take a bundle that lies in `incoming` and was tried: it is the current one from now on,
        also after a power cut.
        """
        place = self.folder / loaded.sha256
        shutil.rmtree(place, ignore_errors=True)
        replace(self.incoming, place)
        sync_folder(self.folder)
        previous = self._store.note("current")
        notes = {} if loaded.release is None else _noted(loaded.release, loaded.sha256)
        self._store.write_notes(
            current=loaded.sha256, previous=previous, trial=loaded.sha256, deaths="0", **notes
        )
        self._is_on_trial, self._is_begun = True, False
        for other in self.folder.iterdir():
            if other.name not in (loaded.sha256, previous):
                shutil.rmtree(other, ignore_errors=True)
        return LoadedBundle(open_bundle(place), loaded.session, loaded.sha256)

    def taken(self) -> Taken | None:
        """The signed release of the highest version that was ever taken; it outlives every change
        of the bundle, also by hand.
        """
        text = self._store.note("release")
        if text is None:
            return None
        record = json.loads(text)
        return Taken(
            record["version"],
            record["sha256"],
            record["purpose"],
            datetime.fromisoformat(record["signed"]),
        )

    def note(self, release: Release, sha256: str) -> None:
        """The bundle in use was signed anew: a lower version doesn't count any more."""
        self._store.write_notes(**_noted(release, sha256))

    def begin(self) -> None:
        """An image is about to be inspected. While the bundle is on trial, a death from here on
        counts against it.
        """
        if self._is_on_trial and not self._is_begun:
            self._store.write_notes(deaths=str(self._deaths() + 1))
            self._is_begun = True

    def proved(self) -> None:
        """The bundle in use has seen an image through: its trial is over."""
        if self._is_on_trial:
            self._store.write_notes(trial=None, deaths=None)
            self._is_on_trial = False

    def roll_back(self) -> LoadedBundle | None:
        """The bundle before the one on trial, which failed; None when the one in use is not on
        trial.
        """
        if not self._is_on_trial:
            return None
        self._store.write_notes(deaths=str(DEATHS))
        return self.start()

    def _load_accepted(self, name: str) -> LoadedBundle:
        if self._store.note("trial") == name and self._deaths() >= DEATHS:
            raise AgentError(
                "it failed on the first image", where=self.folder / name, remedy="export it again"
            )
        return load(self.folder / name, self._threads, self._runtime)

    def _deaths(self) -> int:
        return int(self._store.note("deaths") or 0)


def _noted(release: Release, sha256: str) -> dict[str, str]:
    record = {
        "version": release.version,
        "sha256": sha256,
        "purpose": release.purpose,
        "signed": release.signed.isoformat(),
    }
    return {"release": json.dumps(record)}


def load(folder: Path, threads: int, runtime: str | None = None) -> LoadedBundle:
    """A bundle, verified and loaded; BundleError when it can't be."""
    bundle = open_bundle(folder)
    return LoadedBundle(bundle, open_session(bundle, threads, runtime), sha256(folder / MANIFEST))
