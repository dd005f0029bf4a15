"""Rank, remove, fine-tune, stop? A generator of turns; it writes nothing and can be stopped and resumed at any point."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import lcm
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import nn

from prunedge.data import Dataset
from prunedge.graph import ChannelGraph, copied, derive, trace
from prunedge.graph.channels import Keeps
from prunedge.graph.plan import Plan
from prunedge.importance import Provenance, Scores, gathered_while_training, identity, rank, refuse_without_norms, weights_digest
from prunedge.models.final_activation import refuse_probabilities
from prunedge.pruning.select import Limits, Ranking, at_limit, choose
from prunedge.surgery.compensate import How, compensate
from prunedge.surgery.slicing import OptimState, Surgery, operate, slice_state
from prunedge.train import Engine, FitRecipe, Metrics, Penalty, evaluate, fit, penalty
from prunedge.train.bootstrap import drop_bounds
from prunedge.train.collapse import largest_class, majority, only_answer, told_of_one_class
from prunedge.train.sparsity import Kind
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.tracing import chapter

log = logging.getLogger(__name__)

HALVINGS = 3
NOTHING_LEFT = "no channel is left"
COLLAPSED = "every validation picture gets the same answer"
GROWTH = 1.5  # of the share that a step removes, where a device is no faster for it


@dataclass(frozen=True)
class Rule:
    """How far to go: every step must stay within `max_drop` points of the first, unpruned network, on validation data.

    With `confidence` (0.5 to 1) a step breaks the rule only when accuracy has dropped by more with that confidence (`drop_bounds`): a
    few pictures by chance don't end the search.

    `step` is the share of the remaining channels that a step removes; it halves whenever a step breaks the rule, at most
    `HALVINGS` times. `target_macs` and `target_params` (shares of the unpruned network's), `target_latency` (milliseconds on the device)
    and `max_steps` end the loop earlier; the step that reaches a target removes no more than it must. Steps before `judged_from` were
    judged by a stricter rule: that they were taken back halves nothing.
    """

    max_drop: float = 3.0
    step: float = 0.1
    metric: str = "accuracy"
    target_macs: float | None = None
    target_params: float | None = None
    max_steps: int | None = None
    confidence: float | None = None
    target_latency: float | None = None
    judged_from: int = 0

    def judged(self, first: Step, after: Metrics | Step, sources: Sequence[str | None], start: Step | None = None) -> tuple[bool, str]:
        """Whether a network with these validation metrics (or a step's) keeps the rule, and what is to be said about it.

        `first` is the unpruned network, `start` the one that the run began with where that is another. A network that answers one class
        whatever it sees breaks every rule, unless one of these did so already: nothing is left in it that could be pruned.
        """
        value = after.metric_after if isinstance(after, Step) else after.value(self.metric)
        only = after.only if isinstance(after, Step) else only_answer(after)
        drop = 100 * (first.metric_after - value)
        # 0.0 - drop: nobody wants to read -0.00
        said = f"{self.metric} {0.0 - drop:+.2f} points against the unpruned network's"
        if start is not None:
            said += f", {100 * (value - start.metric_after):+.2f} against the start's"
        if only is not None and first.only is None and (start is None or start.only is None):
            return False, f"{said}: {COLLAPSED}"
        if self.confidence is None:
            keeps = drop <= self.max_drop + 1e-9
            return keeps, said if keeps else f"{said}: more than {self.max_drop:g} below"
        low, high = drop_bounds(first.correct, after.correct, self.confidence, sources)
        said += f" ({0.0 - high:+.2f} to {0.0 - low:+.2f}, each with {self.confidence:.0%} confidence)"
        keeps = low <= self.max_drop + 1e-9
        return keeps, said if keeps else f"{said}: surely more than {self.max_drop:g} below"

    def enough(self, first: Step, graph: ChannelGraph) -> Callable[[Plan], bool] | None:
        """Whether a plan for a network with this graph reaches a target, `first` being the unpruned one; None without targets."""
        limits = [
            (count, share * whole)
            for count, share, whole in ((graph.macs, self.target_macs, first.macs), (graph.params, self.target_params, first.params))
            if share is not None
        ]
        return (lambda plan: any(count(plan) <= limit for count, limit in limits)) if limits else None


@dataclass(frozen=True)
class Step:
    """One turn of the loop, as it is kept in the history. Step 0 is the network that pruning starts from.

    Metrics are shares (0 to 1) on the validation split, `before` and `after` fine-tuning. `removed` and `channels` count
    prunable channels (channels tied by a residual sum count once); `fraction_removed` is of the first, unpruned
    network's, and `original` its channels: where pruning starts from a network that was pruned before, step 0 has lost some already.
    `rounds` counts the fine-tunings: more than 1 where the first broke the rule.
    `kept` and `original` count the channels that each prunable layer makes. `correct` says which validation pictures were answered right
    (`certainty.packed`). `majority` is what always answering the `largest` class scores by the metric; `only` is the class that the
    network gives every validation picture, None where its answers differ. Where a device steers, `latency_ms` was measured on it for one
    picture, `predicted_ms` predicted before.
    `scored` says where the scores came from: gathered `while training` the network that was cut, or `in a pass` over it. `limited` is
    what is to be said where not the scores but the limit on what a group may lose decides in most groups.
    """

    index: int
    removed: int
    channels: int
    accepted: bool
    reason: str
    fraction_asked: float
    fraction_removed: float
    accuracy_before: float
    accuracy_after: float
    metric_before: float
    metric_after: float
    macs: int
    params: int
    size_mb: float
    seconds_rank: float
    seconds_surgery: float
    seconds_finetune: float
    seconds_evaluate: float
    kept: dict[str, int]
    original: dict[str, int]
    rounds: int = 0
    frozen: list[dict[str, Any]] = field(default_factory=list)
    correct: str = ""
    latency_ms: float | None = None
    predicted_ms: float | None = None
    scored: str = ""
    limited: str = ""
    majority: float | None = None
    largest: int | None = None
    only: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """All that the loop needs to go on from a step: nothing random, nothing hidden.

    `plan` leads from the unpruned network to this one; `scores` are None when they have to be measured first, `graph` when it has to be
    traced.
    """

    network: nn.Module
    plan: Plan
    scores: Scores | None = None
    state: OptimState | None = None
    graph: ChannelGraph | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Turn:
    """What one turn of the loop made."""

    step: Step
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Go:
    """Remove the share `remove` of the channels, starting from the last good network."""

    remove: float


@dataclass(frozen=True)
class Stop:
    """The loop ends, and hands over the step `keep`."""

    reason: str
    keep: int


@dataclass(frozen=True)
class Aids:
    """What helps a network over a removal, beside fine-tuning.

    `compensate` (with `calibration` training pictures) hands what the removed channels gave to their consumers. `regularise` draws channels
    to zero while training, with `strength`; `growing` spends `epochs` before each removal on the channels that are about to leave.
    `teacher` is the network that the recipe's distillation asks.
    """

    compensate: How = "none"
    calibration: int = 256
    regularise: Kind = "none"
    strength: float | None = None
    teacher: nn.Module | None = None


class Device(Protocol):
    """A device that steers the pruning (`prunedge.latency`): milliseconds of one picture on it."""

    @property
    def multiple(self) -> int:
        """The numbers of channels that it likes are multiples of this."""

    def costs(self, network: nn.Module, graph: ChannelGraph) -> dict[str, float]:
        """What one channel of each group costs."""

    def predict(self, network: nn.Module, graph: ChannelGraph, plan: Keeps | None = None) -> float:
        """What the network would take after the plan."""

    def measure(self, network: nn.Module, example: torch.Tensor) -> float:
        """What the network takes."""


@dataclass(frozen=True)
class Workshop:
    """What every turn works with: pictures, engine, recipe of the fine-tuning, criterion, epochs, seed, the plans' limits and ranking,
    aids, and the device whose time is what channels cost.

    A step that breaks the rule is fine-tuned up to `extra_rounds` times more before it is taken back: the smaller network
    trains faster than the one that a step back would return to. `first` is the first, unpruned network as it does on the same validation
    pictures, where pruning starts from one that was pruned before: the rule, the targets and every share refer to it.
    """

    data: Dataset
    engine: Engine
    finetune: FitRecipe
    criterion: str = "taylor"
    epochs: int = 1
    seed: int = 0
    progress: Callable[..., Any] | None = None
    limits: Limits = field(default_factory=Limits)
    extra_rounds: int = 1
    ranking: Ranking = field(default_factory=Ranking)
    aids: Aids = field(default_factory=Aids)
    device: Device | None = None
    first: Step | None = None

    def reference(self, history: Sequence[Step]) -> Step:
        """The first, unpruned network: that of step 0 unless pruning starts from one that was pruned before."""
        return self.first or history[0]


def last_good(steps: Sequence[Step]) -> Step:
    """The last step that kept the rule: the smallest network to hand over."""
    return [step for step in steps if step.accepted][-1]


def decide(steps: Sequence[Step], rule: Rule, first: Step | None = None) -> Go | Stop:
    """What to do after these steps (step 0 first). Pure: the same history gives the same answer.

    `first` is the unpruned network where step 0 is one that was pruned before.
    """
    start, good = first or steps[0], last_good(steps)
    if rule.target_macs is not None and good.macs <= rule.target_macs * start.macs:
        return Stop(f"target reached: {good.macs / start.macs:.1%} of the MACs", good.index)
    if rule.target_params is not None and good.params <= rule.target_params * start.params:
        return Stop(f"target reached: {good.params / start.params:.1%} of the parameters", good.index)
    if rule.target_latency is not None and good.latency_ms is not None and good.latency_ms <= rule.target_latency:
        return Stop(f"target reached: {good.latency_ms:.3g} ms on the device", good.index)
    if rule.max_steps is not None and len(steps) - 1 >= rule.max_steps:
        return Stop(f"{rule.max_steps} steps done ({option('max_steps')})", good.index)
    broken = sum(not step.accepted for step in steps[rule.judged_from :])
    if broken > HALVINGS:
        share = rule.step / 2**HALVINGS
        drops = f"drops {rule.metric} by more than {rule.max_drop:g} points"
        if [step for step in steps if not step.accepted][-1].reason.endswith(COLLAPSED):
            drops = f"leaves a network of which {COLLAPSED}"
        return Stop(f"even a step of {share:.2%} of the channels {drops}", good.index)
    return Go(rule.step / 2**broken)


def turns(
    shop: Workshop, rule: Rule, steps: Sequence[Step], good: Checkpoint, *, stopped: Callable[[Stop], None] | None = None
) -> Iterator[Turn]:
    """Remove, fine-tune and yield, until the rule speaks. `good` is the checkpoint of the last good step.

    Each turn's randomness comes from the seed and the step's number alone, so a loop that is cut off and resumed from its
    last good checkpoint makes the same turns. The final `Stop` goes to `stopped`.
    """
    history = list(steps)
    while isinstance(move := decide(history, rule, shop.first), Go):
        with chapter(f"step {len(history)}"):
            turn = _take(shop, rule, history, good, move)
        if turn is None:
            why = "that makes it faster on the device" if shop.device else "that may be removed"
            move = Stop(f"{NOTHING_LEFT} {why}", last_good(history).index)
            break
        history.append(turn.step)
        if turn.step.accepted:
            good = turn.checkpoint
        yield turn
    if stopped is not None and isinstance(move, Stop):
        stopped(move)


def baseline(
    shop: Workshop,
    network: nn.Module,
    rule: Rule,
    scores: Scores | None = None,
    state: OptimState | None = None,
    *,
    plan: Plan | None = None,
) -> Turn:
    """Step 0: the network to start from, measured on the validation split.

    `scores` are used when their provenance says that they are what this loop would gather (`gathered`), and left otherwise.
    `plan` says how it was pruned before, if it was. It is compared with the shop's `first` network.
    """
    graph, started = trace(network, shop.data.example()), perf_counter()
    metrics = evaluate(network, shop.data.val, shop.engine, shop.data.classes)
    seconds = {"seconds_rank": 0.0, "seconds_surgery": 0.0, "seconds_finetune": 0.0, "seconds_evaluate": perf_counter() - started}
    reason = "the unpruned network"
    if shop.first is not None:
        _, said = rule.judged(shop.first, metrics, [sample.source for sample in shop.data.val.samples])
        reason = f"the start, which was pruned before: {said}"
    step = _step(graph, shop.first, 0, metrics, metrics, rule, seconds, removed=0, accepted=True, reason=reason)
    if shop.device is not None:
        took = distributed.from_first(shop.device.measure(network, shop.data.example()))
        step = replace(step, latency_ms=took, predicted_ms=shop.device.predict(network, graph))
    return Turn(step, Checkpoint(network, plan or Plan({}), scores, state, graph))


def prune(
    network: nn.Module, data: Dataset, *, criterion: str = "taylor", max_drop: float = 3.0, step: float = 0.1, epochs: int = 1,
    target_macs: float | None = None, target_params: float | None = None, max_steps: int | None = None,
    metric: str = "accuracy", seed: int = 0, engine: Engine | None = None, finetune: FitRecipe | None = None,
    limits: Limits | None = None, extra_rounds: int = 1, ranking: Ranking | None = None, aids: Aids | None = None,
    device: Device | None = None, target_latency: float | None = None, confidence: float | None = None,
) -> Iterator[tuple[Step, nn.Module]]:  # fmt: skip
    """The whole loop on a trained network: yields (Step, network) for the unpruned network and after each turn.

    `network` is not changed; one that answers a single class is pruned with a warning. With a `device` (`prunedge.latency.steer`)
    channels cost milliseconds instead of nothing, and the loop ends at `target_latency` of them. With `confidence` (0.5 to 1, of accuracy)
    only a sure drop breaks the rule. The best network is that of the last step whose `accepted` is true. ValueError for a confidence
    outside of its range, or of another metric; ModelError when the network gives probabilities instead of logits.
    """
    if confidence is not None and (metric != "accuracy" or not 0.5 <= confidence < 1):
        raise ValueError(f"confidence is that of accuracy, from 0.5 to below 1, not {confidence} of {metric}")
    from prunedge.train import measure_engine

    refuse_probabilities(network, data.example(4), type(network).__name__)
    if aids is not None and aids.regularise == "bn-l1":
        refuse_without_norms(network, trace(network, data.example()), "regularise='bn-l1'", remedy="use another, such as group-lasso")
    engine = engine or measure_engine(network, data.example())
    shop = Workshop(
        data, engine, replace(finetune or FitRecipe(metric=metric), called="finetune_lr"), criterion, epochs, seed,
        limits=limits or Limits(), extra_rounds=extra_rounds, ranking=ranking or Ranking(), aids=aids or Aids(), device=device,
    )  # fmt: skip
    rule = Rule(max_drop, step, metric, target_macs, target_params, max_steps, confidence, target_latency)
    start = baseline(shop, network, rule)
    if start.step.only is not None:
        log.warning("%s", told_of_one_class(data.classes[start.step.only]))
    yield start.step, start.checkpoint.network
    for turn in turns(shop, rule, (start.step,), start.checkpoint):
        yield turn.step, turn.checkpoint.network


def _take(shop: Workshop, rule: Rule, history: Sequence[Step], good: Checkpoint, move: Go) -> Turn | None:
    example, seed = shop.data.example(), shop.seed * 10_000 + len(history)
    clock = _Clock()
    graph = good.graph or trace(good.network, example)
    clock.lap("surgery")
    kept = _kept(shop, history, good)
    scores = kept or rank(good.network, graph, shop.data.train, shop.criterion, seed=seed, engine=shop.engine)
    clock.lap("rank")
    unjudged = [group.name for group in graph.groups if group.name not in scores.values]
    refused = {
        **dict.fromkeys(unjudged, f"the criterion {shop.criterion} can't judge it"),
        **{frozen["name"]: frozen["reason"] for step in history for frozen in step.frozen},
    }
    choosing = _Choosing(shop, rule, history, good.network, graph, scores, refused)
    plan = choosing.plan(move.remove)
    if shop.aids.regularise == "growing" and plan.keep:
        good = _faded(shop, good, graph, plan, seed)
        clock.lap("finetune")
    surgery, share = operate(good.network, graph, plan), move.remove
    took: float | None = None
    if shop.device is not None:
        clock.lap("surgery")
        surgery, took, share = choosing.faster(good.network, surgery, move.remove)
        clock.lap("evaluate")
    distributed.agree("which channels go", surgery.plan.to_json())
    if not surgery.plan.keep:
        return None
    small = surgery.network
    if shop.aids.compensate != "none":
        calibration = shop.data.train.take(shop.aids.calibration, shop.seed).batches(32)
        compensate(good.network, graph, surgery.plan, small, calibration, shop.aids.compensate)
    small_graph = derive(graph, surgery.plan, small)
    state = slice_state(good.state, graph, surgery.plan) if good.state else None
    clock.lap("surgery")
    before = evaluate(small, shop.data.val, shop.engine, shop.data.classes)
    clock.lap("evaluate")
    collector = gathered_while_training(shop.criterion, small_graph)
    rounds = 0
    while True:
        fitted = fit(
            small, shop.data.train, epochs=shop.epochs, recipe=shop.finetune, engine=shop.engine, seed=seed + 5_000 * rounds,
            val=shop.data.val, state=state, collector=collector, progress=shop.progress, teacher=shop.aids.teacher,
            penalty=_penalty(shop, small_graph),
        )  # fmt: skip
        clock.lap("finetune")
        rounds += 1
        after, state = fitted.val, fitted.state
        assert after is not None
        sources = [sample.source for sample in shop.data.val.samples]
        accepted, reason = rule.judged(shop.reference(history), after, sources, None if shop.first is None else history[0])
        if accepted or rounds > shop.extra_rounds:
            break
    limited = choosing.limited(surgery.plan, share)
    if limited:
        log.warning("step %d: %s", len(history), limited)
    step = _step(
        small_graph, shop.reference(history), len(history), before, after, rule, clock.seconds, removed=surgery.plan.removes(graph),
        accepted=accepted, reason=reason, asked=move.remove, refused={**refused, **surgery.refused}, rounds=rounds,
        scored="while training" if kept else "in a pass", limited=limited,
    )  # fmt: skip
    if shop.device is not None:
        step = replace(step, latency_ms=took, predicted_ms=shop.device.predict(good.network, graph, surgery.plan))
    found = gathered(shop, fitted.net, fitted.collected, distill=shop.finetune.distill)
    return Turn(step, Checkpoint(fitted.net, good.plan.then(surgery.plan), found, fitted.state, small_graph))


def gathered(shop: Workshop, network: nn.Module, scores: Scores | None, *, distill: float = 0.0) -> Scores | None:
    """The scores that a training of the network has gathered, with what they are scores of; None where that can't be told.

    `distill` is the weight of a teacher's answers in the loss of that training.
    """
    if scores is None:
        return None
    settings = gathering(shop, distill)
    provenance = None if settings is None else replace(settings, model=weights_digest(network))
    # Networks of several processes may differ in the last bit.
    provenance = distributed.from_first(provenance)
    return None if provenance is None else replace(scores, provenance=provenance)


def gathering(shop: Workshop, distill: float = 0.0) -> Provenance | None:
    """What scores are that this loop gathers while it trains, of any network; None where the criterion can't be told."""
    criterion = identity(shop.criterion)
    if criterion is None:
        return None
    recipe = shop.finetune
    settings = {"augment": recipe.augment, "batch_size": recipe.batch_size, "label_smoothing": recipe.label_smoothing}
    if distill:
        settings |= {"distill": distill, "temperature": recipe.temperature}
    return Provenance(criterion, "", shop.data.train_fingerprint(), json.dumps(settings))


def _kept(shop: Workshop, history: Sequence[Step], good: Checkpoint) -> Scores | None:
    """The scores that were kept beside the network, if they are what this loop would have gathered while it trained it."""
    if good.scores is None:
        return None
    # The network that the loop began with had no teacher.
    distill = shop.finetune.distill if last_good(history).index else 0.0
    wanted = gathering(shop, distill)
    found = good.scores.provenance
    fits = wanted is not None and found is not None and wanted == replace(found, model="")
    fits = fits and found is not None and found.model == weights_digest(good.network)
    if distributed.from_first(fits):
        return good.scores
    log.info("the scores that are kept of this network are not those of %s with these settings: it is ranked anew", shop.criterion)
    return None


@dataclass(frozen=True)
class _Choosing:
    """What goes in one turn."""

    shop: Workshop
    rule: Rule
    history: Sequence[Step]
    network: nn.Module
    graph: ChannelGraph
    scores: Scores
    refused: Mapping[str, str]

    def plan(self, share: float) -> Plan:
        shop, device = self.shop, self.shop.device
        costs = None if device is None else distributed.from_first(device.costs(self.network, self.graph))
        return choose(
            self.graph, self.scores, share, limits=self._limits(), exclude=self.refused, ranking=shop.ranking, enough=self._enough(),
            costs=costs,
        )  # fmt: skip

    def _limits(self) -> Limits:
        limits, device = self.shop.limits, self.shop.device
        return limits if device is None else replace(limits, multiple=lcm(limits.multiple, device.multiple))

    def limited(self, plan: Plan, share: float) -> str:
        """What is to be said of a plan for this share in which the limit decides in most groups; empty where it doesn't."""
        limits = self._limits()
        bound = at_limit(self.graph, plan, limits, share)
        free = [group for group in self.graph.groups if group.name not in self.refused and not limits.excludes(group)]
        if 2 * len(bound) <= len(free):
            return ""
        cap = limits.most(share)
        named = option("cap", float(f"{cap:g}"))
        said = f"the limit {named} decides in {len(bound)} of {len(free)} groups: they lose all that it lets them"
        if cap <= share:
            return f"{said}, and no step of {share:g} can compare them; leave {option('cap')} out, or set it well above {option('step')}"
        return f"{said}; a larger {option('cap')} lets the scores decide, a smaller {option('step')} asks for less at once"

    def faster(self, network: nn.Module, surgery: Surgery, share: float) -> tuple[Surgery, float | None, float]:
        """The removal, its milliseconds on the device and its share; a larger one where that was no faster, an empty one where none is."""
        device, limit = self.shop.device, min(one.latency_ms for one in self.history if one.accepted and one.latency_ms is not None)
        assert device is not None
        # More than a group may lose in a step of the share that was asked for is another step altogether.
        most = self.shop.limits.most(share)
        while surgery.plan.keep:
            took = distributed.from_first(device.measure(surgery.network, self.shop.data.example()))
            if took < limit:
                return surgery, took, share
            share *= GROWTH
            if share >= most:
                break
            surgery = operate(network, self.graph, self.plan(share))
        return replace(surgery, plan=Plan({})), None, share

    def _enough(self) -> Callable[[Plan], bool] | None:
        """Whether a plan reaches any of the targets."""
        light, device, limit = self.rule.enough(self.shop.reference(self.history), self.graph), self.shop.device, self.rule.target_latency
        if device is None or limit is None:
            return light
        # What it says of this network and what was measured differ by a factor; the plan's will differ by much the same.
        measured = last_good(self.history).latency_ms
        assert measured is not None
        scale = measured / device.predict(self.network, self.graph)
        return lambda plan: bool(light and light(plan)) or scale * device.predict(self.network, self.graph, plan) <= limit


def _penalty(shop: Workshop, graph: ChannelGraph) -> Penalty | None:
    kind = shop.aids.regularise
    return None if kind == "growing" else penalty(kind, graph, shop.aids.strength)


def _faded(shop: Workshop, good: Checkpoint, graph: ChannelGraph, plan: Plan, seed: int) -> Checkpoint:
    """The network after training in which the channels that the plan removes are drawn to zero more and more; `good` stays as it was."""
    leaving = {name: sorted(set(range(graph.group(name).size)) - set(kept)) for name, kept in plan.keep.items()}
    fading = penalty("growing", graph, shop.aids.strength, leaving)
    fitted = fit(
        copied(good.network), shop.data.train, epochs=shop.epochs, recipe=shop.finetune, engine=shop.engine, seed=seed + 2_500,
        state=good.state, progress=shop.progress, teacher=shop.aids.teacher, penalty=fading,
    )  # fmt: skip
    return replace(good, network=fitted.net, state=fitted.state)


def _step(
    graph: ChannelGraph, first: Step | None, index: int, before: Metrics, after: Metrics, rule: Rule, seconds: dict[str, float], *,
    removed: int, accepted: bool, reason: str, asked: float = 0.0, refused: dict[str, str] | None = None, rounds: int = 0, scored: str = "",
    limited: str = "",
) -> Step:  # fmt: skip
    widths = graph.widths()
    original = first.channels if first else graph.channels
    return Step(
        index=index, removed=removed, channels=graph.channels, accepted=accepted, reason=reason,
        fraction_asked=asked, fraction_removed=1 - graph.channels / original,
        accuracy_before=before.accuracy, accuracy_after=after.accuracy,
        metric_before=before.value(rule.metric), metric_after=after.value(rule.metric),
        macs=graph.macs(), params=graph.params(), size_mb=size_mb(graph), scored=scored, limited=limited, **seconds,
        kept=widths, original=first.original if first else widths, rounds=rounds,
        frozen=[{"name": name, "reason": why} for name, why in (refused or {}).items()], correct=after.correct,
        majority=majority(after, rule.metric), largest=largest_class(after), only=only_answer(after),
    )  # fmt: skip


def size_mb(graph: ChannelGraph) -> float:
    """Megabytes (10^6) of the float32 parameters and buffers."""
    return sum(torch.Size(shape).numel() for shape in graph.shapes.values()) * 4 / 1e6


class _Clock:
    """Seconds of each part of a turn."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("seconds_rank", "seconds_surgery", "seconds_finetune", "seconds_evaluate"), 0.0)
        self._last = perf_counter()

    def lap(self, part: str) -> None:
        now = perf_counter()
        self.seconds[f"seconds_{part}"] += now - self._last
        self._last = now
