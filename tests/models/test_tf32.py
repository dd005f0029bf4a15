from __future__ import annotations

import multiprocessing
import traceback
from typing import Any

import pytest
import torch

from prunedge.models.tf32 import full_float32

cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _said_in_the_old_way() -> None:
    products.allow_tf32 = True


def _said_for_all_of_torch() -> None:
    torch.set_float32_matmul_precision("high")


def _said_in_the_new_way() -> None:
    torch.backends.fp32_precision = "tf32"


def _convolutions_in_float32() -> None:
    cudnn.allow_tf32 = False


def _convolutions_in_float32_said_in_the_new_way() -> None:
    cudnn.conv.fp32_precision = "ieee"


WAYS = (
    lambda: None,
    _said_in_the_old_way,
    _said_for_all_of_torch,
    _said_in_the_new_way,
    _convolutions_in_float32,
    _convolutions_in_float32_said_in_the_new_way,
)


def _settings() -> tuple[str, str, str]:
    return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision


def _try(way: Any, pipe: Any) -> None:
    try:
        way()
        before = _settings()
        with full_float32():
            assert _settings()[:2] == ("ieee", "ieee"), _settings()
            assert _settings()[2] in ("ieee", "none"), _settings()
            assert not cudnn.allow_tf32
            with full_float32():
                pass
            assert _settings()[:2] == ("ieee", "ieee"), _settings()
        assert _settings() == before, (_settings(), before)
        pipe.send("")
    except BaseException:
        pipe.send(traceback.format_exc())


@pytest.mark.parametrize("way", WAYS)
def test_inside_float32_is_float32_however_torch_was_set_and_afterwards_it_is_set_as_before(
    way: Any,
) -> None:
    # In a process of its own: what torch was told by one of its two settings stays in it.
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(False)
    process = context.Process(target=_try, args=(way, there))
    process.start()
    said = here.recv() if here.poll(60) else "no answer"
    process.join()
    assert not said, said


def test_what_raises_inside_leaves_torch_set_as_before() -> None:
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("device", DEVICES)
def test_a_convolution_errs_by_no_more_than_float32_does(device: str) -> None:
    torch.manual_seed(0)
    layer, images = (
        torch.nn.Conv2d(64, 64, 3).double(),
        torch.randn(4, 64, 32, 32, dtype=torch.float64),
    )
    wanted = layer(images)
    with full_float32():
        found = layer.float().to(device)(images.float().to(device)).double().cpu()
    assert (found - wanted).norm().item() < 1e-5 * wanted.norm().item()
