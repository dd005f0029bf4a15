"""The loop's decisions, and whole loops on tiny images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from prunedge import data as images
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.pruning.context import PruneContext
from prunedge.pruning.costs import cost_of
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import COLLAPSED, Continue, Finished, StopPolicy
from prunedge.pruning.polish import to_polish
from prunedge.pruning.prune import prune as prune_and_polish
from prunedge.pruning.record import step_zero
from prunedge.pruning.select import PlanConstraints
from prunedge.pruning.steps import (
    Step,
    doubts,
    handed_over,
    last_accepted,
    lineage,
    may_be_polished,
)
from prunedge.pruning.task_trainer import TaskTrainer
from prunedge.pruning.trainer import Judgement
from prunedge.tasks import OF_BATCHES, Metrics, packed
from prunedge.train import TrainConfig, evaluate, make_engine
from tests.importance.folded import SharedTable
from tests.small_models import Plain, Residual, randomise

prune = partial(prune_and_polish, polish=0)  # most tests are of the search
RULE = StopPolicy(ACCURACY, max_drop=3.0, step_ratio=0.4)
BOLD = replace(RULE, step_ratio=0.75)
START = Step(
    index=0,
    removed=0,
    channels=100,
    accepted=True,
    keeps_rule=True,
    reason="",
    fraction_asked=0.0,
    fraction_removed=0.0,
    metrics_before={"accuracy": 0.9},
    metrics={"accuracy": 0.9},
    metric_before=0.9,
    metric_after=0.9,
    macs=1000,
    params=1000,
    size_mb=1.0,
    seconds_rank=0.0,
    seconds_surgery=0.0,
    seconds_finetune=0.0,
    seconds_evaluate=0.0,
    kept={},
    original={},
)


def gentle(data: images.Dataset) -> TaskTrainer:
    """A trainer that changes hardly anything."""
    return TaskTrainer(data, make_engine("32"), TrainConfig(lr=1e-6, batch_size=8))


def judgement(metrics: Metrics) -> Judgement:
    """What the rule asks of a classifier that was just measured."""
    return Judgement(
        values=metrics.values,
        value=metrics.value("accuracy"),
        correct=metrics.correct,
        only_answer=OF_BATCHES.only_answer(metrics),
    )


def history(*outcomes: bool, macs: int = 500) -> list[Step]:
    later = [
        replace(START, index=i, start=i - 1, accepted=good, keeps_rule=good, macs=macs, params=macs)
        for i, good in enumerate(outcomes, 1)
    ]
    return [START, *later]


def minutes(*spent: float) -> list[Step]:
    """Accepted steps of two epochs that took so long."""
    steps = []
    for step, taken in zip(history(*[True] * len(spent))[1:], spent, strict=True):
        steps.append(replace(step, epochs=2, seconds_finetune=60 * taken))
    return [START, *steps]


@pytest.mark.parametrize(
    ("steps", "rule", "move"),
    [
        (history(), RULE, Continue(0.4)),
        (history(True, True), RULE, Continue(0.4)),
        (history(True, False), BOLD, Continue(0.5)),
        (history(False, True, False, True), BOLD, Continue(1 - 0.25**0.25)),
        (history(True, False, False, False), BOLD, Continue(1 - 0.25**0.125)),
        (
            history(True),
            replace(RULE, target_macs=0.5),
            Finished("target reached: 50.0% of the MACs", 1),
        ),
        (history(True), replace(RULE, target_macs=0.4), Continue(0.4)),
        (
            history(False),
            replace(BOLD, target_macs=0.5),
            Continue(0.5),
        ),  # what broke the rule reaches no target
        (
            history(True, True),
            replace(RULE, target_params=0.6),
            Finished("target reached: 50.0% of the parameters", 2),
        ),
        (
            history(True, False),
            replace(RULE, max_steps=2),
            Finished("2 steps done (max_steps=)", 1),
        ),
        (
            [*history(True), replace(START, index=2, start=1, is_polish=True)],
            replace(RULE, max_steps=2),
            Continue(0.4),  # a polish is no step of the search
        ),
        (minutes(1.0, 0.5), replace(RULE, budget=2.0), Continue(0.4)),
        (
            minutes(1.0, 0.5),
            replace(RULE, budget=1.9),
            Finished(
                "1.5 minutes spent, and another step would pass the limit (budget='1.9min')", 2
            ),
        ),
        (  # an epoch of the last step took 15 seconds
            minutes(1.0, 0.5),
            replace(RULE, budget=2.0, polish=1),
            Finished("1.5 minutes spent, and another step would pass the limit (budget='2min')", 2),
        ),
    ],
)
def test_decisions(steps: list[Step], rule: StopPolicy, move: Continue | Finished) -> None:
    assert rule.next_action(steps) == move


def test_the_loop_gives_up_after_three_halvings_and_keeps_the_last_good() -> None:
    stop = RULE.next_action(history(True, False, False, True, False, False))
    assert isinstance(stop, Finished)
    assert stop.keep == 4
    assert "6.19%" in stop.reason  # 1 - 0.6 ** (1 / 8)


def test_a_step_to_one_answer_breaks_every_rule_unless_the_start_had_one_already() -> None:
    generous, collapsed = (
        StopPolicy(ACCURACY, max_drop=100.0),
        replace(START, index=1, metric_after=0.9, only_answer=1),
    )
    verdict = generous.accepts(START, Judgement.of_step(collapsed), [])
    assert not verdict.accepted
    assert not verdict.keeps_rule
    assert COLLAPSED in verdict.reason
    # So does one that confidence would let pass, and the same as a training's metrics.
    metrics = Metrics(
        loss=1.0,
        values={"accuracy": 0.5},
        n=10,
        correct=packed([0] * 5 + [1] * 5),
        details={"confusion": [[0, 5], [0, 5]]},
    )
    outcome = judgement(metrics)
    assert not generous.accepts(START, outcome, []).accepted
    assert generous.accepts(
        replace(START, only_answer=1), Judgement.of_step(collapsed), []
    ).accepted
    assert generous.accepts(
        START, Judgement.of_step(collapsed), [], replace(START, only_answer=0)
    ).accepted


def test_a_search_that_ends_in_one_answer_says_so() -> None:
    broken = [
        replace(step, reason=f"accuracy +0.00 points: {COLLAPSED}", only_answer=0)
        for step in history(False, False, False, False)[1:]
    ]
    stop = StopPolicy(ACCURACY, max_drop=100.0, step_ratio=0.4).next_action([START, *broken])
    assert isinstance(stop, Finished)
    assert COLLAPSED in stop.reason
    assert "drops" not in stop.reason


def undecided(data: images.Dataset) -> nn.Module:
    """A model that gives each of two answers to half of the images."""
    return balanced(randomise(Residual()), data)


def silence(model: Any) -> None:
    """Let the last layer forget what it reads: only its bias speaks."""
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(len(model.head.bias)))


def balanced(model: Any, data: images.Dataset) -> nn.Module:
    """The model with a bias that gives half of the images each answer."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(images) for images, _ in data.val.batches(4)])
        model.head.bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    return model


