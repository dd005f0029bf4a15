"""The centreline of a region: its skeleton without the spurs that corners leave, and its length.
Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import numpy as np

SMOOTHINGS = 24  # how often each place of a centreline is drawn between its neighbours
CORNER = 1.5  # times the distance to the edge, which a branch into a corner doesn't reach
SPUR = 2.0  # times the same, below which a side branch is one of a rough edge


class Centreline:
    """A skeleton as places and the steps between them.

    `skeleton` (rows, columns) bool, `distances` (rows, columns) to the nearest place outside.
    """

    def __init__(self, skeleton: np.ndarray, distances: np.ndarray) -> None:
        self._places = np.argwhere(skeleton)  # (n, 2) rows and columns
        self._distances = distances[skeleton]
        self._steps = steps_of(skeleton)
        self._is_kept = np.ones(len(self._places), dtype=bool)

    def points(self) -> np.ndarray:
        """The places that are left, (n, 2) as row and column."""
        return self._places[self._is_kept]

    def distances(self) -> np.ndarray:
        """Their distances to the nearest place outside (n,)."""
        return self._distances[self._is_kept]

    def drop_spurs(self) -> None:
        """Take branches away that are hardly longer than the region is wide where they begin: those
        of a corner's length together, also both at the end of a line, then others one by one.
        """
        spurs = _Spurs(self._steps, self._reach, len(self._places))
        while shortest := spurs.shortest():
            self._is_kept[spurs.drop(shortest)] = False

    def length(self) -> float:
        """The sum of all steps of the smoothed line, and from its ends to the edge."""
        steps = self._steps[self._is_kept[self._steps].all(1)]
        degrees = np.bincount(steps.ravel(), minlength=len(self._places))

        inner = np.flatnonzero(self._is_kept & (degrees == 2))
        beside = _by_place(steps, inner)
        smooth = self._places.astype(np.float64)
        for _ in range(SMOOTHINGS):
            smooth[inner] = (smooth[inner] + smooth[beside].sum(1)) / 3
        drawn = float(np.linalg.norm(smooth[steps[:, 0]] - smooth[steps[:, 1]], axis=1).sum())
        is_end = self._is_kept & (degrees <= 1)
        beyond = (self._distances[is_end] - 0.5) * np.where(degrees[is_end] == 0, 2, 1)
        return drawn + float(beyond.sum())

    def _reach(self, end: int, fork: int) -> float:
        """How far a branch reaches, in distances from its fork to the edge."""
        reach = np.linalg.norm(self._places[end] - self._places[fork])
        return float(reach / self._distances[fork])


class _Spurs:
    """The branches of a skeleton, each from an end to its first fork, while spurs are dropped: only
    branches at a fork that one was dropped from are followed on.

    `steps` (m, 2) are the pairs of places beside each other, of so many `places`; `reach` is how
    far a branch reaches, by its end and its fork.
    """

    def __init__(self, steps: np.ndarray, reach: Callable[[int, int], float], places: int) -> None:
        self._reach = reach
        self._beside: list[list[int]] = [[] for _ in range(places)]  # that are left
        for first, second in steps.tolist():
            self._beside[first].append(second)
            self._beside[second].append(first)
        self._paths: dict[int, list[int]] = {}  # of each end, as far as it was followed
        self._reaches: dict[int, float] = {}  # of each end with a branch
        self._ends: dict[int, set[int]] = defaultdict(set)  # of each fork
        self._queue: list[tuple[float, int]] = []
        for place, others in enumerate(self._beside):
            if len(others) == 1:
                self._follow(place)

    def shortest(self) -> list[int]:
        """The ends of the branches to drop next; none where all are long."""
        chosen: list[int] = []
        shortest = 0.0
        while self._queue:
            reach, end = self._queue[0]
            is_known = self._reaches.get(end) == reach  # or else it was followed on since
            is_spur = reach < SPUR and (not chosen or reach < CORNER or reach == shortest)
            if is_known and not is_spur:
                break
            heappop(self._queue)
            if is_known:
                shortest = shortest if chosen else reach
                chosen.append(end)
                del self._reaches[end]
        return chosen

    def drop(self, ends: Sequence[int]) -> list[int]:
        """Drop their branches: the places that are gone."""
        gone = []
        forks = set()
        for end in ends:
            *branch, fork = self._paths.pop(end)
            gone += branch
            self._beside[fork].remove(branch[-1])
            self._ends[fork].remove(end)
            forks.add(fork)
        for fork in forks:
            degree = len(self._beside[fork])
            if degree > 2:
                continue
            for end in self._ends.pop(fork):
                self._follow(end)
            if degree == 1:
                self._follow(fork)
        return gone

    def _follow(self, end: int) -> None:
        """Follow the path from an end, on from where it was followed to, as far as a fork."""
        path = self._paths.setdefault(end, [end])
        self._reaches.pop(end, None)
        before = path[-2] if len(path) > 1 else -1
        while True:
            onward = [place for place in self._beside[path[-1]] if place != before]
            if len(onward) != 1:
                break
            before = path[-1]
            path.append(onward[0])
        fork = path[-1]
        if len(self._beside[fork]) > 2:
            reach = self._reach(end, fork)
            self._reaches[end] = reach
            self._ends[fork].add(end)
            heappush(self._queue, (reach, end))


def steps_of(skeleton: np.ndarray) -> np.ndarray:
    """The pairs (m, 2) int64 of places beside each other of a skeleton: above, below and at its
    sides, and across a corner where no third one lies between.
    """
    rows, columns = skeleton.shape
    numbers = np.full((rows + 2, columns + 2), -1)
    numbers[1:-1, 1:-1][skeleton] = np.arange(int(skeleton.sum()))
    at_rows, at_columns = np.nonzero(numbers >= 0)
    own = numbers[at_rows, at_columns]
    steps = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = numbers[at_rows + down, at_columns + right]
        is_step = other >= 0
        if down and right:
            is_step &= numbers[at_rows + down, at_columns] < 0
            is_step &= numbers[at_rows, at_columns + right] < 0
        steps.append(np.stack([own[is_step], other[is_step]], axis=1))
    return np.concatenate(steps)


def _by_place(steps: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The two places beside each of these `inner` ones (k, 2), by the steps (m, 2)."""
    both = np.concatenate([steps, steps[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], inner)
    beside: np.ndarray = both[:, 1][starts[:, None] + np.arange(2)]
    return beside
