"""Penalties against autograd on their published sums."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunedge.graph import trace
from prunedge.train import penalty
from tests.small_models import CONSTRUCTS, Residual, randomise

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def added(
    model: nn.Module, kind: str, along: float = 1.0, chosen: dict[str, list[int]] | None = None
) -> dict[str, torch.Tensor]:
    graph = trace(model, EXAMPLE)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    apply = penalty(kind, graph, 0.3, chosen)  # type: ignore[arg-type]
    assert apply is not None
    apply(model, along)
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def by_autograd(model: nn.Module, total: torch.Tensor) -> dict[str, torch.Tensor]:
    names, tensors = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    return {
        name: torch.zeros_like(t) if g is None else g
        for name, t, g in zip(names, tensors, gradients, strict=True)
    }


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_group_lasso_is_the_norm_of_all_weights_of_a_channel(construct: type[nn.Module]) -> None:
    model = randomise(construct())
    tensors, total = dict(model.named_parameters()), torch.zeros(())
    for group in trace(model, EXAMPLE).groups:
        for channel in range(group.size):
            weights = [
                tensors[part.tensor]
                .index_select(part.dim, torch.as_tensor(part.indices[channel]))
                .flatten()
                for part in group.slices
                if part.tensor in tensors
            ]
            joined = torch.cat(weights)
            total = total + 0.3 * len(joined) ** 0.5 * joined.norm()
    wanted = by_autograd(model, total)
    for name, value in added(model, "group-lasso").items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)


def test_bn_l1_pulls_at_the_scales_alone() -> None:
    model = randomise(Residual())
    found = added(model, "bn-l1")
    torch.testing.assert_close(found.pop("norm.weight"), 0.3 * model.norm.weight.detach().sign())
    assert all(not value.any() for value in found.values())


def test_growing_pulls_more_and_more_at_the_chosen_channels() -> None:
    model = randomise(Residual())
    half, whole = (added(model, "growing", along, {"a": [1, 4]}) for along in (0.5, 1.0))
    torch.testing.assert_close(whole["a.weight"][[1, 4]], 0.3 * model.a.weight.detach()[[1, 4]])
    torch.testing.assert_close(whole["b.weight"][:, 4], 0.3 * model.b.weight.detach()[:, 4])
    assert not whole["a.weight"][[0, 2, 3, 5]].any()
    assert not whole["stem.weight"].any()
    torch.testing.assert_close(half["a.weight"] * 2, whole["a.weight"])


def test_none_is_no_penalty() -> None:
    assert penalty("none", trace(Residual(), EXAMPLE)) is None
