"""A pruned model goes wherever the one it was cut from could go: pickles, copies, other processes, other ways to run it."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.graph.sizes import pinned_modules
from prunedge.surgery import operate, sizes_of
from tests.graph.test_pinned_sizes import EMBEDDING, HEADS, IMAGE, Around, FromWidth
from tests.small_models import randomise


def pinned(kind: type[nn.Module] = FromWidth) -> nn.Module:
    model = randomise(Around(kind(scaled=True)))
    small = operate(model, trace(model, IMAGE), Plan({**EMBEDDING.keep, **HEADS.keep})).model.eval()
    assert [name for name, _ in pinned_modules(small)] == ["middle"]
    return small


class Slim(nn.Module):
    """torch's attention, which surgery gives a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = (
            nn.Conv2d(3, 12, 2, stride=2),
            nn.MultiheadAttention(12, 3, batch_first=True),
        )
        self.head = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x)[0].mean(1))


def slim() -> nn.Module:
    model = randomise(Slim())
    return operate(model, trace(model, IMAGE), Plan({"attention": (0, 2)})).model.eval()


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by(dumps: Callable[[Any], bytes]) -> Callable[[nn.Module], nn.Module]:
    return lambda model: pickle.loads(dumps(model))


def by_joblib(model: nn.Module) -> nn.Module:
    joblib, file = pytest.importorskip("joblib"), io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.save": saved,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    **{
        f"protocol {number}": by(lambda one, number=number: pickle.dumps(one, number))
        for number in (0, 1, 2, 5)
    },
    "cloudpickle": lambda model: by(pytest.importorskip("cloudpickle").dumps)(model),
    "joblib": by_joblib,
}


@pytest.mark.parametrize("make", [pinned, slim])
@pytest.mark.parametrize("way", WAYS)
def test_a_pruned_model_is_copied_by_whatever_copies_models(
    way: str, make: Callable[[], nn.Module]
) -> None:
    small = make()
    again = WAYS[way](WAYS[way](small))
    assert torch.equal(again(IMAGE), small(IMAGE))
    assert sizes_of(again) == sizes_of(small)
    assert again.state_dict().keys() == small.state_dict().keys()
    assert [type(module) for module in again.modules()] == [
        type(module) for module in small.modules()
    ]
    if way != "copy":
        with torch.no_grad():
            again.head.weight.zero_()
        assert small.head.weight.abs().sum() > 0


class OwnState(FromWidth):
    """Says itself what of it is pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self._modules, "scaled": self.scaled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["scaled"])  # type: ignore[misc]
        self._modules.update(state["parts"])


class OwnReduce(FromWidth):
    """Is pickled as a call of its class."""

    def __reduce__(self) -> Any:
        return type(self), (self.scaled,), {**self.__dict__}


@pytest.mark.parametrize("kind", [OwnState, OwnReduce])
def test_classes_that_pickle_themselves_their_own_way_keep_their_pins(
    kind: type[nn.Module],
) -> None:
    small = pinned(kind)
    for way in ("torch.save", "deepcopy"):
        again = WAYS[way](small)
        assert sizes_of(again) == sizes_of(small)
        assert torch.equal(again(IMAGE), small(IMAGE))


def test_classes_that_only_this_process_knows_travel_with_cloudpickle() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    class Here(FromWidth):
        pass

    small = pinned(Here)
    assert torch.equal(by(cloudpickle.dumps)(small)(IMAGE), small(IMAGE))


def test_an_average_of_weights_starts_from_a_copy() -> None:
    small = pinned()
    average = torch.optim.swa_utils.AveragedModel(small).eval()
    assert torch.equal(average(IMAGE), small(IMAGE))
    average.update_parameters(small)


def _answer(model: nn.Module, image: torch.Tensor, queue: Any) -> None:
    with torch.no_grad():
        queue.put(model(image).tolist())


def test_another_process_gets_the_model_with_its_pins() -> None:
    small, context = pinned(), multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(small, IMAGE, queue))
    process.start()
    try:
        answer = queue.get(timeout=120)
    finally:
        process.join(30)
        process.kill()
    torch.testing.assert_close(torch.tensor(answer), small(IMAGE).detach())


SCRIPT = """
import pickle, sys
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.qkv, self.head = nn.Conv2d(3, 12, 2, stride=2), nn.Linear(12, 36), nn.Linear(12, 2)

    def forward(self, x):
        x = self.first(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 3, c // 3).permute(2, 0, 3, 1, 4)
        return self.head(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c).mean(1))

file = sys.argv[1]
image = torch.ones(1, 3, 8, 8)
if sys.argv[2] == "write":
    import prunedge as pe
    model = Attention().eval()
    graph = pe.trace(model, image)
    small = pe.remove(model, graph, pe.Plan({"first": (0, 1, 2, 5), "qkv": (0, 2)}))
    torch.save((small, small(image)), file)
else:
    assert "prunedge" not in sys.modules
    small, wanted = torch.load(file, weights_only=False)
    assert torch.equal(small(image), wanted) and type(small).__name__ == "Attention" and isinstance(small, Attention)
    assert "prunedge.graph.sizes.pinned_modules" in sys.modules
"""


def test_a_model_of_a_script_is_loaded_by_the_script_in_a_process_that_knows_nothing_of_pins(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for what in ("write", "read"):
        subprocess.run(
            [sys.executable, str(script), str(tmp_path / "small.pt"), what], check=True, timeout=300
        )


def test_a_pinned_model_is_compiled_and_recorded() -> None:
    small = pinned()
    wanted = small(IMAGE)
    torch.testing.assert_close(torch.compile(small, backend="eager")(IMAGE), wanted)
    with pytest.warns():  # torch.jit.trace is deprecated, and says that shapes become constants
        recorded = torch.jit.trace(small, IMAGE, check_trace=False)
    torch.testing.assert_close(recorded(IMAGE), wanted)
    program = torch.export.export(small, (IMAGE,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for size in (2, 5):
        image = torch.randn(size, 3, 8, 8)
        torch.testing.assert_close(program.module()(image), small(image))


class Folded(FromWidth):
    """Heads in the batch dimension, for layers around it that know it as `FromWidth`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        x = self.qkv(x).view(b, n, 3, 3, c // 3).permute(2, 0, 3, 1, 4).reshape(3, b * 3, n, c // 3)
        q, k, v = x.unbind(0)
        y = torch.bmm((torch.bmm(q, k.transpose(1, 2)) * 0.5).softmax(-1), v)
        return self.proj(y.reshape(b, 3, n, c // 3).transpose(1, 2).reshape(b, n, c))


def test_blocks_that_are_folded_into_the_batch_are_exported_for_any_batch() -> None:
    model = randomise(Around(Folded()))
    small = operate(model, trace(model, IMAGE), HEADS).model.eval()
    assert [name for name, _ in pinned_modules(small)] == ["middle"]
    for size in (1, 3, 4):  # of which the traced batch is no divisor, or one
        assert small(torch.randn(size, 3, 8, 8)).shape == (size, 2)
    program = torch.export.export(small, (IMAGE,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for size in (2, 5):
        image = torch.randn(size, 3, 8, 8)
        torch.testing.assert_close(program.module()(image), small(image))


def test_threads_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    small, other = pinned(), slim()
    wanted = small(IMAGE), other(IMAGE)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: (small, other)[number % 2](IMAGE), range(40)))
    for number, answer in enumerate(found):
        torch.testing.assert_close(answer, wanted[number % 2])
