"""Where the time goes: named spans, nested as the calls are, on every thread. While nobody records
they cost next to nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST_SPANS = 200_000  # that are kept one by one: a trace of 25 MB
MAIN = "main"


class Span(NamedTuple):
    """One stretch of time on a track (a number of `Recorder.tracks`); `start_ns` counts from where
    the recorder's clock does.
    """

    name: str
    track: int
    start_ns: int
    duration_ns: int


@dataclass(frozen=True)
class Total:
    """What all spans of one place add up to: how many, their time, and their time without that of
    the spans inside them.
    """

    count: int
    self_ns: int
    total_ns: int


class Place(NamedTuple):
    """Where spans were: the thread's name, the phase of the run (empty: none), the names of the
    spans from outside in.
    """

    thread: str
    phase: str
    path: tuple[str, ...]


class _Frame:
    __slots__ = ("inside_ns", "place", "start_ns")

    def __init__(self, place: Place, start_ns: int) -> None:
        self.place, self.start_ns, self.inside_ns = place, start_ns, 0


class _Thread(threading.local):
    """What a thread has open, and the track that it draws on."""

    def __init__(self) -> None:
        self.stack: list[_Frame] = []
        self.track: int | None = None


class Recorder:
    """Collects the spans of all threads; the thread that makes it is called `main`.

    `totals` is exact always. Of single spans, as a trace shows them, at most `most` are kept: when
    there are more, the shorter half goes, and `left_out` counts what went.
    """

    def __init__(self, most: int = MOST_SPANS, clock: Callable[[], int] = perf_counter_ns) -> None:
        self.tracks: list[str] = []
        self.totals: dict[Place, Total] = {}
        self.spans: list[Span] = []
        self.left_out = 0
        self._most, self._clock, self._shortest_ns = most, clock, 0
        self._owners: list[threading.Thread] = []
        self._lock, self._here = threading.Lock(), _Thread()
        self._own_track(MAIN)

    def open(self, name: str, phase: bool = False) -> None:
        """A span begins on this thread."""
        here = self._here
        if here.track is None:
            self._own_track(threading.current_thread().name)
        assert here.track is not None
        outer = here.stack[-1].place if here.stack else Place(self.tracks[here.track], "", ())
        place = (
            Place(outer.thread, name, ())
            if phase
            else Place(outer.thread, outer.phase, (*outer.path, name))
        )
        here.stack.append(_Frame(place, self._clock()))

    def close(self) -> None:
        """The span that was opened last on this thread ends."""
        here = self._here
        frame = here.stack.pop()
        took, place = self._clock() - frame.start_ns, frame.place
        if here.stack:
            here.stack[-1].inside_ns += took
        assert here.track is not None
        with self._lock:
            before = self.totals.get(place, Total(0, 0, 0))
            self.totals[place] = Total(
                before.count + 1, before.self_ns + took - frame.inside_ns, before.total_ns + took
            )
            self._keep(
                Span(
                    place.path[-1] if place.path else place.phase,
                    here.track,
                    frame.start_ns,
                    took,
                )
            )

    def _keep(self, span: Span) -> None:
        if span.duration_ns < self._shortest_ns:
            self.left_out += 1
            return
        self.spans.append(span)
        if len(self.spans) > self._most:
            # Whatever holds a span that stays is longer than it, and stays as well.
            durations = sorted(one.duration_ns for one in self.spans)
            self._shortest_ns = durations[len(durations) // 2] + 1
            kept = [one for one in self.spans if one.duration_ns >= self._shortest_ns]
            self.left_out += len(self.spans) - len(kept)
            self.spans = kept

    def _own_track(self, name: str) -> None:
        """A track for this thread: that of a thread of the same name that has ended, or a new
        one.
        """
        with self._lock:
            free = (
                i
                for i, owner in enumerate(self._owners)
                if self.tracks[i] == name and not owner.is_alive()
            )
            self._here.track = next(free, len(self.tracks))
            if self._here.track == len(self.tracks):
                self.tracks.append(name)
                self._owners.append(threading.current_thread())
            self._owners[self._here.track] = threading.current_thread()


# Not a ContextVar: the thread that makes the batches must be heard as well.
_recorder: Recorder | None = None
_NOTHING = nullcontext()


class _Open:
    __slots__ = ("_name", "_phase", "_recorder")

    def __init__(self, recorder: Recorder, name: str, phase: bool) -> None:
        self._recorder, self._name, self._phase = recorder, name, phase

    def __enter__(self) -> None:
        self._recorder.open(self._name, self._phase)

    def __exit__(self, *_: object) -> None:
        self._recorder.close()


def span(name: str) -> AbstractContextManager[None]:
    """Record what happens inside under this name, if somebody records."""
    return _NOTHING if _recorder is None else _Open(_recorder, name, phase=False)


def phase(name: str) -> AbstractContextManager[None]:
    """Record what happens inside as a phase of the run (`train`, `step 3`): its spans are added
    up by themselves.
    """
    return _NOTHING if _recorder is None else _Open(_recorder, name, phase=True)


def traced(
    name: str, how: Callable[[str], AbstractContextManager[None]] = span
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Record every call of a function as a span (or a `phase`) of this name."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with how(name):
                return function(*args, **kwargs)

        return run

    return wrap


def is_recording() -> bool:
    """Whether somebody records."""
    return _recorder is not None


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Let the recorder collect the spans of this whole process while inside."""
    global _recorder
    before, _recorder = _recorder, recorder
    try:
        yield recorder
    finally:
        _recorder = before


def trace_events(
    spans: Sequence[Span], tracks: Sequence[str], origin_ns: int, process: str, pid: int = 1
) -> list[dict[str, Any]]:
    """Events of Chrome's trace format, which Perfetto opens: a process with a line for each track,
    microseconds from `origin_ns` on.
    """
    named = [
        ("process_name", 0, process),
        *(("thread_name", i + 1, name) for i, name in enumerate(tracks)),
    ]
    about = [
        {"ph": "M", "name": key, "pid": pid, "tid": tid, "args": {"name": value}}
        for key, tid, value in named
    ]
    return about + [
        {
            "ph": "X",
            "name": one.name,
            "pid": pid,
            "tid": one.track + 1,
            "ts": (one.start_ns - origin_ns) / 1e3,
            "dur": one.duration_ns / 1e3,
        }
        for one in spans
    ]


def trace_json(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A whole trace, as a file of Chrome's trace format holds it."""
    return {"traceEvents": list(events), "displayTimeUnit": "ms"}
