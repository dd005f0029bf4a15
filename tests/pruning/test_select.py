"""Scores in, plans out: tables and properties."""

from __future__ import annotations

from math import floor

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from prunedge.errors import PrunedgeError
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.pruning.select import PlanConstraints, ScoreScaling, at_limit, choose
from tests.small_models import Plain

GRAPH = trace(Plain(), torch.randn(1, 3, 12, 12))  # features.0: 6, features.3: 8, classifier.0: 16
NAMES = {"features.0": 6, "features.3": 8, "classifier.0": 16}


def scores(**low: list[int]) -> Scores:
    values = {name: torch.ones(size, dtype=torch.float64) for name, size in NAMES.items()}
    for name, channels in low.items():
        values[name.replace("_", ".")][channels] = 1e-3
    return Scores(values, "made up")


@pytest.mark.parametrize(
    ("low", "remove", "kept"),
    [
        ({"features_3": [1, 4, 6]}, 0.1, {"features.3": (0, 2, 3, 5, 7)}),
        (
            {"features_0": [5], "classifier_0": [0, 15]},
            0.1,
            {"features.0": (0, 1, 2, 3, 4), "classifier.0": tuple(range(1, 15))},
        ),
        (
            {"features_0": [0, 1, 2, 3, 4]},
            0.1,
            {"features.0": (3, 4, 5)},
        ),  # no more than half of a group at once
        ({"features_0": [3]}, 0.001, {"features.0": (0, 1, 2, 4, 5)}),  # at least one channel
    ],
)
def test_the_least_important_leave(
    low: dict[str, list[int]], remove: float, kept: dict[str, tuple[int, ...]]
) -> None:
    assert choose(GRAPH, scores(**low), remove).keep == kept


def test_groups_are_compared_after_normalisation() -> None:
    values = {name: torch.rand(size, dtype=torch.float64) for name, size in NAMES.items()}
    scaled = {
        name: value * factor
        for (name, value), factor in zip(values.items(), (1e-6, 1.0, 1e6), strict=True)
    }
    assert choose(GRAPH, Scores(values, "x"), 0.3) == choose(GRAPH, Scores(scaled, "x"), 0.3)


def test_excluded_groups_and_least_channels_are_kept() -> None:
    plan = choose(
        GRAPH,
        scores(features_0=[0, 1, 2, 3, 4]),
        0.9,
        exclude={"classifier.0"},
        constraints=PlanConstraints(min_channels=5, max_ratio=1.0),
    )
    assert {name: len(kept) for name, kept in plan.keep.items()} == {
        "features.0": 5,
        "features.3": 5,
    }
    assert choose(GRAPH, scores(), 0.5, constraints=PlanConstraints(min_channels=99)) == Plan({})


@given(st.integers(0, 99), st.floats(0.05, 0.95), st.sampled_from([2, 3, 4, 8]))
def test_what_a_group_keeps_is_a_multiple(seed: int, remove: float, multiple: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.rand(size, generator=generator, dtype=torch.float64)
        for name, size in NAMES.items()
    }
    plan = choose(
        GRAPH, Scores(values, "x"), remove, constraints=PlanConstraints(round_to=multiple)
    )
    assert plan.keep  # some group always has room for a portion
    for name, kept in plan.keep.items():
        assert len(kept) % multiple == 0
        assert float(values[name][list(kept)].min()) >= float(
            values[name][sorted(set(range(NAMES[name])) - set(kept))].max()
        )


@pytest.mark.parametrize("pattern", ["features.3", "features.3*", "*.3.weight"])
def test_layers_can_be_kept_out_by_pattern(pattern: str) -> None:
    plan = choose(GRAPH, scores(), 0.5, constraints=PlanConstraints(ignore=(pattern,)))
    assert plan.keep
    assert "features.3" not in plan.keep


@given(st.integers(0, 999), st.floats(0.01, 0.95))
def test_a_plan_removes_what_was_asked_and_keeps_its_limits(seed: int, remove: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.rand(size, generator=generator, dtype=torch.float64)
        for name, size in NAMES.items()
    }
    plan = choose(GRAPH, Scores(values, "x"), remove)
    cap = PlanConstraints().most(remove)
    for name, kept in plan.keep.items():
        assert len(kept) >= max(2, NAMES[name] * (1 - cap))
        worst_kept = max(0, *(float(values[name][list(kept)].min()),))
        gone = sorted(set(range(NAMES[name])) - set(kept))
        assert float(values[name][gone].max()) <= worst_kept
    most = sum(min(size - 2, floor(size * cap)) for size in NAMES.values())
    assert plan.removes(GRAPH) == min(most, max(1, round(remove * 30)))


