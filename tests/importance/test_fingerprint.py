"""What tells criteria and models apart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from prunedge.importance import CRITERIA, criterion, identity, weights_digest
from prunedge.importance.fingerprint import function_digest
from tests.small_models import Plain, randomise

POWER = 2
HELD = object()


pytestmark = pytest.mark.usefixtures("own_criteria")


def factor(power: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda change: change.abs() ** power


def helped(change: torch.Tensor) -> torch.Tensor:
    return _helper(change)


def _helper(change: torch.Tensor) -> torch.Tensor:
    return change.abs() ** POWER


def even(number: int) -> bool:
    return number == 0 or odd(number - 1)


def odd(number: int) -> bool:
    return number != 0 and even(number - 1)


def with_default(change: torch.Tensor, power: float = 2) -> torch.Tensor:
    return change.abs() ** power


def of_an_object(change: torch.Tensor) -> torch.Tensor:
    return change if HELD else -change


def test_every_criterion_can_be_told_and_none_is_another() -> None:
    found = [identity(name) for name in CRITERIA]
    assert None not in found
    assert len(set(found)) == len(CRITERIA)


@pytest.mark.parametrize("reads", ["weights", "activations", "gradients"])
def test_another_function_under_the_same_name_is_another_criterion(reads: Any) -> None:
    said = []
    for function in (factor(1), factor(2), factor(1), torch.abs, torch.square):
        criterion("mine", reads=reads)(function)
        said.append(identity("mine"))
    assert None not in said
    assert said[0] == said[2]
    assert len(set(said)) == 4


def test_the_same_function_for_other_readings_is_another_criterion() -> None:
    criterion("mine", reads="activations")(factor(1))
    first = identity("mine")
    criterion("mine", reads="gradients")(factor(1))
    assert identity("mine") != first


def test_what_a_function_refers_to_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = function_digest(helped)
    monkeypatch.setattr(sys.modules[__name__], "POWER", 3)
    changed = function_digest(helped)
    monkeypatch.setattr(sys.modules[__name__], "_helper", torch.abs)
    assert len({before, changed, function_digest(helped)}) == 3
    monkeypatch.undo()
    assert function_digest(helped) == before


def test_defaults_and_given_arguments_are_a_part_of_it() -> None:
    parts = [
        with_default,
        partial(with_default, power=3),
        partial(with_default, power=4),
        factor(1),
        factor(1.5),
    ]
    assert len({function_digest(one) for one in parts} - {None}) == len(parts)
    tensors = [partial(torch.mul, torch.tensor(values)) for values in ([1.0, 2.0], [1.0, 3.0])]
    assert len({function_digest(one) for one in tensors} - {None}) == 2


def test_functions_that_call_each_other_can_be_told() -> None:
    assert function_digest(even) is not None
    assert function_digest(even) != function_digest(odd)


@pytest.mark.parametrize("value", [of_an_object, partial(with_default, power=HELD), HELD, Plain()])
def test_what_holds_an_object_of_the_users_own_cannot_be_told(value: Any) -> None:
    assert function_digest(value) is None


def test_another_process_tells_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nimport more\nNAMES = {'a', 'b', 'c'}\n"
        "def mine(c):\n    return c.abs() ** more.POWER if 'a' in {'x', 'a', 'z'} and NAMES else torch.relu(c)\n"
    )
    (tmp_path / "more.py").write_text("POWER = 2\n")
    code = (
        "import more, own; from prunedge.importance.fingerprint import function_digest; print(function_digest(own.mine)); more.POWER = 3; "
        "print(function_digest(own.mine))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-B", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2] / 'src'}",
            },
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0][0] != said[0][1]
    assert "None" not in said[0]


def test_models_differ_by_any_bit_of_any_tensor() -> None:
    model = randomise(Plain())
    before = weights_digest(model)
    assert weights_digest(randomise(Plain())) == before
    for name, tensor in model.state_dict().items():
        was = tensor.clone()
        tensor.view(-1)[-1] += 1
        assert weights_digest(model) != before, name
        tensor.copy_(was)
    assert weights_digest(model) == before
