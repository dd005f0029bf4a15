"""Code that works its sizes out from others, or writes them down: its calls are pinned where the proof shows that this is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from prunedge.errors import GraphError, WeightsError
from prunedge.graph import trace
from prunedge.graph.masking import masking
from prunedge.graph.plan import Plan
from prunedge.surgery import adopt, masked_outputs, operate, restore_model, save_model, sizes_of
from prunedge.surgery.slicing import leaving_slices
from tests.small_models import Baked, randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class FromWidth(nn.Module):
    """Attention whose head width is the width of its input divided by the heads: wrong as soon as only one of them is pruned."""

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.num_heads, self.scaled = 3, scaled
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = (
            self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        )
        scale = (c // self.num_heads) ** -0.5 if self.scaled else 0.5
        y = (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class Scales(nn.Module):
    """A convolution split into parts of a width that an attribute holds."""

    def __init__(self) -> None:
        super().__init__()
        self.part = 4
        self.a, self.b = nn.Conv2d(12, 12, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, middle, right = torch.split(self.a(x), self.part, 1)
        return torch.cat((left, self.b(middle), right), 1)


class Around(nn.Module):
    """A model around one of these layers, which sees tokens or images."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.head = nn.Conv2d(3, 12, 2, stride=2), middle, nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if isinstance(self.middle, FromWidth):
            return self.head(self.middle(x.flatten(2).transpose(1, 2)).mean(1))
        return self.head(torch.relu(self.middle(x)).mean((2, 3)))


def attention() -> nn.Module:
    return randomise(Around(FromWidth()))


EMBEDDING = Plan({"first": (0, 1, 3, 4, 6, 9, 11)})
HEADS = Plan({"middle.qkv": (0, 2)})


@pytest.mark.parametrize("plan", [EMBEDDING, HEADS, Plan({**EMBEDDING.keep, **HEADS.keep})])
def test_a_width_worked_out_from_another_is_pinned(plan: Plan) -> None:
    model = attention()
    surgery = operate(model, trace(model, IMAGE), plan)
    assert surgery.refused == {}
    assert surgery.difference <= 1e-7
    assert any(name == "middle()" for name in sizes_of(surgery.model))


def test_an_attribute_that_a_split_reads_is_mended() -> None:
    model = randomise(Around(Scales()))
    surgery = operate(model, trace(model, IMAGE), Plan({"middle.b": (1, 2), "middle.a": (0, 3)}))
    assert surgery.refused == {}
    assert surgery.difference <= 1e-6
    assert sizes_of(surgery.model) == {"middle.part": 2}
    assert surgery.model.middle.part == 2


def test_a_split_by_a_number_is_pinned() -> None:
    class Written(Scales):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, middle, right = torch.split(self.a(x), 4, 1)
            return torch.cat((left, self.b(middle), right), 1)

    model = randomise(Around(Written()))
    surgery = operate(model, trace(model, IMAGE), Plan({"middle.b": (1, 2), "middle.a": (0, 3)}))
    assert surgery.refused == {}
    assert surgery.difference <= 1e-7
    assert list(sizes_of(surgery.model)) == ["middle()"]


def test_a_size_that_is_written_down_is_pinned() -> None:
    model = randomise(Baked())
    surgery = operate(model, trace(model, IMAGE), Plan({"a": (0, 1, 2), "b": (0, 1)}))
    assert surgery.refused == {}
    assert surgery.model.a.out_channels == 3


