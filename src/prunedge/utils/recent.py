"""What takes long to make is kept as long as there is room, for several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The things that were asked for last, by their keys, up to a total size of `limit`; the last
    one is kept whatever its size.
    """

    def __init__(self, limit: int, size_of: Callable[[T], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._kept: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of that key, made now unless it is there. Several threads that ask for it at
        once wait for one of them to make it; what `make` raises is raised to all of these, and
        nothing is kept.
        """
        with self._lock:
            kept = self._kept.get(key)
            is_there = kept is not None
            if kept is None:
                kept = self._kept[key] = Future()
            self._kept.move_to_end(key)
        if not is_there:
            self._fill(key, kept, make)
        return kept.result()

    def _fill(self, key: Hashable, kept: Future[T], make: Callable[[], T]) -> None:
        try:
            kept.set_result(make())
        except BaseException as error:
            with self._lock:
                self._kept.pop(key, None)
            kept.set_exception(error)
            return
        with self._lock:
            self._make_room()

    def _make_room(self) -> None:
        """Let those go that were asked for least lately."""
        sizes = {}
        for key, kept in self._kept.items():
            if kept.done() and kept.exception() is None:
                sizes[key] = self._size_of(kept.result())
        total = sum(sizes.values())
        last = next(reversed(self._kept))
        for key, size in sizes.items():
            if total <= self._limit:
                return
            if key != last:
                del self._kept[key]
                total -= size
