"""The baselines of a run beside its result, as they were measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunedge.config.small_networks import SmallNetwork
from prunedge.latency.side_by_side import Milliseconds
from prunedge.pruning.from_config import watched_metric
from prunedge.tasks import Metric

if TYPE_CHECKING:
    from prunedge.runs.run import Run

TIMES = "times.json"  # of the small networks beside the unpruned and the pruned model


@dataclass(frozen=True)
class Compared:
    """A model that was taught beside the result: its costs, how long an image takes, and the metric
    on validation and test data; None where it wasn't measured. `network` is a small one's.
    """

    name: str
    network: SmallNetwork | None
    epochs: int
    macs: int
    params: int
    size_mb: float
    ms: Milliseconds | None
    val: float
    test: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return {**asdict(self), "network": None if self.network is None else self.network.model}


def compared(run: Run) -> list[Compared]:
    """The baselines and the small networks of a run, as far as they are trained."""
    metric = run.config.task.metric
    tested = (run.test() or {}).get("baselines") or {}
    ms = times(run)
    listed = []
    for name, record in (run.read("baselines.json") or {}).items():
        is_small = name in run.config.prune.small
        made = Compared(
            name=name,
            network=SmallNetwork.parse(name) if is_small else None,
            epochs=record["epochs"],
            macs=record["macs"],
            params=record["params"],
            size_mb=record["size_mb"],
            ms=ms.get(name),
            val=record["val"][metric],
            test=tested.get(name, {}).get(metric),
        )
        listed.append(made)
    return listed


def times(run: Run) -> dict[str, Milliseconds]:
    """How long an image takes of the unpruned model (`baseline`), the pruned one (`best`) and each
    small network; empty where they weren't timed.
    """
    record = run.read(TIMES) or {"ms": {}}
    return {name: Milliseconds(**ms) for name, ms in record["ms"].items()}


def better(run: Run) -> Compared | None:
    """The small network that makes the pruning needless: at least as good on test data as the
    pruned model, and at most as slow. The best of them, the fastest of those that are as good; None
    where there is none.
    """
    metric = watched_metric(run.config)
    test = run.test()
    best_ms = times(run).get("best")
    if test is None or best_ms is None:
        return None
    found = [
        each
        for each in compared(run)
        if _is_better(each, metric, test["best"][metric.name], best_ms)
    ]
    return max(found, key=lambda each: _rank(each, metric), default=None)


def _is_better(each: Compared, metric: Metric, best: float, best_ms: Milliseconds) -> bool:
    if each.network is None or each.test is None or each.ms is None:
        return False
    is_as_good = metric.order(each.test) >= metric.order(best)
    return is_as_good and each.ms.median <= best_ms.median


def _rank(each: Compared, metric: Metric) -> tuple[float, float]:
    assert each.test is not None
    assert each.ms is not None
    return metric.order(each.test), -each.ms.median
