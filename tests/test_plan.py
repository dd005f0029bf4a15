"""Scores in, plans out: tables and properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunedge.graph import trace
from prunedge.importance import Scores
from prunedge.plan import Limits, Plan, Ranking, choose
from tests.networks import Plain

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
        ({"features_0": [5], "classifier_0": [0, 15]}, 0.1, {"features.0": (0, 1, 2, 3, 4), "classifier.0": tuple(range(1, 15))}),
        ({"features_0": [0, 1, 2, 3, 4]}, 0.1, {"features.0": (3, 4, 5)}),  # never more than half of a group at once
        ({"features_0": [3]}, 0.001, {"features.0": (0, 1, 2, 4, 5)}),  # at least one channel
    ],
)
def test_the_least_important_leave(low: dict[str, list[int]], remove: float, kept: dict[str, tuple[int, ...]]) -> None:
    assert choose(GRAPH, scores(**low), remove).keep == kept


def test_groups_are_compared_after_normalisation() -> None:
    values = {name: torch.rand(size, dtype=torch.float64) for name, size in NAMES.items()}
    scaled = {name: value * factor for (name, value), factor in zip(values.items(), (1e-6, 1.0, 1e6), strict=True)}
    assert choose(GRAPH, Scores(values, "x"), 0.3) == choose(GRAPH, Scores(scaled, "x"), 0.3)


def test_excluded_groups_and_least_channels_are_kept() -> None:
    plan = choose(GRAPH, scores(features_0=[0, 1, 2, 3, 4]), 0.9, exclude={"classifier.0"}, limits=Limits(least=5, cap=1.0))
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"features.0": 5, "features.3": 5}
    assert choose(GRAPH, scores(), 0.5, limits=Limits(least=99)) == Plan({})


@given(st.integers(0, 99), st.floats(0.05, 0.95), st.sampled_from([2, 3, 4, 8]))
def test_what_a_group_keeps_is_a_multiple(seed: int, remove: float, multiple: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(size, generator=generator, dtype=torch.float64) for name, size in NAMES.items()}
    plan = choose(GRAPH, Scores(values, "x"), remove, limits=Limits(multiple=multiple))
    assert plan.keep  # some group always has room for a portion
    for name, kept in plan.keep.items():
        assert len(kept) % multiple == 0
        assert float(values[name][list(kept)].min()) >= float(values[name][sorted(set(range(NAMES[name])) - set(kept))].max())


@pytest.mark.parametrize("pattern", ["features.3", "features.3*", "*.3.weight"])
def test_layers_can_be_kept_out_by_pattern(pattern: str) -> None:
    plan = choose(GRAPH, scores(), 0.5, limits=Limits(keep_out=(pattern,)))
    assert plan.keep and "features.3" not in plan.keep


@given(st.integers(0, 999), st.floats(0.01, 0.95))
def test_a_plan_removes_what_was_asked_and_keeps_its_limits(seed: int, remove: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(size, generator=generator, dtype=torch.float64) for name, size in NAMES.items()}
    plan = choose(GRAPH, Scores(values, "x"), remove)
    for name, kept in plan.keep.items():
        assert len(kept) >= NAMES[name] / 2
        worst_kept = max(0, *(float(values[name][list(kept)].min()),))
        gone = sorted(set(range(NAMES[name])) - set(kept))
        assert float(values[name][gone].max()) <= worst_kept
    most = sum(size // 2 for size in NAMES.values())
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
    plan = choose(GRAPH, scores(features_0=[0, 1, 2]), 0.25, ranking=Ranking(per_layer=True))
    assert {name: NAMES[name] - len(kept) for name, kept in plan.keep.items()} == {"features.0": 2, "features.3": 2, "classifier.0": 4}
    small = choose(GRAPH, scores(), 0.01, ranking=Ranking(per_layer=True))
    assert {name: NAMES[name] - len(kept) for name, kept in small.keep.items()} == dict.fromkeys(NAMES, 1)


def test_costly_channels_go_first_when_costs_count() -> None:
    share = {group.name: GRAPH.macs_of(group) / group.size / GRAPH.macs() for group in GRAPH.groups}
    costly = max(share, key=share.__getitem__)
    same = Scores({name: torch.ones(size, dtype=torch.float64) for name, size in NAMES.items()}, "x")
    assert set(choose(GRAPH, same, 0.1, ranking=Ranking("none", per_mac=True)).keep) == {costly}
    assert set(choose(GRAPH, same, 0.1, ranking=Ranking("none", macs_penalty=1.0)).keep) == {costly}
    values = Ranking("none", macs_penalty=2.0).values(GRAPH, same)
    assert {name: pytest.approx(1 - 2 * one) for name, one in share.items()} == {name: float(value[0]) for name, value in values.items()}
    for name, value in Ranking("none", per_mac=True).values(GRAPH, same).items():
        assert float(value[0]) == pytest.approx(1 / share[name])


@pytest.mark.parametrize("wrong", [{"normalise": "l3"}, {"macs_penalty": -1.0}, {"macs_penalty": 1.0, "per_mac": True}])
def test_impossible_rankings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"normalise|macs_penalty"):
        Ranking(**wrong)  # type: ignore[arg-type]


@given(st.integers(0, 99), st.floats(0.05, 0.95), st.floats(0.1, 0.99), st.sampled_from([1, 4]), st.booleans())
def test_no_more_leaves_than_is_enough(seed: int, remove: float, share: float, multiple: int, per_layer: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = Scores({name: torch.rand(size, generator=generator, dtype=torch.float64) for name, size in NAMES.items()}, "x")
    rules = {"limits": Limits(multiple=multiple), "ranking": Ranking(per_layer=per_layer)}

    def enough(plan: Plan) -> bool:
        return GRAPH.macs(plan) <= share * GRAPH.macs()

    whole, found = choose(GRAPH, values, remove, **rules), choose(GRAPH, values, remove, **rules, enough=enough)
    if not enough(whole):
        assert found == whole
        return
    assert enough(found) and GRAPH.macs(found) >= GRAPH.macs(whole)
    fewer = [choose(GRAPH, values, wanted / GRAPH.channels, **rules) for wanted in range(1, GRAPH.channels)]
    assert max((plan for plan in fewer if enough(plan)), key=GRAPH.macs) == found