@given(st.data())
def test_json_and_composition(data: st.DataObject) -> None:
    first = data.draw(st.sets(st.integers(0, 20), min_size=2).map(sorted))
    second = data.draw(st.sets(st.integers(0, len(first) - 1), min_size=1).map(sorted))
    plan = Plan({"a": tuple(first)}).then(Plan({"a": tuple(second), "b": (0,)}))
    assert plan.keep == {"a": tuple(first[i] for i in second), "b": (0,)}
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("kept", [(), (2, 1), (1, 1), (-1, 2)])
def test_impossible_plans_are_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sorted"):
        Plan({"a": kept})


@pytest.mark.parametrize("remove", [0.0, 1.0, -0.1])
def test_impossible_shares_are_refused(remove: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        choose(GRAPH, scores(), remove)


def test_groups_that_the_criterion_has_not_judged_stay_whole() -> None:
    some = {"features.3": scores().values["features.3"]}
    assert list(choose(GRAPH, Scores(some, "x"), 0.9).keep) == ["features.3"]


def test_each_layer_loses_the_same_share() -> None:
    plan = choose(GRAPH, scores(features_0=[0, 1, 2]), 0.25, scaling=ScoreScaling(per_layer=True))
    assert {name: NAMES[name] - len(kept) for name, kept in plan.keep.items()} == {
        "features.0": 2,
        "features.3": 2,
        "classifier.0": 4,
    }
    small = choose(GRAPH, scores(), 0.01, scaling=ScoreScaling(per_layer=True))
    assert {name: NAMES[name] - len(kept) for name, kept in small.keep.items()} == dict.fromkeys(
        NAMES, 1
    )


def test_costly_channels_go_first_when_costs_count() -> None:
    share = {group.name: GRAPH.macs_of(group) / group.size / GRAPH.macs() for group in GRAPH.groups}
    costly = max(share, key=share.__getitem__)
    same = Scores(
        {name: torch.ones(size, dtype=torch.float64) for name, size in NAMES.items()}, "x"
    )
    assert set(choose(GRAPH, same, 0.1, scaling=ScoreScaling("none", per_mac=True)).keep) == {
        costly
    }
    assert set(choose(GRAPH, same, 0.1, scaling=ScoreScaling("none", macs_penalty=1.0)).keep) == {
        costly
    }
    values = ScoreScaling("none", macs_penalty=2.0).values(GRAPH, same)
    assert {name: pytest.approx(1 - 2 * one) for name, one in share.items()} == {
        name: float(value[0]) for name, value in values.items()
    }
    for name, value in ScoreScaling("none", per_mac=True).values(GRAPH, same).items():
        assert float(value[0]) == pytest.approx(1 / share[name])


@pytest.mark.parametrize(
    "wrong", [{"normalise": "l3"}, {"macs_penalty": -1.0}, {"macs_penalty": 1.0, "per_mac": True}]
)
def test_impossible_rankings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"normalise|macs_penalty"):
        ScoreScaling(**wrong)  # type: ignore[arg-type]