def test_a_step_after_which_the_model_has_one_answer_is_taken_back(
    data: images.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fine-tuning does, the last layer has forgotten it: only the bias speaks."""
    import prunedge.pruning.task_trainer

    fit = prunedge.pruning.task_trainer.fit
    rates: list[float] = []
    starts: list[torch.Tensor] = []

    def silencing(net: Any, train: object, **how: Any) -> object:
        rates.append(how["config"].lr)
        starts.append(net.head.weight.detach().clone())
        fitted = fit(net, train, **{**how, "epochs": 0})
        silence(net)
        return replace(fitted, val=evaluate(net, data.val, make_engine("32")))

    monkeypatch.setattr(prunedge.pruning.task_trainer, "fit", silencing)
    model = undecided(data)
    rules = {"step_ratio": 0.3, "max_drop": 100.0, "max_steps": 1, "criterion": "random"}
    steps = [step for step, _ in prune(model, data, engine=make_engine("32"), **rules)]
    assert steps[0].only_answer is None
    assert steps[1].only_answer is not None
    assert not steps[1].accepted
    assert COLLAPSED in steps[1].reason
    # One answer is no start for another round: it began with the model as it was cut. Twice is enough.
    assert rates == [0.01, 0.003]
    assert steps[1].reason.endswith("learning rate 0.003, since 0.01 ended in one answer")
    assert all(torch.equal(starts[0], start) for start in starts[1:])


def test_a_fine_tuning_that_ends_in_one_answer_is_begun_anew_at_a_lower_rate(
    data: images.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prunedge.pruning.task_trainer

    fit = prunedge.pruning.task_trainer.fit
    rates: list[float] = []

    def silencing_once(net: Any, train: object, **how: Any) -> object:
        rates.append(how["config"].lr)
        fitted = fit(net, train, **{**how, "epochs": 0})
        if len(rates) > 1:
            balanced(net, data)
        else:
            silence(net)
        return replace(fitted, val=evaluate(net, data.val, make_engine("32")))

    monkeypatch.setattr(prunedge.pruning.task_trainer, "fit", silencing_once)
    model = undecided(data)
    rules = {"step_ratio": 0.3, "max_drop": 100.0, "max_steps": 1, "criterion": "random"}
    steps = [
        step
        for step, _ in prune(model, data, engine=make_engine("32"), polish=0, epochs=1, **rules)
    ]
    assert rates == [0.01, 0.003]
    assert steps[1].accepted
    assert steps[1].reason.endswith("; learning rate 0.003, since 0.01 ended in one answer")


def test_a_fine_tuning_is_judged_by_its_last_epoch(
    data: images.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prunedge.pruning.task_trainer

    fit = prunedge.pruning.task_trainer.fit
    judged: list[bool] = []

    def watched(net: Any, train: object, **how: Any) -> object:
        judged.append(how.get("val") is not None)
        return fit(net, train, **how)

    monkeypatch.setattr(prunedge.pruning.task_trainer, "fit", watched)
    engine = make_engine("32")
    rules = {"step_ratio": 0.3, "max_drop": 100.0, "max_steps": 1, "criterion": "random"}
    made = list(prune(randomise(Residual()), data, engine=engine, polish=2, epochs=3, **rules))
    assert judged == [False, False]
    for step, model in made[1:]:
        # What the model that is handed on gets right is what the history says.
        assert step.metrics["accuracy"] == evaluate(model, data.val, engine).accuracy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    from tests.tiny_images import write_tiny

    root = write_tiny(tmp_path_factory.mktemp("images"))
    return images.load(root, size=16, cache_dir=tmp_path_factory.mktemp("cache"))


def test_a_whole_loop_shrinks_the_model_and_leaves_the_first_alone(
    data: images.Dataset,
) -> None:
    model = randomise(Residual())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = list(
        prune(
            model,
            data,
            step_ratio=0.3,
            max_drop=100.0,
            max_steps=3,
            engine=make_engine("32"),
            finetune=TrainConfig(lr=0.01, batch_size=8),
        )
    )
    assert [step.index for step, _ in found] == [0, 1, 2, 3]
    for (earlier, _), (step, small) in pairwise(found):
        assert step.accepted
        assert step.channels == earlier.channels - step.removed
        assert step.macs < earlier.macs
        assert step.params == sum(p.numel() for p in small.parameters())
        assert step.kept["a"] == small.a.out_channels
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_with_confidence_only_a_sure_drop_is_taken_back_and_only_the_rule_hands_over() -> None:
    right = [True] * 90 + [False] * 10
    start = replace(START, metric_after=0.9, correct=packed(right))
    sources = [None] * 100
    sure = StopPolicy(ACCURACY, max_drop=3.0, confidence=0.95)
    plain = replace(sure, confidence=None)
    for wrong_now, keeps, goes_on in ((0, True, True), (4, False, True), (30, False, False)):
        after = _metrics([False] * wrong_now + right[wrong_now:])
        outcome = judgement(after)
        assert plain.accepts(start, outcome, sources).accepted is keeps
        verdict = sure.accepts(start, outcome, sources)
        assert verdict.accepted is goes_on
        assert verdict.keeps_rule is keeps
        assert "one-sided 95 % bounds" in verdict.reason
        assert ("maybe by chance" in verdict.reason) == (goes_on and not keeps)


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.95, ", surely more than 3 below"),
        (0.9, ", surely more than 3 below"),
        (0.6, ", more than 3 below with 60 % confidence"),
        (0.5, ", more than 3 below with 50 % confidence"),
    ],
)
def test_only_what_is_sure_is_called_so(confidence: float, words: str) -> None:
    right = [True] * 90 + [False] * 10
    start = replace(START, metric_after=0.9, correct=packed(right))
    after = judgement(_metrics([False] * 30 + right[30:]))
    rule = StopPolicy(ACCURACY, max_drop=3.0, confidence=confidence)
    reason = rule.accepts(start, after, [None] * 100).reason
    assert reason.endswith(f"one-sided {100 * confidence:g} % bounds){words}")
    assert ":" not in reason


def test_the_third_model_in_a_row_beyond_the_rule_is_no_chance() -> None:
    right = [True] * 90 + [False] * 10
    start = replace(START, metric_after=0.9, correct=packed(right))
    after = judgement(_metrics([False] * 4 + right[4:]))
    rule = StopPolicy(ACCURACY, max_drop=3.0, confidence=0.95)
    for before, goes_on in ((0, True), (1, True), (2, False)):
        verdict = rule.accepts(start, after, [None] * 100, doubts=before)
        assert verdict.accepted is goes_on
        assert not verdict.keeps_rule
    assert verdict.reason.endswith("after 2 in a row beyond the rule again more than 3 below")
    steps = [*history(True, True, True), _judged(4, 3, "d"), _judged(5, 4, "-")]
    assert doubts(steps) == 1
    assert doubts([*steps, _judged(6, 4, "d")]) == 2
    assert doubts(steps[:4]) == 0


def test_what_is_handed_over_keeps_the_rule_though_the_search_went_further() -> None:
    steps = [*history(True, True), replace(history(True)[1], index=3, start=2, keeps_rule=False)]
    assert last_accepted(steps).index == 3
    assert handed_over(steps).index == 2
    stop = replace(RULE, max_steps=3).next_action(steps)
    assert stop == Finished("3 steps done (max_steps=)", 2)
    assert [step.index for step in lineage(steps, 2)] == [1, 2]


@pytest.mark.parametrize(
    ("verdicts", "polished", "wanted"),
    [
        ("", "", None),  # nothing was pruned
        ("-", "", None),
        ("kk", "", 2),
        ("kk-", "", 2),
        ("kd", "", 2),  # beyond the rule, maybe by chance: polishing may bring it back
        ("kd", "2-", 1),
        ("kdd", "3-", 2),
        ("kdd", "3-2-", 1),
        ("kdd", "3-2k", None),
        ("kd", "2k", None),
        ("kd", "2-1-", None),
        ("kk", "2-", None),
    ],
)
def test_which_model_is_polished(verdicts: str, polished: str, wanted: int | None) -> None:
    """k keeps the rule, d lies beyond it but is gone on from, - is taken back."""
    steps = [START]
    for verdict in verdicts:
        base = last_accepted(steps).index
        steps.append(_judged(len(steps), base, verdict))
    for start, verdict in zip(polished[::2], polished[1::2], strict=True):
        steps.append(_polished(len(steps), int(start), verdict))
    step = to_polish(steps, 8)
    assert (None if step is None else step.index) == wanted


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [("", []), ("kk", [2]), ("kd", [2, 1]), ("kdd", [3, 2, 1]), ("kdd-", [3, 2, 1]), ("d", [1])],
)
def test_models_that_may_be_polished_are_kept(verdicts: str, wanted: list[int]) -> None:
    steps = [START]
    for verdict in verdicts:
        steps.append(_judged(len(steps), last_accepted(steps).index, verdict))
    assert [step.index for step in may_be_polished(steps)] == wanted
    # Whatever is polished in the end is among them.
    while (step := to_polish(steps, 8)) is not None:
        assert step.index in wanted
        steps.append(_polished(len(steps), step.index, "-"))


@pytest.mark.parametrize(
    ("verdicts", "polished", "wanted"),
    [
        ("kk", "2k", 2),
        ("kk", "2-", 2),
        ("kd", "2-1k", 2),
        ("kd", "2k", 2),
        # The result is a smaller model already.
        ("kkd", "3k", 3),
    ],
)
def test_another_number_of_epochs_polishes_anew(verdicts: str, polished: str, wanted: int) -> None:
    steps = [START]
    for verdict in verdicts:
        steps.append(_judged(len(steps), last_accepted(steps).index, verdict))
    for start, verdict in zip(polished[::2], polished[1::2], strict=True):
        steps.append(_polished(len(steps), int(start), verdict))
    step = to_polish(steps, 16)
    assert step is not None
    assert step.index == wanted


def test_a_polish_that_is_worse_than_the_one_before_leaves_it_the_result() -> None:
    """Also where it came back within the rule: a larger model is not polished in its place."""
    steps = [START, _judged(1, 0, "k"), _judged(2, 1, "d"), _polished(3, 2, "k")]
    steps.append(_polished(4, 2, "-", epochs=16))
    assert to_polish(steps, 16) is None
    assert handed_over(steps).index == 3


def test_a_search_that_goes_on_leaves_polished_models_aside_and_polishes_anew() -> None:
    steps = [START, _judged(1, 0, "k"), _polished(2, 1, "k")]
    assert last_accepted(steps).index == 1
    steps.append(_judged(3, 1, "d"))
    assert handed_over(steps).index == 2
    step = to_polish(steps, 8)
    assert step is not None
    assert step.index == 3
    steps.append(_polished(4, 3, "-"))
    assert to_polish(steps, 8) is None
    assert handed_over(steps).index == 2


def _polished(index: int, start: int, verdict: str, epochs: int = 8) -> Step:
    return replace(_judged(index, start, verdict), is_polish=True, epochs=epochs)


def _judged(index: int, start: int, verdict: str) -> Step:
    return replace(
        START, index=index, start=start, accepted=verdict != "-", keeps_rule=verdict == "k"
    )


def test_a_polish_ends_the_loop_and_is_kept_where_it_is_no_worse(data: images.Dataset) -> None:
    model = randomise(Residual()).eval()
    rules = {"step_ratio": 0.3, "max_drop": 100.0, "max_steps": 2, "criterion": "random"}
    made = list(prune(model, data, engine=make_engine("32"), polish=3, **rules))
    steps = [step for step, _ in made]
    last, polished = made[-1]
    assert [step.is_polish for step in steps] == [False, False, False, True]
    assert (last.start, last.epochs, last.removed) == (2, 3, 0)
    assert last.kept == steps[2].kept
    assert last.metric_before == steps[2].metric_after
    assert last.accepted == (last.metric_after >= steps[2].metric_after)
    metrics = evaluate(polished, data.val, make_engine("32"))
    assert metrics.value("accuracy") == last.metric_after


def _metrics(correct: list[bool]) -> Metrics:
    share = sum(correct) / len(correct)
    return Metrics(
        loss=0.1,
        values={"accuracy": share},
        n=len(correct),
        correct=packed(correct),
        details={"confusion": [[0, 0], [0, 0]]},
    )


def test_the_step_that_reaches_a_target_removes_no_more_than_it_must(
    data: images.Dataset,
) -> None:
    rules = {
        "max_drop": 100.0,
        "engine": make_engine("32"),
        "finetune": TrainConfig(lr=0.01, batch_size=8),
        "step_ratio": 0.5,
    }

    def steps(**targets: float) -> list[Step]:
        return [
            step
            for step, _ in prune(
                randomise(Residual()), data, criterion="random", **rules, **targets
            )
        ]

    whole, freely = steps(max_steps=1)
    for name in ("macs", "params"):
        least = getattr(freely, name) / getattr(whole, name)
        target = (least + 1) / 2
        found = steps(**{f"target_{name}": target})
        assert len(found) == 2
        assert least < getattr(found[1], name) / getattr(whole, name) <= target


def test_a_step_that_breaks_the_rule_is_taken_back_and_halved(
    data: images.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = PruneContext(gentle(data), "random", 1)
    rule = StopPolicy(ACCURACY, max_drop=0.0, step_ratio=0.4)
    start = step_zero(shop, randomise(Residual()), rule)
    perfect = replace(start.step, metric_after=2.0)  # nothing can keep this rule
    stops: list[Finished] = []
    made = list(iterate(shop, rule, (perfect,), start.state, finished=stops.append))
    assert [turn.step.fraction_asked for turn in made] == pytest.approx(
        [1 - 0.6 ** (0.5**halvings) for halvings in range(4)]
    )
    assert not any(turn.step.accepted for turn in made)
    assert all(turn.step.channels + turn.step.removed == start.step.channels for turn in made)
    assert stops[0].keep == 0


@pytest.mark.parametrize(
    ("round_to", "sizes", "shares"),
    [
        # One channel at the least: the last two halvings would both take it.
        pytest.param(1, [4, 2, 1], [0.6, 0.3675, 0.2047], marks=pytest.mark.slow),
        # All that may leave, whatever the share.
        (3, [3], [0.6]),
    ],
)
def test_a_smaller_step_that_would_be_the_same_is_left_out(
    data: images.Dataset, round_to: int, sizes: list[int], shares: list[float]
) -> None:
    constraints = PlanConstraints(ignore=("stem", "down"), round_to=round_to)
    context = PruneContext(gentle(data), "weight-l2", constraints=constraints)
    rule = StopPolicy(ACCURACY, max_drop=0.0, step_ratio=0.6)
    start = step_zero(context, randomise(Residual()), rule)
    perfect = replace(start.step, metric_after=2.0)  # nothing can keep this rule
    stops: list[Finished] = []
    made = list(iterate(context, rule, (perfect,), start.state, finished=stops.append))
    steps = [perfect, *(turn.step for turn in made)]
    assert [step.removed for step in steps[1:]] == sizes
    assert [step.fraction_asked for step in steps[1:]] == pytest.approx(shares, abs=1e-4)
    assert stops == [rule.given_up(steps)]
    assert stops[0].reason.startswith("even a step of 10.82% of the channels")

    # Cut off anywhere, it ends in the same steps.
    for done in range(1, len(steps) + 1):
        again = list(iterate(context, rule, steps[:done], start.state))
        assert [turn.step.kept for turn in again] == [step.kept for step in steps[done:]]


def test_a_looser_rule_tries_again_what_a_stricter_one_took_back() -> None:
    steps = history(True, False, False)
    assert [step.index for step in RULE.taken_back(steps)] == [2, 3]
    assert replace(RULE, judged_from=3).taken_back(steps) == [steps[3]]
    assert RULE.smaller(0.4) == pytest.approx(1 - 0.6**0.5)
    assert RULE.smaller(1 - 0.6**0.125) is None


def test_the_loop_ends_when_nothing_is_left(data: images.Dataset) -> None:
    shop = PruneContext(gentle(data), "weight-l2", 1)
    rule = StopPolicy(ACCURACY, max_drop=1000.0, step_ratio=0.9)
    start = step_zero(shop, randomise(Residual()), rule)
    stops: list[Finished] = []
    made = list(iterate(shop, rule, (start.step,), start.state, finished=stops.append))
    assert min(made[-1].step.kept.values()) == 2
    assert stops == [Finished("no channel is left that may be removed", made[-1].step.index)]


def test_groups_that_the_criterion_cannot_judge_stay_whole_with_that_reason(
    data: images.Dataset,
) -> None:
    model = randomise(Residual())
    (_, _), (step, small) = prune(
        model, data, criterion="bn-scale", max_steps=1, max_drop=100, engine=make_engine("32")
    )
    assert {one["name"]: one["reason"] for one in step.frozen} == dict.fromkeys(
        ("a", "down"), "the criterion bn-scale can't judge it"
    )
    assert small.stem.out_channels < 8
    assert (small.a.out_channels, small.c.out_channels) == (6, 10)


def test_what_reads_norms_is_refused_where_there_are_none(data: images.Dataset) -> None:
    for asked in (
        {"criterion": "taylor-bn"},
        {"criterion": "bn-scale"},
        {"sparsity": "bn-l1"},
    ):
        with pytest.raises(PrunedgeError, match="reads batch norms, and this model has none"):
            list(prune(randomise(Plain()), data, engine=make_engine("32"), max_steps=1, **asked))


def test_a_bold_step_by_two_criteria_leaves_two_distributions(data: images.Dataset) -> None:
    kept = []
    for name in ("bn-scale", "weight-l2", "random"):
        (_, _), (step, _) = prune(
            randomise(Residual()),
            data,
            criterion=name,
            cost="channels",
            step_ratio=0.5,
            max_steps=1,
            max_drop=100,
            engine=make_engine("32"),
        )
        assert step.removed == round(0.5 * (8 if name == "bn-scale" else 24))
        assert not step.limited
        assert min(step.kept.values()) >= 1
        kept.append(tuple(step.kept.values()))
    assert len(set(kept)) == 3


@pytest.mark.parametrize("saved", ["macs", "params", "memory"])
def test_a_step_removes_its_share_of_what_is_to_be_saved(data: images.Dataset, saved: str) -> None:
    model = randomise(Residual())
    (first, _), (step, small) = prune(
        model,
        data,
        cost=saved,
        criterion="weight-l2",
        step_ratio=0.5,
        max_steps=1,
        max_drop=100,
        engine=make_engine("32"),
    )
    graph = trace(small, data.example())
    left = cost_of(saved, small, graph).total()
    whole = cost_of(saved, model, trace(model, data.example())).total()
    assert 0.3 * whole < left <= 0.5 * whole
    assert step.macs < first.macs


def test_where_the_limit_decides_instead_of_the_scores_the_step_says_so(
    data: images.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    rules = {
        "step_ratio": 0.5,
        "max_steps": 1,
        "max_drop": 100,
        "engine": make_engine("32"),
        "criterion": "random",
        "cost": "channels",
    }
    (_, _), (step, _) = prune(randomise(Residual()), data, max_ratio=0.5, **rules)
    assert all(
        step.kept[name] == step.original[name] / 2
        for name in step.kept
        if step.kept[name] != step.original[name]
    )
    assert step.limited.startswith(
        "the limit max_ratio=0.5 decides in 3 of 3 groups: they lose all that it lets them"
    )
    warned = [
        record.message
        for record in caplog.records
        if record.levelname == "WARNING" and record.message.startswith("step")
    ]
    assert warned == [f"step 1: {step.limited}"]
    caplog.clear()
    (_, _), (step, _) = prune(randomise(Residual()), data, **rules)
    assert not step.limited
    assert "the limit" not in caplog.text


@dataclass(frozen=True)
class BoardCost:
    graph: ChannelGraph
    costly: str

    def total(self, plan: Plan | None = None) -> float:
        kept = dict(plan.keep) if plan else {}
        return 0.5 * len(kept.get(self.costly, range(self.graph.group(self.costly).size)))


class Board:
    """A device on which only the channels of `costly` groups take time, in steps of four."""

    multiple = 4

    def __init__(self, costly: str, slow: int = 0) -> None:
        self.costly, self.slow, self.asked = costly, slow, 0

    def cost(self, model: nn.Module, graph: ChannelGraph) -> BoardCost:
        return BoardCost(graph, self.costly)

    def measure(self, model: nn.Module, example: torch.Tensor) -> float:
        self.asked += 1
        if 1 < self.asked <= 1 + self.slow:
            return 1e9
        graph = trace(model, example)
        return 2 * self.cost(model, graph).total()


def device_loop(
    data: images.Dataset, board: Board, **more: float
) -> tuple[list[Step], list[Finished]]:
    rule = StopPolicy(
        ACCURACY, max_drop=1000.0, step_ratio=0.2, target_latency=more.get("target_latency")
    )
    shop = PruneContext(
        gentle(data),
        "weight-l2",
        1,
        device=board,
        constraints=PlanConstraints(max_ratio=0.9),
    )
    start = step_zero(shop, randomise(Residual()), rule)
    stops: list[Finished] = []
    made = [
        turn.step for turn in iterate(shop, rule, (start.step,), start.state, finished=stops.append)
    ]
    return [start.step, *made], stops


def test_a_device_steers_to_its_own_target(data: images.Dataset) -> None:
    graph = trace(randomise(Residual()), data.example())
    widest = max(graph.groups, key=lambda group: group.size)
    steps, stops = device_loop(data, Board(widest.name), target_latency=widest.size * 0.5)
    assert steps[0].latency_ms == widest.size
    assert steps[0].predicted_ms == widest.size / 2
    assert stops[0].reason == f"target reached: {steps[-1].latency_ms:.3g} ms on the device"
    assert all(after.latency_ms < before.latency_ms for before, after in pairwise(steps))  # type: ignore[operator]
    # The channels that cost nothing stay, and it stops in time.
    layer = next(
        name
        for name, width in steps[0].kept.items()
        if width == widest.size and steps[-1].kept[name] < width
    )
    assert steps[-1].kept[layer] % 4 == 0
    assert steps[-1].latency_ms == pytest.approx(widest.size / 2, abs=4)


def test_a_step_that_is_no_faster_grows_before_it_is_taken(data: images.Dataset) -> None:
    graph = trace(randomise(Residual()), data.example())
    widest = max(graph.groups, key=lambda group: group.size)
    board = Board(widest.name, slow=2)
    steps, _ = device_loop(data, board, target_latency=widest.size - 1)
    assert board.asked == 4
    assert steps[1].removed > 0
    assert steps[1].latency_ms < steps[0].latency_ms


def test_without_a_faster_step_the_loop_ends_where_it_was(data: images.Dataset) -> None:
    graph = trace(randomise(Residual()), data.example())
    steps, stops = device_loop(data, Board(graph.groups[0].name, slow=1000))
    assert len(steps) == 1
    assert stops == [Finished("no channel is left that makes it faster on the device", 0)]


def test_a_model_that_training_cannot_rank_is_ranked_before_each_step(
    data: images.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    # Drawn without a seed it may come to one answer for all images, which no rule keeps.
    model = SharedTable()
    model.head = nn.Linear(8, 2)
    model = randomise(model)
    with caplog.at_level("INFO"):
        found = list(
            prune(
                model,
                data,
                step_ratio=0.2,
                max_drop=100.0,
                max_steps=2,
                engine=make_engine("32"),
                finetune=TrainConfig(batch_size=8),
            )
        )
    assert [step.accepted for step, _ in found] == [True, True, True]
    assert found[-1][0].channels < found[0][0].channels
    assert "a pass of its own" in caplog.text
    assert "one example at a time" in caplog.text


@pytest.mark.parametrize(
    ("macs", "epochs"), [(6400, 2), (1600, 4), (400, 8), (100, 16), (10, 16), (9000, 2)]
)
def test_smaller_models_are_fine_tuned_for_more_epochs(macs: int, epochs: int) -> None:
    context = PruneContext(
        trainer=None,  # type: ignore[arg-type]
        epochs=2,
        growing_epochs=True,
    )
    first = replace(START, macs=6400)
    assert context.epochs_of(macs, first) == epochs
    assert replace(context, growing_epochs=False).epochs_of(macs, first) == 2
