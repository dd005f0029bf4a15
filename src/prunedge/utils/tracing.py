"""Where the time goes: named spans, nested as the calls are, on every thread.

While nobody records they cost next to nothing.
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
    """A stretch of time on a track.

    `track` is an index into `Recorder.tracks`; `start_ns` counts from where the recorder's clock
    does.
    """

    name: str
    track: int
    start_ns: int
    duration_ns: int


@dataclass(frozen=True)
class Total:
    """What all spans of a place add up to.

    How many, their time without that of the spans inside them, and all of their time.
    """

    count: int
    self_ns: int
    total_ns: int


class Place(NamedTuple):
    """Where spans were.

    The thread's name, the phase of the run (empty: none), the names of the spans from outside in.
    """

    thread: str
    phase: str
    path: tuple[str, ...]


class _Frame:
    __slots__ = ("inside_ns", "place", "start_ns")

    def __init__(self, place: Place, start_ns: int) -> None:
        self.place = place
        self.start_ns = start_ns
        self.inside_ns = 0


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
        self._most = most
        self._clock = clock
        self._shortest_ns = 0
        self._owners: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._here = _Thread()
        self._own_track(MAIN)

    def open(self, name: str, phase: bool = False) -> None:
        """A span begins on this thread."""
        here = self._here
        if here.track is None:
            self._own_track(threading.current_thread().name)
        assert here.track is not None

        outer = Place(self.tracks[here.track], "", ())
        if here.stack:
            outer = here.stack[-1].place
        if phase:
            place = Place(outer.thread, name, ())
        else:
            place = Place(outer.thread, outer.phase, (*outer.path, name))
        here.stack.append(_Frame(place, self._clock()))

    def close(self) -> None:
        """The span that was opened last on this thread ends."""
        here = self._here
        frame = here.stack.pop()
        duration_ns = self._clock() - frame.start_ns
        if here.stack:
            here.stack[-1].inside_ns += duration_ns

        place = frame.place
        name = place.path[-1] if place.path else place.phase
        assert here.track is not None
        with self._lock:
            before = self.totals.get(place, Total(0, 0, 0))
            self_ns = before.self_ns + duration_ns - frame.inside_ns
            total_ns = before.total_ns + duration_ns
            self.totals[place] = Total(before.count + 1, self_ns, total_ns)
            self._keep(Span(name, here.track, frame.start_ns, duration_ns))

    def _keep(self, span: Span) -> None:
        if span.duration_ns < self._shortest_ns:
            self.left_out += 1
            return
        self.spans.append(span)
        if len(self.spans) > self._most:
            # Whatever holds a span that stays is longer than it, and stays as well.
            durations = sorted(span.duration_ns for span in self.spans)
            self._shortest_ns = durations[len(durations) // 2] + 1
            kept = [span for span in self.spans if span.duration_ns >= self._shortest_ns]
            self.left_out += len(self.spans) - len(kept)
            self.spans = kept

    def _own_track(self, name: str) -> None:
        """Give this thread a track: that of an ended thread of the same name, or a new one."""
        with self._lock:
            for track, owner in enumerate(self._owners):
                if self.tracks[track] == name and not owner.is_alive():
                    self._owners[track] = threading.current_thread()
                    break
            else:
                track = len(self.tracks)
                self.tracks.append(name)
                self._owners.append(threading.current_thread())
            self._here.track = track


# Not a ContextVar: the spans of the thread that makes the batches are recorded as well.
_recorder: Recorder | None = None
_NOTHING = nullcontext()


class _Open:
    __slots__ = ("_name", "_phase", "_recorder")

    def __init__(self, recorder: Recorder, name: str, phase: bool) -> None:
        self._recorder = recorder
        self._name = name
        self._phase = phase

    def __enter__(self) -> None:
        self._recorder.open(self._name, self._phase)

    def __exit__(self, *_: object) -> None:
        self._recorder.close()


def span(name: str) -> AbstractContextManager[None]:
    """Record what happens inside under this name, if somebody records."""
    return _NOTHING if _recorder is None else _Open(_recorder, name, phase=False)


def phase(name: str) -> AbstractContextManager[None]:
    """Record what happens inside as a phase of the run (`train`, `step 3`).

    Its spans are added up by themselves.
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
    before = _recorder
    _recorder = recorder
    try:
        yield recorder
    finally:
        _recorder = before


def trace_events(
    spans: Sequence[Span], tracks: Sequence[str], origin_ns: int, process: str, pid: int = 1
) -> list[dict[str, Any]]:
    """Events of Chrome's trace format, which Perfetto opens.

    A process with a line for each track, microseconds from `origin_ns` on.
    """
    events = [_name_event("process_name", pid, 0, process)]
    for track, name in enumerate(tracks):
        events.append(_name_event("thread_name", pid, track + 1, name))
    for span in spans:
        event = {
            "ph": "X",
            "name": span.name,
            "pid": pid,
            "tid": span.track + 1,
            "ts": (span.start_ns - origin_ns) / 1e3,
            "dur": span.duration_ns / 1e3,
        }
        events.append(event)
    return events


def _name_event(key: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    """The event that names a process or a thread."""
    return {"ph": "M", "name": key, "pid": pid, "tid": tid, "args": {"name": name}}


def trace_json(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A whole trace, as a file of Chrome's trace format holds it."""
    return {"traceEvents": list(events), "displayTimeUnit": "ms"}