@given(
    st.integers(0, 99),
    st.floats(0.05, 0.95),
    st.floats(0.1, 0.99),
    st.sampled_from([1, 4]),
    st.booleans(),
)
# 17.6 of 30 channels are 18, and 18 of 30 are more of a group than the share that was asked for.
@example(0, 0.5859375, 0.25, 1, True)
# 13.1 of 30 are 13, which are enough without the one more that a group's own rounding takes.
@example(0, 0.4375, 0.5, 1, True)
def test_no_more_leaves_than_is_enough(
    seed: int, remove: float, share: float, multiple: int, per_layer: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = Scores(
        {
            name: torch.rand(size, generator=generator, dtype=torch.float64)
            for name, size in NAMES.items()
        },
        "x",
    )
    # Without a limit of its own each plan would have one that follows from what it is asked to remove.
    constraints = PlanConstraints(round_to=multiple, max_ratio=PlanConstraints().most(remove))
    rules = {"constraints": constraints, "scaling": ScoreScaling(per_layer=per_layer)}

    def enough(plan: Plan) -> bool:
        return GRAPH.macs(plan) <= share * GRAPH.macs()

    whole, found = (
        choose(GRAPH, values, remove, **rules),
        choose(GRAPH, values, remove, **rules, enough=enough),
    )
    if not enough(whole):
        assert found == whole
        return
    assert enough(found)
    assert GRAPH.macs(found) >= GRAPH.macs(whole)
    smaller_shares = [number / GRAPH.channels for number in range(1, GRAPH.channels)]
    allowed = [
        choose(GRAPH, values, smaller, **rules) for smaller in smaller_shares if smaller <= remove
    ]
    assert max((plan for plan in [*allowed, whole] if enough(plan)), key=GRAPH.macs) == found


def test_a_bold_step_compares_layers() -> None:
    """Half of all channels, by two criteria: each spares another layer."""
    generator = torch.Generator().manual_seed(0)
    sparing = []
    for spared in ("features.0", "features.3"):
        values = {
            name: torch.rand(size, generator=generator, dtype=torch.float64)
            for name, size in NAMES.items()
        }
        values[spared] += 10
        plan = choose(GRAPH, Scores(values, "x"), 0.5, scaling=ScoreScaling("none"))
        assert plan.removes(GRAPH) == 15
        assert spared not in plan.keep
        sparing.append({name: len(kept) for name, kept in plan.keep.items()})
    assert sparing[0] != sparing[1]


@given(st.floats(0.001, 0.999))
def test_the_usual_limit_lies_well_above_the_step(remove: float) -> None:
    cap = PlanConstraints().most(remove)
    assert cap >= 0.5
    # What a layer keeps at the least, as a share of what it would keep if all lost alike: a quarter, or more where the step is timid.
    assert 0.25 - 1e-9 <= (1 - cap) / (1 - remove) <= 0.8


def test_timid_steps_take_no_more_than_half_of_a_layer() -> None:
    assert [PlanConstraints().most(remove) for remove in (0.01, 0.1, 0.25)] == [0.5] * 3
    assert PlanConstraints().most(0.5) == 0.875
    assert PlanConstraints(max_ratio=0.3).most(0.9) == 0.3


@given(
    st.data(),
    st.floats(0.01, 0.99),
    st.sampled_from(["none", "l2", "mean", "rank"]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 4),
    st.one_of(st.none(), st.floats(0.05, 1.0)),
)
def test_no_layer_is_emptied_however_skewed_the_scores_are(
    data: st.DataObject, remove: float, normalise: str, multiple: int, least: int, cap: float | None
) -> None:
    skews = [data.draw(st.floats(-12, 12)) for _ in NAMES]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    values = {
        name: torch.rand(size, generator=generator, dtype=torch.float64) * 10**skew
        for (name, size), skew in zip(NAMES.items(), skews, strict=True)
    }
    limits = PlanConstraints(min_channels=least, round_to=multiple, max_ratio=cap)
    plan = choose(
        GRAPH, Scores(values, "x"), remove, constraints=limits, scaling=ScoreScaling(normalise)
    )
    for name, kept in plan.keep.items():
        assert len(kept) >= least
        # A single portion may go further where the multiple leaves no other.
        floor_ = NAMES[name] * (1 - limits.most(remove))
        assert len(kept) >= floor_ - 1e-9 or len(kept) >= NAMES[name] - multiple


@pytest.mark.parametrize(("cap", "remove"), [(0.5, 0.5), (0.25, 0.5), (0.5, 0.9), (0.1, 0.05)])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_limit_that_was_asked_for_holds(cap: float, remove: float, per_layer: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    values = {
        name: torch.rand(size, generator=generator, dtype=torch.float64)
        for name, size in NAMES.items()
    }
    plan = choose(
        GRAPH,
        Scores(values, "x"),
        remove,
        constraints=PlanConstraints(max_ratio=cap),
        scaling=ScoreScaling(per_layer=per_layer),
    )
    for name, kept in plan.keep.items():
        assert NAMES[name] - len(kept) <= max(1, NAMES[name] * cap)


def test_the_groups_in_which_the_limit_decides_are_told() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.rand(size, generator=generator, dtype=torch.float64)
        for name, size in NAMES.items()
    }
    values["features.3"] += 10
    for limits, remove, bound in (
        (
            PlanConstraints(max_ratio=0.5),
            0.5,
            {"features.0", "features.3", "classifier.0"},
        ),  # nothing is left to compare
        (PlanConstraints(max_ratio=0.5), 0.3, {"classifier.0"}),
        (PlanConstraints(), 0.05, set()),
        (
            PlanConstraints(),
            0.7,
            set(),
        ),  # two keep their `least` two channels, which is another limit
        (
            PlanConstraints(max_ratio=0.5, ignore=("classifier.0",)),
            0.9,
            {"features.0", "features.3"},
        ),
    ):
        scores = Scores(values, "x")
        plan = choose(GRAPH, scores, remove, constraints=limits, scaling=ScoreScaling("none"))
        assert set(at_limit(GRAPH, plan, limits, limits.most(remove))) == bound, (
            limits,
            remove,
            plan,
        )


def test_scores_of_a_model_of_other_widths_are_refused() -> None:
    values = {name: torch.ones(size + 2, dtype=torch.float64) for name, size in NAMES.items()}
    with pytest.raises(PrunedgeError, match=r"features\.0.*6 channels.*8 scores"):
        choose(GRAPH, Scores(values, "x"), 0.1)