class Scaled(nn.Module):
    """A convolution whose output is scaled by a number that its width, and the height of the image, make."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.a, self.b, self.hidden = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 12, 1), hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        scale = y.shape[1] ** -0.5 * y.shape[2] / 4
        return self.b(torch.sigmoid(y * (torch.tensor(scale) if self.hidden else scale)))


def test_a_scale_worked_out_from_a_width_is_pinned() -> None:
    model = randomise(Around(FromWidth(scaled=True)))
    graph = trace(model, IMAGE)
    for plan in (EMBEDDING, HEADS, Plan({**EMBEDDING.keep, **HEADS.keep})):
        surgery = operate(model, graph, plan)
        assert surgery.refused == {}
        assert surgery.difference <= 1e-7


def test_a_pinned_scale_follows_the_image_s_size() -> None:
    model, plan = randomise(Around(Scaled(False))), Plan({"middle.a": (0, 2, 5)})
    small = operate(model, trace(model, IMAGE), plan).model.eval()
    other = torch.randn(2, 3, 12, 8)
    again = operate(model, trace(model, other), plan).model.eval()
    torch.testing.assert_close(small(other), again(other))
    ((_, turn, factor),) = sizes_of(small)["middle()"]["factors"]
    assert (turn, factor) == (0, pytest.approx((3 / 8) ** 0.5))


def test_a_scale_in_a_tensor_stays_what_it_was() -> None:
    model, plan = randomise(Around(Scaled(True))), Plan({"middle.a": (0, 2, 5), "first": (1, 2)})
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, plan)
    assert surgery.refused == {}
    assert surgery.difference <= 1e-7
    other = torch.randn(2, 3, 12, 8)
    (wanted,) = masked_outputs(model, graph, plan, example=other)
    torch.testing.assert_close(surgery.model.eval()(other), wanted)
    assert list(sizes_of(surgery.model)["middle()"]["reads"].values()) == [[[1, 3, 8]]] * 2


def test_a_scale_is_not_hidden_by_flat_attention() -> None:
    """Attention that is almost uniform hides a wrong scale from any tolerance that float32 needs."""

    class Hidden(FromWidth):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, c = x.shape
            q, k, v = (
                self.qkv(x)
                .reshape(b, n, 3, self.num_heads, c // self.num_heads)
                .permute(2, 0, 3, 1, 4)
            )
            scale = torch.tensor((c // self.num_heads) ** -0.5, dtype=x.dtype)
            return self.proj(
                ((q @ k.transpose(-2, -1) * scale).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
            )

    model = randomise(Around(Hidden()))
    with torch.no_grad():
        model.middle.qkv.weight.mul_(1e-2)
        model.middle.qkv.bias.mul_(1e-2)
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, EMBEDDING)
    assert surgery.refused == {}
    # The width of the embedding is what it was to the code: the scale, too.
    assert list(sizes_of(surgery.model)["middle()"]["reads"].values()) == [
        [[2, len(EMBEDDING.keep["first"]), 12]]
    ]
    assert operate(model, graph, HEADS).refused == {}


def test_modules_whose_own_code_is_right_are_not_pinned() -> None:
    model = nn.Sequential(
        randomise(Around(FromWidth())), nn.Flatten(), nn.Unflatten(1, (2, 1)), nn.Flatten()
    )
    small = operate(model, trace(model, IMAGE), Plan({"0.middle.qkv": (0, 2)})).model
    assert list(sizes_of(small)) == ["0.middle()"]


def test_a_pinned_model_takes_other_batches_and_images() -> None:
    model = attention()
    graph = trace(model, IMAGE)
    small = operate(model, graph, EMBEDDING).model.eval()
    for shape in [(1, 3, 8, 8), (5, 3, 8, 8), (2, 3, 12, 16)]:
        other = torch.randn(shape)
        again = operate(model, trace(model, other), EMBEDDING).model.eval()
        torch.testing.assert_close(small(other), again(other))


def test_a_pinned_model_is_pruned_again() -> None:
    model = attention()
    first = operate(model, trace(model, IMAGE), EMBEDDING).model
    graph = trace(first, IMAGE)
    assert graph.group("first").size == 7
    second = operate(first, graph, Plan({"first": (0, 2, 3, 6), "middle.qkv": (1,)}))
    assert second.refused == {}
    whole = Plan(
        {
            "first": tuple(np.array(EMBEDDING.keep["first"])[[0, 2, 3, 6]].tolist()),
            "middle.qkv": (1,),
        }
    )
    direct = operate(model, trace(model, IMAGE), whole).model
    torch.testing.assert_close(second.model.eval()(IMAGE), direct.eval()(IMAGE))


def test_a_pinned_model_is_saved_and_restored(tmp_path: Path) -> None:
    model = attention()
    small = operate(model, trace(model, IMAGE), Plan({**EMBEDDING.keep, **HEADS.keep})).model.eval()
    save_model(small, tmp_path / "model.safetensors")
    again = restore_model(attention(), tmp_path / "model.safetensors").eval()
    assert torch.equal(again(IMAGE), small(IMAGE))
    assert sizes_of(again) == sizes_of(small)


def test_a_pinned_model_is_exported(tmp_path: Path) -> None:
    model = attention()
    small = operate(model, trace(model, IMAGE), EMBEDDING).model.eval()
    batch = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        small,
        (IMAGE,),
        tmp_path / "model.onnx",
        dynamo=True,
        dynamic_shapes=batch,
        input_names=["x"],
    )
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for size in (1, 4):
        x = torch.randn(size, 3, 8, 8)
        np.testing.assert_allclose(
            session.run(None, {"x": x.numpy()})[0], small(x).detach().numpy(), atol=1e-5
        )


class Sometimes(FromWidth):
    """Another way through the code for images of at least `many` places."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if x.shape[1] < self.many else y.reshape(len(x), -1, 2, 6).flatten(2)


def test_a_way_that_larger_images_take_is_known() -> None:
    model = randomise(Around(Sometimes(32)))
    small = operate(model, trace(model, IMAGE), HEADS).model.eval()
    image = torch.randn(2, 3, 8, 16)
    again = operate(model, trace(model, image), HEADS).model.eval()
    torch.testing.assert_close(small(image), again(image))


