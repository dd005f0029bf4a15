"""Spearman's correlation against SciPy's, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from prunedge.importance import Scores, Truth, agreement, recommendation

GENERATOR = torch.Generator().manual_seed(0)


def truth_of(**changes: torch.Tensor) -> Truth:
    return Truth(changes, 1.0, 10, sum(map(len, changes.values())), 1.0, 1.0)


@given(st.integers(0, 10_000), st.booleans())
def test_rho_is_scipys(seed: int, absolute: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    changes = {
        name: torch.randn(size, generator=generator).double().round(decimals=1)
        for name, size in (("a", 9), ("b", 14))
    }
    values = {
        name: torch.rand(len(change), generator=generator).double() * (1 + 5 * (name == "a"))
        for name, change in changes.items()
    }
    found = agreement(truth_of(**changes), Scores(values, "x"), absolute=absolute, resamples=20)
    real = {name: change.abs() if absolute else change for name, change in changes.items()}
    for name in changes:
        assert found.layers[name] == pytest.approx(spearmanr(values[name], real[name]).statistic)
    everything = np.concatenate([real["a"], real["b"]])
    assert found.overall["none"].rho == pytest.approx(
        spearmanr(np.concatenate([values["a"], values["b"]]), everything).statistic
    )
    scaled = np.concatenate([values[name] / values[name].norm() for name in ("a", "b")])
    assert found.overall["l2"].rho == pytest.approx(spearmanr(scaled, everything).statistic)
    assert found.per_layer.rho == pytest.approx(
        (9 * found.layers["a"] + 14 * found.layers["b"]) / 23
    )
    assert found.channels == 23
    for one in (found.per_layer, *found.overall.values()):
        assert -1 <= one.low <= one.high <= 1


def test_what_was_not_measured_or_not_judged_is_left_out() -> None:
    change = torch.tensor([1.0, float("nan"), 3.0, 2.0], dtype=torch.float64)
    scores = Scores({"a": torch.tensor([1.0, 100.0, 3.0, 2.0], dtype=torch.float64)}, "x")
    found = agreement(truth_of(a=change, b=torch.ones(5, dtype=torch.float64)), scores)
    assert found.channels == 3
    assert found.overall["none"].rho == pytest.approx(1)
    assert list(found.layers) == ["a"]


def test_a_constant_has_no_correlation() -> None:
    found = agreement(
        truth_of(a=torch.ones(4, dtype=torch.float64)), Scores({"a": torch.arange(4).double()}, "x")
    )
    assert np.isnan(found.per_layer.rho)
    assert str(found.overall["l2"]) == "-"
    assert found.to_json()["overall"]["none"]["rho"] is None
    assert "measure more channels" in recommendation([found], "net")


def test_the_interval_holds_what_many_samples_would_give() -> None:
    """Of 100 samples of 60 channels with a known correlation, the 95 % interval should miss it in about 5."""
    missed = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        x = generator.normal(size=60)
        y = 0.6 * x + 0.8 * generator.normal(size=60)
        found = agreement(
            truth_of(a=torch.tensor(y)),
            Scores({"a": torch.tensor(x)}, "x"),
            absolute=False,
            resamples=200,
        ).overall["none"]
        expected = (
            6 / np.pi * np.arcsin(0.6 / 2)
        )  # Spearman's rho of a bivariate normal distribution
        missed += not found.low <= expected <= found.high
    assert 0 < missed <= 15


def test_the_recommendation_names_the_best_and_those_like_it() -> None:
    change = torch.linspace(0, 1, 200, dtype=torch.float64)
    noise = torch.randn(200, generator=GENERATOR).double()
    guesses = {
        "best": change + 0.02 * noise.abs(),
        "near": change + 0.021 * noise.abs(),
        "bad": noise,
        "random": change,
    }
    found = [
        agreement(truth_of(a=change), Scores({"a": values}, name))
        for name, values in guesses.items()
    ]
    text = recommendation(found, "vgg16")
    assert "--criterion best" in text
    assert "Not told apart from it: near." in text
    assert "bad" not in text
