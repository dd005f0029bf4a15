"""A study's folder on an object store or another file system, by its fsspec URL; every machine
works on a mirror of its own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
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
    "baselines.json",
    "times.json",
    "engine.json",
    "environment.json",
    "study.json",
    "lr.json",
    "patience.json",
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
        address = url.rstrip("/")
        digest = hashlib.sha256(address.encode()).hexdigest()[:16]
        remote = cls(address, cache_folder() / "studies" / digest)
        remote._system()
        make_folder(remote.mirror)
        return remote

    def pull_run(self, relative: str) -> None:
        """Bring what is missing of a run (`trials/NAME`) here, unless it is further here than
        there: histories only grow.
        """
        system, root = self._system()
        sizes = _sizes(system, f"{root}/{relative}")
        history = f"{relative}/history.jsonl"
        if sizes.get(f"{root}/{history}", -1) < _size(self.mirror / history):
            return
        if not self._is_same_run(system, root, relative):
            # It was begun anew on another machine.
            shutil.rmtree(self.mirror / relative, ignore_errors=True)
        self._fetch(system, root, self._differing(sizes, root))

    def pull_records(self) -> None:
        """Bring the study's file and the records of all runs here, as far as they differ in
        size.
        """
        system, root = self._system()
        sizes = _sizes(system, root) if system.exists(root) else {}
        records = {path: size for path, size in sizes.items() if _is_record(path[len(root) + 1 :])}
        changed = self._differing(records, root)
        for run in {path[len(root) + 1 :].rpartition("/")[0] for path in changed}:
            if run.count("/") == 1 and not self._is_same_run(system, root, run):
                changed += [path for path in records if path.startswith(f"{root}/{run}/")]
        self._fetch(system, root, dict.fromkeys(changed))

    def push(self, relative: str) -> None:
        """Send what has changed in a file or folder of the mirror since it was sent the last
        time.
        """
        system, root = self._system()
        source = self.mirror / relative
        files = [source] if source.is_file() else _files(source)
        for file in sorted(files, key=_rank):
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

    def _differing(self, sizes: Mapping[str, int], root: str) -> list[str]:
        """The files whose size is another here, or that are not here."""
        return [path for path, size in sizes.items() if size != _size(self._home(root, path))]

    def _is_same_run(self, system: Any, root: str, run: str) -> bool:
        """Whether the run there is that of the mirror: sizes don't tell two runs of one config
        apart, whose files are not each other's.
        """
        here = self.mirror / run / "config.toml"
        there = f"{root}/{run}/config.toml"
        if not here.exists() or not system.exists(there):
            return True
        text_there = system.cat_file(there).decode(errors="replace")
        return sign_in(here.read_text(encoding="utf-8")) == sign_in(text_there)

    def _home(self, root: str, path: str) -> Path:
        return self.mirror / path[len(root) + 1 :]

    def _fetch(self, system: Any, root: str, paths: Iterable[str]) -> None:
        for path in sorted(paths, key=lambda path: path.rpartition("/")[2] in _LAST):
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
    files = []
    for file in folder.rglob("*"):
        names = file.relative_to(folder).parts
        is_hidden = any(is_ours(name) or name.startswith(".") for name in names)
        if not is_hidden and file.is_file():
            files.append(file)
    return files


def _rank(file: Path) -> tuple[int, Path]:
    """Where a file comes in the order in which they are sent."""
    return (_LAST.index(file.name) if file.name in _LAST else -1, file)


def _sizes(system: Any, folder: str) -> dict[str, int]:
    """The size in bytes of each file below a folder of a store."""
    return {path: about["size"] for path, about in system.find(folder, detail=True).items()}


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else -1