def test_a_way_through_the_code_that_tracing_has_not_seen_is_an_error() -> None:
    model = randomise(Around(Sometimes(36)))
    small = operate(model, trace(model, IMAGE), HEADS).model.eval()
    assert small(IMAGE).shape == (2, 2)
    with pytest.raises(GraphError, match="took a way"):
        small(torch.randn(2, 3, 12, 12))


def test_sizes_that_do_not_belong_to_the_model_are_refused() -> None:
    model = attention()
    small = operate(model, trace(model, IMAGE), EMBEDDING).model
    with pytest.raises(WeightsError, match="absent"):
        adopt(
            attention(),
            small.state_dict(),
            {"absent()": {"places": {}, "sizes": [], "factors": []}},
        )


def test_a_model_that_was_saved_with_numbered_calls_is_refused() -> None:
    model = attention()
    small = operate(model, trace(model, IMAGE), EMBEDDING).model
    old = {
        "middle()": {
            "calls": {"0": {"2": [3, 3], "3": [3, 3], "4": [4, 4]}},
            "factors": {},
            "totals": [2],
        }
    }
    with pytest.raises(WeightsError, match="saved sizes do not fit the model"):
        adopt(attention(), small.state_dict(), old)


def test_a_parameter_that_is_reshaped_by_a_size_is_pinned() -> None:
    class Learned(FromWidth):
        def __init__(self) -> None:
            super().__init__()
            self.heat = nn.Parameter(torch.rand(3) + 0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, c = x.shape
            q, k, v = (
                self.qkv(x)
                .reshape(b, n, 3, self.num_heads, c // self.num_heads)
                .permute(2, 0, 3, 1, 4)
            )
            y = (q @ k.transpose(-2, -1) * self.heat.view(1, 3, 1, 1)).softmax(-1) @ v
            return self.proj(y.transpose(1, 2).reshape(b, n, c))

    model = randomise(Around(Learned()))
    surgery = operate(model, trace(model, IMAGE), Plan({**EMBEDDING.keep, **HEADS.keep}))
    assert surgery.refused == {}
    assert surgery.model.middle.heat.shape == (2,)


class Levels(nn.Module):
    """A pyramid whose levels have different widths, divided in one loop; in training it may leave the first one out."""

    def __init__(self, widths: tuple[int, ...] = (8, 6)) -> None:
        super().__init__()
        self.widths, self.first = widths, 0
        self.stems = nn.ModuleList(nn.Conv2d(3, width, 1) for width in widths)
        self.heads = nn.ModuleList(nn.Conv2d(width, 4, 1) for width in widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(x), 4)
        for level in range(self.first, len(self.widths)):
            y = torch.relu(self.stems[level](x))
            y = y.view(len(x), self.widths[level] // 2 * 2, *x.shape[2:])
            found = found + self.heads[level](y).mean((2, 3))
        return found


def test_rounds_of_a_loop_have_their_own_sizes() -> None:
    model = randomise(Levels())
    surgery = operate(
        model, trace(model, IMAGE), Plan({"stems.0": (0, 1, 5), "stems.1": (2, 3, 4, 5)})
    )
    assert surgery.refused == {}
    small = surgery.model.eval()
    small.first = 1
    with pytest.raises(GraphError, match="do not fit"):
        small(IMAGE)


def test_a_loop_of_equal_rounds_may_be_longer() -> None:
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.b(self.a(one[None]).view(1, 8, *one.shape[1:])) for one in x])

    model = randomise(Each())
    small = operate(model, trace(model, IMAGE), Plan({"a": (1, 4, 7)})).model.eval()
    for batch in (1, 5):
        assert small(torch.randn(batch, 3, 8, 8)).shape == (batch, 2, 8, 8)


class Trained(nn.Module):
    """Training adds calls that name sizes before the others: a factor of its own, and a head that names channels by number."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.extra = FromWidth(scaled=True), nn.Linear(12, 2)
        self.first, self.head = nn.Conv2d(3, 12, 2, stride=2), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        if self.training:
            x = x.view(len(x), 12, *x.shape[2:]) * 0.5
            extra = self.extra(x.reshape(len(x), 12, -1).mean(2) * (x.shape[1] / 24))
        x = x.reshape(len(x), 12, -1).transpose(1, 2)
        out = self.head(self.attention(x).mean(1))
        return (out, extra) if self.training else out


def test_calls_that_training_adds_are_known() -> None:
    model = randomise(Trained())
    plan = Plan({"first": (0, 1, 3, 4, 6, 9, 11), "attention.qkv": (0, 2)})
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, plan)
    assert surgery.refused == {}
    small = surgery.model.train()
    out, extra = small(IMAGE)
    with masking(leaving_slices(model, graph, plan)):
        wanted = model.train()(IMAGE)
    # The number of channels is one of their factors.
    torch.testing.assert_close((out, extra), wanted)
    (out.sum() + extra.sum()).backward()
    assert small.eval()(IMAGE).shape == (2, 2)
