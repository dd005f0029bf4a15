"""Where a run's time went: what a recorder collected, by part and by step, kept in the run and read
from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from prunedge.errors import RunError
from prunedge.runs.time_records import BundleProfile, ProfileRecord
from prunedge.utils import checksums
from prunedge.utils.distributed import get_rank
from prunedge.utils.files import read_text, write_text
from prunedge.utils.machine import unwritable
from prunedge.utils.records import require
from prunedge.utils.tracing import MAIN, Recorder, recording, trace_events, trace_json

FOLDER = "profile"
OTHER = "other"

# Spans that stand alone where they are a part of something larger.
_PARTS = {"trace": "surgery", "derive": "surgery", "slice state": "surgery", "metrics": "evaluate"}


@contextmanager
def profiled(run: Path | str) -> Iterator[Recorder]:
    """Record where the time goes while inside, and write it into the run folder, also when what is
    inside is cut off.

    `profile/profile.json` holds the sums and `profile/trace.json` every span, for Perfetto. Files
    that are there stay: the next are `profile-2.json` and `trace-2.json`. Nothing is written where
    no run folder was made, or nothing was recorded. Of several processes, the first one's time is
    written. MachineError when it can't be.
    """
    folder, recorder, started = Path(run), Recorder(), perf_counter_ns()
    try:
        with recording(recorder):
            yield recorder
    finally:
        wall_ns = perf_counter_ns() - started
        # Not `rank_zero_only`: after an interruption the processes no longer wait for each other.
        if recorder.spans and get_rank() == 0 and (folder / "config.toml").exists():
            _write(folder, recorder, started, wall_ns)


def profile_of(run: Path) -> dict[str, Any] | None:
    """What all profiles in a run folder say together; None where there is none. RunError when one
    is damaged.
    """
    profiles = [_read(file) for file in _files(run)]
    if not profiles:
        return None
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in (row for profile in profiles for row in profile["rows"]):
        key = (row["thread"], row["phase"], row["path"])
        sums = rows.setdefault(key, {**row, "count": 0, "self_s": 0.0, "total_s": 0.0})
        for name in ("count", "self_s", "total_s"):
            sums[name] += row[name]
    wall_s = sum(profile["wall_s"] for profile in profiles)
    together = summed(list(rows.values()), wall_s)
    for name in ("spans", "spans_left_out"):
        together[name] = sum(profile[name] for profile in profiles)
    for name in ("machine", "threads", "precision"):
        together[name] = profiles[-1][name]
    return {**together, "recordings": len(profiles)}


def _files(run: Path) -> list[Path]:
    """profile.json, profile-2.json, ..., as they were recorded."""
    files = (run / FOLDER).glob("profile*.json")
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _read(file: Path) -> dict[str, Any]:
    try:
        profile: dict[str, Any] = checksums.read(file, f"{FOLDER}/{file.name}")
        require(ProfileRecord, profile)
    except (ValueError, RecursionError) as error:
        raise RunError(f"damaged: {error}", where=file, remedy="delete it") from None
    return profile


def bench_profile_of(run: Path) -> list[dict[str, Any]] | None:
    """What `bench --profile` saw of each bundle; None where there is none. RunError when it is
    damaged.
    """
    file = run / FOLDER / "bench.json"
    try:
        profiles: list[dict[str, Any]] = checksums.read(file, f"{FOLDER}/{file.name}")
        require(list[BundleProfile], profiles)
        return profiles
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"damaged: {error}", where=file, remedy="delete it") from None


def rows_of(recorder: Recorder) -> list[dict[str, Any]]:
    """A recorder's sums as plain records; `path` has a span's name behind those of the spans around
    it, `/` between them.
    """
    return [
        {
            "thread": place.thread,
            "phase": place.phase,
            "path": "/".join(place.path),
            "count": total.count,
            "self_s": total.self_ns / 1e9,
            "total_s": total.total_ns / 1e9,
        }
        for place, total in recorder.totals.items()
    ]


def summed(rows: Sequence[Mapping[str, Any]], wall_s: float) -> dict[str, Any]:
    """The rows with what follows from them: seconds by part and by phase, and what no span
    accounts for.

    The parts are of the main thread and exclude each other: with `unaccounted_s` they are the
    wall-clock time.
    """
    main = [row for row in rows if row["thread"] == MAIN]
    known = [row for row in main if row["path"]]
    unaccounted = wall_s - sum(row["self_s"] for row in known)
    phases = []
    for name in dict.fromkeys(row["phase"] for row in main if row["phase"]):
        seconds = sum(row["total_s"] for row in main if row["phase"] == name and not row["path"])
        parts = _by_part(row for row in known if row["phase"] == name)
        phases.append(
            {
                "phase": name,
                "seconds": seconds,
                "parts": {**parts, OTHER: max(0.0, seconds - sum(parts.values()))},
            }
        )
    parts = _by_part(known)
    return {
        "wall_s": wall_s,
        "unaccounted_s": unaccounted,
        "unaccounted_share": unaccounted / wall_s if wall_s else 0.0,
        "parts": [
            {
                "part": part,
                "seconds": seconds,
                "share": seconds / wall_s,
                "within": _within(known, part),
            }
            for part, seconds in sorted(parts.items(), key=lambda part: -part[1])
        ],
        "phases": sorted(phases, key=lambda entry: _order(entry["phase"])),
        "background": [
            {
                "thread": row["thread"],
                "part": row["path"],
                "seconds": row["self_s"],
                "count": row["count"],
            }
            for row in _merged(row for row in rows if row["thread"] != MAIN)
        ],
        "rows": list(rows),
    }


def part_of(path: str) -> str:
    """What a span's own time counts to: the outermost span around it, but that waiting for images
    and ranking are counted wherever.
    """
    names = path.split("/")
    return next(
        (name for name in ("data", "rank") if name in names), _PARTS.get(names[0], names[0])
    )


def _by_part(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in rows:
        part = part_of(row["path"])
        seconds[part] = seconds.get(part, 0.0) + row["self_s"]
    return seconds


def _within(rows: Iterable[Mapping[str, Any]], part: str) -> list[dict[str, Any]]:
    """The spans whose own time makes up a part, the largest first."""
    merged = _merged(row for row in rows if part_of(row["path"]) == part)
    return [
        {"path": row["path"], "seconds": row["self_s"], "count": row["count"]} for row in merged
    ]


def _merged(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all phases together, the largest first."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["thread"], row["path"])
        sums = merged.setdefault(key, {**row, "count": 0, "self_s": 0.0})
        sums["count"] += row["count"]
        sums["self_s"] += row["self_s"]
    return sorted(merged.values(), key=lambda row: -row["self_s"])


def _order(phase: str) -> tuple[int, int]:
    """Phases in the order of a run, whichever recording saw them first."""
    name, _, number = phase.partition(" ")
    names = ("start", "train", "step", "baselines", "test")
    rank = names.index(name) if name in names else len(names)
    return rank, int(number) if number.isdigit() else 0


def _write(folder: Path, recorder: Recorder, started_ns: int, wall_ns: int) -> None:
    number = 1
    while any(
        (folder / FOLDER / f"{name}{_suffix(number)}.json").exists()
        for name in ("profile", "trace")
    ):
        number += 1
    about = {"spans": len(recorder.spans), "spans_left_out": recorder.left_out, **_about(folder)}
    events = trace_events(
        recorder.spans, recorder.tracks, started_ns, f"prunedge {folder.name}", os.getpid()
    )
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        name = f"profile{_suffix(number)}.json"
        sums = {**summed(rows_of(recorder), wall_ns / 1e9), **about}
        write_text(
            folder / FOLDER / name, json.dumps(checksums.sealed(sums, f"{FOLDER}/{name}"), indent=1)
        )
        write_text(folder / FOLDER / f"trace{_suffix(number)}.json", json.dumps(trace_json(events)))
    except OSError as error:
        raise unwritable(error, folder, "can't write the profile") from None


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def _about(folder: Path) -> dict[str, Any]:
    """What the run says of the machine; it may have been cut off before it knew."""
    known: dict[str, Any] = {}
    for name in ("environment.json", "engine.json"):
        # Which model the run is of is told elsewhere; a damaged file only makes the profile say
        # less.
        with suppress(OSError, ValueError):
            known |= json.loads(read_text(folder / name, RunError))
    return {
        "machine": known.get("device"),
        "threads": known.get("threads"),
        "precision": known.get("precision"),
    }
