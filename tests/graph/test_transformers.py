"""Models of the transformers library, small and with random weights: prunable nearly throughout, and proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.graph import trace
from prunedge.pruning.select import random_plan
from prunedge.surgery import TOLERANCE, masked_outputs, operate
from tests.small_models import randomise

pytestmark = pytest.mark.slow


class _Library:
    """transformers, imported when a test asks for one of its classes: the plain tests run without it."""

    def __getattr__(self, name: str) -> Any:
        if not name[0].isupper():  # pytest looks for marks and fixtures on whatever a module holds
            raise AttributeError(name)
        return getattr(
            pytest.importorskip(
                "transformers", reason="needs transformers: pip install -e '.[zoo]'"
            ),
            name,
        )


transformers = _Library()

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
}
VISION: dict[str, Any] = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT: dict[str, Any] = {**SIZES, "vocab_size": 50, "max_position_embeddings": 12}


class Answers(nn.Module):
    """What the model says, without the hidden states that the library hands over beside it (they are outputs, and stay)."""

    def __init__(self, model: nn.Module, *names: str, head: int = 0) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.head = nn.Linear(head, 3) if head else nn.Identity()

    def forward(self, **inputs: torch.Tensor) -> list[torch.Tensor]:
        answer = self.model(**inputs)
        return [self.head(answer[name]) for name in self.names]


def images(size: int = 32, count: int = 2) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.randn(
            count, 3, size, size, generator=torch.Generator().manual_seed(count)
        )
    }


def with_words(count: int = 2) -> dict[str, torch.Tensor]:
    words = torch.randint(3, 49, (count, 7), generator=torch.Generator().manual_seed(count))
    words[:, -1] = 2  # the end
    return {**images(count=count), "input_ids": words, "attention_mask": torch.ones_like(words)}


def clip() -> nn.Module:
    text = {**TEXT, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return Answers(transformers.CLIPModel(config), "logits_per_image", "logits_per_text")


def clip_vision() -> nn.Module:
    return Answers(
        transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)),
        "pooler_output",
        head=32,
    )


def siglip() -> nn.Module:
    return Answers(
        transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)),
        "logits_per_image",
    )


def yolos() -> nn.Module:
    config = transformers.YolosConfig(**{**VISION, "image_size": [32, 32]}, num_detection_tokens=5)
    return Answers(transformers.YolosForObjectDetection(config), "logits", "pred_boxes")


def dpt() -> nn.Module:
    config = transformers.DPTConfig(
        **{**VISION, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 12, 16, 16],
        fusion_hidden_size=8,
    )
    return Answers(transformers.DPTForDepthEstimation(config), "predicted_depth")


def depth_anything() -> nn.Module:
    backbone = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=28,
        patch_size=7,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 12, 16, 16],
        fusion_hidden_size=8,
        patch_size=7,
    )
    return Answers(transformers.DepthAnythingForDepthEstimation(config), "predicted_depth")


MODELS: dict[
    str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor], dict[str, torch.Tensor]]
] = {
    "CLIP": (clip, with_words(), with_words(3)),
    "CLIP's vision": (clip_vision, images(), images(count=3)),
    "SigLIP": (siglip, with_words(), with_words(3)),
    "YOLOS": (yolos, images(), images(48, 1)),
    "DPT": (dpt, images(), images(64, 1)),
    "Depth Anything": (depth_anything, images(28), images(42, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_transformers_is_prunable_and_equals_its_masked_original_at_another_size(
    name: str,
) -> None:
    torch.manual_seed(0)
    make, example, other = MODELS[name]
    model = randomise(make()).eval()
    graph = trace(model, example)
    used = graph.params() - sum(
        p.numel()
        for n, p in model.named_parameters()
        if "fusion_stage.layers.0.residual_layer1" in n
    )
    assert graph.prunable_share() * graph.params() >= 0.95 * used, graph.frozen
    plan = random_plan(graph, 0.4, torch.Generator().manual_seed(1))
    surgery = operate(model, graph, plan)
    assert surgery.refused == {}
    assert surgery.difference <= TOLERANCE
    small = surgery.model.eval()
    for found, wanted in zip(
        small(**other), masked_outputs(model, replace(graph, example=other), plan), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    again = trace(small, example)
    assert again.macs() == graph.macs(plan)
    assert (
        operate(small, again, random_plan(again, 0.3, torch.Generator().manual_seed(2))).refused
        == {}
    )
