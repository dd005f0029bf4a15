"""A call read by the names of its operation's schema."""

from __future__ import annotations

import pytest
import torch

from prunedge.graph.calls import Call, signature_of

aten = torch.ops.aten


def test_an_argument_is_read_wherever_it_stood() -> None:
    bias, x, weight = torch.zeros(2), torch.zeros(1, 3), torch.zeros(3, 2)
    call = Call.of(aten.addmm.default, (bias, x, weight), {"alpha": 2})
    assert call["self"] is bias
    assert call["mat1"] is x
    assert call["mat2"] is weight
    assert call["alpha"] == 2
    assert call["beta"] == 1
    assert call.tensors == [bias, x, weight]


def test_what_an_operation_does_not_have() -> None:
    call = Call.of(aten.relu.default, (torch.zeros(2),), {})
    assert call.get("dim") is None
    with pytest.raises(KeyError):
        call["dim"]


def test_the_form_that_works_in_place_has_the_same_name() -> None:
    plain, in_place = signature_of(aten.relu.default), signature_of(aten.relu_.default)
    assert plain.name == in_place.name == "relu"
    assert not plain.is_in_place
    assert in_place.is_in_place
    assert in_place.spelled == "relu_"
    assert in_place.text == "aten.relu_.default"
    assert not signature_of(aten.__and__.Tensor).is_in_place


def test_the_same_operation_on_another_tensor() -> None:
    x = torch.arange(6).reshape(2, 3)
    call = Call.of(aten.transpose.int, (x, 0, 1), {}, x.transpose(0, 1))
    assert call.input is x
    assert call.result.shape == (3, 2)
    assert torch.equal(call.again(x + 1), (x + 1).transpose(0, 1))
