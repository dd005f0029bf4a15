"""A study's folder on an object store or another file system, by its fsspec URL; every machine
works on a mirror of its own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunedge.data.paths import cache_folder
from prunedge.errors import ExtraMissing, RunError
from prunedge.utils.files import is_ours, make_folder, written
from prunedge.utils.machine import pass_on
from prunedge.utils.signs import sign_in

# What a table and the state of a study need of a run: no weights.
RECORDS = (
    "config.toml",
    "history.jsonl",
    "test.json",
    "stop.json",
    "bench.json",
    "engine.json",
    "environment.json",
    "study.json",
    "lr.json",
    "weights.json",
    "chain.json",
    "resumed.json",
    "latency.json",
)
# In the order in which a reader may rely on them: a history never names a checkpoint that is not
# there yet.
_LAST = ("history.jsonl", "baselines.json", "stop.json", "test.json", "bench.json", "study.json")


@dataclass(frozen=True)
class Remote:
    """The folder at `url`, mirrored in `mirror`.

    Two commands must not run one study on an object store at the same time: it has no locks. Ray's
    tasks, each of which runs once, may.
    """

    url: str
    mirror: Path
    _sent: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, url: str) -> Remote:
        """The folder at a URL, with this machine's mirror of it; RunError when no installed file
        system knows such URLs.
        """
        remote = cls(
            url.rstrip("/"),
            cache_folder() / "studies" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16],
        )
        remote._system()
        make_folder(remote.mirror)
        return remote

    def pull_run(self, part: str) -> None:
        """Bring what is missing of a run (`trials/NAME`) here, unless it is further here than
        there: histories only grow.
        """
        system, root = self._system()
        found = {
            path: about["size"]
            for path, about in system.find(f"{root}/{part}", detail=True).items()
        }
        if found.get(f"{root}/{part}/history.jsonl", -1) >= _size(
            self.mirror / part / "history.jsonl"
        ):
            if not self._is_same_run(system, root, part):
                shutil.rmtree(
                    self.mirror / part, ignore_errors=True
                )  # it was begun anew on another machine
            self._fetch(
                system,
                root,
                [path for path, size in found.items() if size != _size(self._home(root, path))],
            )

    def pull_records(self) -> None:
        """Bring the study's file and the records of all runs here, as far as they differ in
        size.
        """
        system, root = self._system()
        found = system.find(root, detail=True) if system.exists(root) else {}
        records = {
            path: about["size"]
            for path, about in found.items()
            if _is_record(path[len(root) + 1 :])
        }
        changed = [path for path, size in records.items() if size != _size(self._home(root, path))]
        for part in {path[len(root) + 1 :].rpartition("/")[0] for path in changed}:
            if part.count("/") == 1 and not self._is_same_run(system, root, part):
                changed += [path for path in records if path.startswith(f"{root}/{part}/")]
        self._fetch(system, root, dict.fromkeys(changed))

    def push(self, part: str) -> None:
        """Send what has changed in a file or folder of the mirror since it was sent the last
        time.
        """
        system, root = self._system()
        place = self.mirror / part
        files = [place] if place.is_file() else _files(place)
        for file in sorted(
            files, key=lambda one: (_LAST.index(one.name) if one.name in _LAST else -1, one)
        ):
            try:
                about = file.stat()
                state = (about.st_size, about.st_mtime_ns)
                if self._sent.get(file) != state:
                    target = f"{root}/{file.relative_to(self.mirror).as_posix()}"
                    system.makedirs(target.rpartition("/")[0], exist_ok=True)
                    system.put_file(str(file), target)
                    self._sent[file] = state
            except FileNotFoundError:
                continue  # a checkpoint that was cleared away while it was looked at
            except OSError as error:
                raise RunError(
                    f"can't write: {error}",
                    where=self.url,
                    remedy="give the same command again when it can be written",
                ) from None

    def _is_same_run(self, system: Any, root: str, part: str) -> bool:
        """Whether the run there is that of the mirror: sizes don't tell two runs of one config
        apart, whose files are not each other's.
        """
        mine, theirs = self.mirror / part / "config.toml", f"{root}/{part}/config.toml"
        if not mine.exists() or not system.exists(theirs):
            return True
        return sign_in(mine.read_text(encoding="utf-8")) == sign_in(
            system.cat_file(theirs).decode(errors="replace")
        )

    def _home(self, root: str, path: str) -> Path:
        return self.mirror / path[len(root) + 1 :]

    def _fetch(self, system: Any, root: str, paths: Iterable[str]) -> None:
        for path in sorted(paths, key=lambda one: one.rpartition("/")[2] in _LAST):
            home = self._home(root, path)
            make_folder(home.parent)
            # Whole or not at all: other processes of this machine read the mirror.
            with written(home) as temporary:
                system.get_file(path, str(temporary))

    def _system(self) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError as error:
            pass_on(error)
            raise ExtraMissing(
                "studies at a URL need fsspec", remedy="pip install 'prunedge[study]'"
            ) from None
        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            remedy = "install what fsspec needs for it (hdfs:// needs Java and Hadoop)"
            raise RunError(
                f"no file system for this URL: {error}", where=self.url, remedy=remedy
            ) from None
        system.invalidate_cache()
        return system, root.rstrip("/")


def _is_record(path: str) -> bool:
    return (
        path == "study.toml"
        or path.startswith("failures/")
        or (path.count("/") == 2 and path.rpartition("/")[2] in RECORDS)
    )


def _files(folder: Path) -> list[Path]:
    """All files below a folder, but for those that are being written."""
    found = []
    for file in folder.rglob("*"):
        hidden = any(
            is_ours(part) or part.startswith(".") for part in file.relative_to(folder).parts
        )
        if not hidden and file.is_file():
            found.append(file)
    return found


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else -1
