"""Which channels go: scores and a budget in, a `Plan` out. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import floor, inf

import torch

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, Group
from prunedge.graph.channels import require_graph
from prunedge.graph.plan import Plan
from prunedge.importance import NORMALISERS, Scores, normalised
from prunedge.pruning.allocate import Portion, order_by_loss
from prunedge.utils.arguments import is_number, require
from prunedge.utils.tracing import traced
from prunedge.utils.wording import counted


@dataclass(frozen=True)
class PlanConstraints:
    """What a plan may do to a group.

    `ignore` holds patterns (`*`, `?`, `[...]`) of group or layer names that keep all their
    channels. A group keeps at least `min_channels` channels, loses at most the share `max_ratio` in
    one plan (a global ranking would otherwise empty a layer at one go), and what it keeps is a
    multiple of `round_to` (8 or 16 suits many devices' vector units) wherever it loses any. Without
    a `max_ratio`, `most` follows from the share that the plan removes.
    """

    ignore: tuple[str, ...] = ()
    min_channels: int = 2
    round_to: int = 1
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ignore, str) or not all(
            isinstance(pattern, str) for pattern in self.ignore
        ):
            raise TypeError(
                f"ignore is a tuple of patterns, such as ('layer1.*',), not {self.ignore!r}"
            )
        for name in ("min_channels", "round_to"):
            value = getattr(self, name)
            if not is_number(value, whole=True):
                raise TypeError(f"{name} is a whole number, 1 or more, not {value!r}")
        if self.max_ratio is not None and not is_number(self.max_ratio):
            raise TypeError(f"max_ratio is a number above 0 and at most 1, not {self.max_ratio!r}")
        if (
            self.min_channels < 1
            or self.round_to < 1
            or (self.max_ratio is not None and not 0 < self.max_ratio <= 1)
        ):
            raise ValueError(
                "min_channels and round_to must be 1 or more and max_ratio in (0, 1], not "
                f"{self.min_channels}, {self.round_to}, {self.max_ratio}"
            )

    def most(self, remove: float, *, of_cost: bool = False) -> float:
        """The largest share that a group may lose in a plan that removes the share `remove` of all
        channels; all but `min_channels` where it removes that share `of_cost`, as what costs
        nothing may all have to leave.

        Without a `max_ratio` it is half, or twice the share where that is more, so that groups
        still compare; and a group keeps at least a quarter of what it would keep if all lost alike.
        (A limit equal to the share would take that share of every group.)
        """
        if self.max_ratio is not None:
            return self.max_ratio
        if of_cost:
            return 1.0
        return max(0.5, min(2 * remove, 1 - (1 - remove) / 4))

    def allows_any(self, group: Group) -> bool:
        """Whether a plan may take a channel of the group, and leave a size that is allowed."""
        if self.excludes(group):
            return False
        return bool(_portions([0.0] * group.size, self, self.most(0.5)))

    def excludes(self, group: Group) -> bool:
        """Whether the group keeps all its channels."""
        own = [part.tensor for part in group.slices if part.role != "in"]
        names = {group.name, *own, *(tensor.rpartition(".")[0] for tensor in own)}
        return any(fnmatchcase(name, pattern) for pattern in self.ignore for name in names)


@dataclass(frozen=True)
class ScoreScaling:
    """How the scores of different groups compare.

    They are put on one scale by `normalise` (`importance.NORMALISERS`), then made to count what the
    channels cost: `macs_penalty` (lambda) takes lambda times a channel's share of the model's
    MACs off its score (Molchanov et al. 2017, section 2.3, FLOPs regularisation), `per_mac` divides
    the score by that share. With `per_layer` groups are not compared at all: each loses the same
    share of its own, its least important, and one at the least.
    """

    normalise: str = "l2"
    per_layer: bool = False
    macs_penalty: float = 0.0
    per_mac: bool = False

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISERS:
            raise ValueError(
                f"normalise must be one of {', '.join(NORMALISERS)}, not {self.normalise}"
            )
        if not is_number(self.macs_penalty):
            raise TypeError(f"macs_penalty is a number, 0 or more, not {self.macs_penalty!r}")
        if not 0 <= self.macs_penalty < inf:
            raise ValueError(f"macs_penalty must be 0 or more, and finite, not {self.macs_penalty}")
        if self.macs_penalty and self.per_mac:
            raise ValueError("macs_penalty and per_mac are two ways to count the costs: choose one")

    def values(self, graph: ChannelGraph, scores: Scores) -> dict[str, torch.Tensor]:
        """The comparable scores of each group that was judged, (channels,) float64."""
        scaled = normalised(
            {
                group.name: scores.values[group.name]
                for group in graph.groups
                if group.name in scores.values
            },
            self.normalise,
        )
        if not self.macs_penalty and not self.per_mac:
            return scaled
        total = max(1, graph.macs())
        for group in graph.groups:
            if group.name in scaled:
                share = graph.macs_of(group) / group.size / total
                value = scaled[group.name] - self.macs_penalty * share
                scaled[group.name] = value / max(share, 1e-12) if self.per_mac else value
        return scaled


@traced("choose")
def choose(
    graph: ChannelGraph,
    scores: Scores,
    remove: float = 0.1,
    *,
    constraints: PlanConstraints | None = None,
    exclude: Collection[str] = (),
    scaling: ScoreScaling | None = None,
    enough: Callable[[Plan], bool] | None = None,
    total_cost: Callable[[Plan | None], float] | None = None,
) -> Plan:
    """Remove the share `remove` of the graph's channels that matter least, within the
    `constraints`.

    All groups are compared at once, as the `scaling` says (by default each divided by its Euclidean
    norm). With a `total_cost` (what the model costs after a plan: milliseconds on a device, say)
    the share `remove` is of that, and not of the channels; as much goes as may where that saves
    less. Channels then go by what they take of their group's importance for what they save
    (`allocate.order_by_loss`), whatever the scale of the scores.

    Groups in `exclude`, and those that have no scores, keep all. At least one channel goes if any
    may; a plan that removes nothing has an empty `keep`. Equal scores go in the graph's order, so
    that the same scores always make the same plan. Where a smaller share is `enough` already (a
    plan with more removed must then be enough as well), no more than the least that is goes.

    ValueError when `remove` lies outside (0, 1), PrunedgeError when the scores are
    those of a model of other widths.
    """
    require_graph(graph)
    require("scores", scores, Scores, "the Scores that prunedge.rank(...) gives")
    require("remove", remove, (int, float), "a share, above 0 and below 1")
    if not 0 < remove < 1:
        raise ValueError(f"remove must lie between 0 and 1, not {remove}")
    constraints = constraints or PlanConstraints()
    scaling = scaling or ScoreScaling()
    require("constraints", constraints, PlanConstraints, "a PlanConstraints")
    require("scaling", scaling, ScoreScaling, "a ScoreScaling")
    _fitting(graph, scores)
    values = scaling.values(graph, scores)
    open_groups = [
        group
        for group in graph.groups
        if group.name in values and group.name not in exclude and not constraints.excludes(group)
    ]
    most_of_a_group = constraints.most(remove, of_cost=total_cost is not None)
    portions = [
        (mean, group, portion)
        for group in open_groups
        for mean, portion in _portions(values[group.name].tolist(), constraints, most_of_a_group)
    ]
    if total_cost is not None:
        goal = (1 - remove) * total_cost(None)
        ordered = order_by_loss(portions, values, total_cost, goal)
    elif scaling.per_layer:
        ordered = portions
    else:
        ordered = sorted(portions, key=lambda portion: portion[0])
    total = sum(group.size for group in open_groups)

    def plan(share: float) -> Plan:
        gone = (
            _same_share(ordered, share)
            if scaling.per_layer
            else _first(ordered, max(1, round(share * total)))
        )
        return Plan(
            {
                group.name: _rest(group.size, gone[group.name])
                for group in open_groups
                if group.name in gone
            }
        )

    if total_cost is not None:
        enough = _saved(total_cost, remove, enough)
        remove = 1.0
    most = plan(remove)
    if enough is None or not enough(most):
        return most
    # In channels: the least that is enough lies above `low`; `high` is enough, as all of `most` is.
    low = 0
    high = floor(remove * total) + 1
    smallest = most
    while high - low > 1:
        middle = (low + high) // 2
        candidate = plan(middle / total)
        if enough(candidate):
            high = middle
            smallest = candidate
        else:
            low = middle
    return smallest


def _saved(
    total_cost: Callable[[Plan | None], float],
    remove: float,
    enough: Callable[[Plan], bool] | None,
) -> Callable[[Plan], bool]:
    """Whether a plan saves this share of the cost, or is enough already."""
    allowed = (1 - remove) * total_cost(None)

    def is_enough(plan: Plan) -> bool:
        return total_cost(plan) <= allowed or (enough is not None and enough(plan))

    return is_enough


def at_limit(
    graph: ChannelGraph, plan: Plan, constraints: PlanConstraints, most: float
) -> tuple[str, ...]:
    """The groups that lose the share `most`, which is all that `PlanConstraints.most` lets them,
    though they could lose more: there the limit decides, and not the scores.

    `plan` is what `choose` made with these constraints.
    """
    names = []
    for name, kept in plan.keep.items():
        size = graph.group(name).size
        lost = size - len(kept)
        allowed = max(1, floor(most * size))
        if lost and allowed < lost + constraints.round_to <= size - min(
            constraints.min_channels, size
        ):
            names.append(name)
    return tuple(names)


def _fitting(graph: ChannelGraph, scores: Scores) -> None:
    """Refuse scores that have another number of channels than the graph: they would name the wrong
    ones.
    """
    for group in graph.groups:
        if group.name in scores.values and len(scores.values[group.name]) != group.size:
            what = (
                f"the group '{group.name}' has {counted(group.size, 'channel')}, and there are "
                f"{len(scores.values[group.name])} scores for it"
            )
            raise PrunedgeError(what, remedy="rank the model that the graph was traced from")


def _same_share(portions: Sequence[Portion], share: float) -> dict[str, list[int]]:
    """The share of each group, and a portion at the least."""
    gone: dict[str, list[int]] = {}
    for _, group, portion in portions:
        out = gone.get(group.name, [])
        if len(out) + len(portion) <= max(len(portion), round(share * group.size)):
            gone[group.name] = out + portion
    return gone


def _first(portions: Sequence[Portion], wanted: int) -> dict[str, list[int]]:
    """The first portions, of so many channels in all; one at the least."""
    gone: dict[str, list[int]] = {}
    for _, group, portion in portions:
        if wanted <= 0 or (gone and len(portion) > wanted):
            break
        gone.setdefault(group.name, []).extend(portion)
        wanted -= len(portion)
    return gone


def _portions(
    values: Sequence[float], constraints: PlanConstraints, max_ratio: float
) -> list[tuple[float, list[int]]]:
    """What a group may lose, least important first, in portions after each of which its size is
    fine; (mean score, channels).
    """
    size = len(values)
    order = sorted(range(size), key=lambda channel: (values[channel], channel))
    most = min(size - min(constraints.min_channels, size), max(1, floor(max_ratio * size)))
    portions: list[tuple[float, list[int]]] = []
    start = 0
    while start < size:
        end = start + ((size - start) % constraints.round_to or constraints.round_to)
        # One portion may exceed the largest share where it is the least that a multiple allows.
        if end > (
            most
            if portions or constraints.round_to == 1
            else size - max(constraints.min_channels, constraints.round_to)
        ):
            break
        portion = order[start:end]
        portions.append((sum(values[channel] for channel in portion) / len(portion), portion))
        start = end
    return portions


def random_plan(
    graph: ChannelGraph, share: float, generator: torch.Generator, *, least: int = 1
) -> Plan:
    """Remove the share `share` of every group, drawn at random; every group keeps at least `least`
    channels (or all it has).
    """
    keep: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        stay = min(group.size, max(least, round(group.size * (1 - share))))
        if stay < group.size:
            keep[group.name] = tuple(
                sorted(torch.randperm(group.size, generator=generator)[:stay].tolist())
            )
    return Plan(keep)


def _rest(size: int, out: Collection[int]) -> tuple[int, ...]:
    return tuple(sorted(set(range(size)) - set(out)))
