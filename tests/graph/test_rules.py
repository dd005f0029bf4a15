"""Which rule an operation has, and that it has one only."""

from __future__ import annotations

import pytest
import torch
import torchvision  # noqa: F401  # registers its operations

from prunedge.graph.calls import Call
from prunedge.graph.rules import over_for, rule, rule_for
from prunedge.graph.rules.common import unknown
from prunedge.graph.rules.elementwise import pointwise
from prunedge.graph.rules.norms import layer_norm
from prunedge.graph.rules.products import attention
from prunedge.graph.rules.sampling import regions

aten = torch.ops.aten


def test_by_name() -> None:
    assert rule_for(aten.native_layer_norm.default).label is layer_norm
    assert rule_for(torch.ops.torchvision.roi_align.default).label is regions


def test_by_the_beginning_of_the_name() -> None:
    assert rule_for(aten._scaled_dot_product_flash_attention_for_cpu.default).label is attention


def test_by_tag_and_in_place() -> None:
    assert rule_for(aten.gelu.default).label is pointwise
    assert rule_for(aten.sigmoid_.default).label is pointwise
    assert rule_for(aten.sigmoid_.default).is_regular


def test_anything_else_is_unknown() -> None:
    entry = rule_for(aten._fft_r2c.default)
    assert entry.label is unknown
    assert not entry.is_regular


def test_no_operation_has_two_rules() -> None:
    with pytest.raises(ValueError, match="native_layer_norm"):
        rule("native_layer_norm")(layer_norm)
    with pytest.raises(ValueError, match="pointwise"):
        rule(tag=torch.Tag.pointwise)(pointwise)


def test_what_mixes_channels_says_how_it_runs_over_those_that_stay() -> None:
    x = torch.tensor([[1.0, 5.0, 3.0]])
    func = aten._softmax.default
    out = over_for(func).run(Call.of(func, (x, 1, False), {}), {1: torch.tensor([0, 2])})
    expected = torch.softmax(torch.tensor([[1.0, 3.0]]), 1)
    assert torch.equal(out, torch.tensor([[expected[0, 0], 0.0, expected[0, 1]]]))
    with pytest.raises(KeyError):
        over_for(aten.relu.default)
