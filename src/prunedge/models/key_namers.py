"""From timm's names of a model's tensors to torchvision's, for each family of models."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

Namer = Callable[[Collection[str]], dict[str, str]]  # timm's names of a model -> torchvision's


def _by_rules(rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]) -> Namer:
    """Names by the first pattern that fits from their beginning; others have no counterpart."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def translate(names: Collection[str]) -> dict[str, str]:
        translated = {}
        for name in names:
            for pattern, replacement in compiled:
                if pattern.match(name):
                    translated[name] = pattern.sub(replacement, name, count=1)
                    break
        return translated

    return translate


def _doubled(pattern: str, less: int, rest: str) -> tuple[str, Callable[[re.Match[str]], str]]:
    """Stages that torchvision lists with the downsampling between them.

    Stage S is number 2S + 1, the downsampling before it 2S (`less` 1).
    """
    return pattern, lambda match: f"features.{2 * int(match[1]) + 1 - less}.{match.expand(rest)}"


# The layers of a block of inverted residuals in timm's names, and those of the first block, which
# doesn't widen.
_WIDENING = (
    "conv_pw",
    "bn1",
    "conv_dw",
    "bn2",
    "se.conv_reduce",
    "se.conv_expand",
    "conv_pwl",
    "bn3",
)
_FIRST = ("conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2")
_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)$")

Blocks = Sequence[tuple[int, int]]  # (stage, number) of each block, sorted


def _inverted(
    block_name: Callable[[int, int, Blocks], str],
    widening: Sequence[str],
    first: Sequence[str],
    ends: Callable[[Blocks], dict[str, str]],
) -> Namer:
    """Models of inverted residuals.

    `block_name` names a block from its stage, its number and all blocks; `widening` and `first` are
    torchvision's names of a block's layers, `ends` those of what is around the blocks.
    """
    layers = dict(zip(_WIDENING, widening, strict=True))
    layers_of_first = dict(zip(_FIRST, first, strict=True))

    def translate(names: Collection[str]) -> dict[str, str]:
        blocks = _blocks(names)
        around = ends(blocks)
        translated = {}
        for name in names:
            module, _, kind = name.rpartition(".")
            match = _BLOCK.match(name)
            if module in around:
                translated[name] = f"{around[module]}.{kind}"
            elif match:
                stage = int(match[1])
                number = int(match[2])
                layer = (layers_of_first if stage == 0 else layers).get(match[3])
                if layer is not None:
                    translated[name] = f"{block_name(stage, number, blocks)}.{layer}.{kind}"
        return translated

    return translate


def _blocks(names: Collection[str]) -> Blocks:
    blocks: set[tuple[int, int]] = set()
    for name in names:
        match = _BLOCK.match(name)
        if match:
            blocks.add((int(match[1]), int(match[2])))
    return sorted(blocks)


def _around(last: Callable[[Blocks], int]) -> Callable[[Blocks], dict[str, str]]:
    """The layers around the blocks; `last` says which of torchvision's `features` is the last."""

    def ends(blocks: Blocks) -> dict[str, str]:
        end = f"features.{last(blocks)}"
        return {
            "conv_stem": "features.0.0",
            "bn1": "features.0.1",
            "conv_head": f"{end}.0",
            "bn2": f"{end}.1",
            "classifier": "classifier.1",
        }

    return ends


_MNASNET_ENDS = {
    "conv_stem": "layers.0",
    "bn1": "layers.1",
    "conv_head": "layers.14",
    "bn2": "layers.15",
    "classifier": "classifier.1",
}

_VGG = _by_rules(
    [
        (r"features\.", "features."),
        (r"pre_logits\.fc1\.", "classifier.0."),
        (r"pre_logits\.fc2\.", "classifier.3."),
        (r"head\.fc\.", "classifier.6."),
    ]
)
_CONVNEXT = _by_rules(
    [
        (r"stem\.", "features.0."),
        _doubled(r"stages\.(\d+)\.downsample\.", 1, ""),
        _doubled(r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.", 0, r"\2.block.0."),
        _doubled(r"stages\.(\d+)\.blocks\.(\d+)\.norm\.", 0, r"\2.block.2."),
        _doubled(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.", 0, r"\2.block.3."),
        _doubled(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.", 0, r"\2.block.5."),
        _doubled(r"stages\.(\d+)\.blocks\.(\d+)\.gamma$", 0, r"\2.layer_scale"),
        (r"head\.norm\.", "classifier.0."),
        (r"head\.fc\.", "classifier.2."),
    ]
)
_VIT = _by_rules(
    [
        (r"cls_token$", "class_token"),
        (r"pos_embed$", "encoder.pos_embedding"),
        (r"patch_embed\.proj\.", "conv_proj."),
        (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
        (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
        (
            r"blocks\.(\d+)\.attn\.proj\.",
            r"encoder.layers.encoder_layer_\1.self_attention.out_proj.",
        ),
        (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
        (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
        (r"norm\.", "encoder.ln."),
        (r"head\.", "heads.head."),
    ]
)
_SWIN = _by_rules(
    [
        (r"patch_embed\.proj\.", "features.0.0."),
        (r"patch_embed\.norm\.", "features.0.2."),
        _doubled(r"layers\.(\d+)\.downsample\.", 1, ""),
        _doubled(r"layers\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.", 0, r"\2.mlp.0."),
        _doubled(r"layers\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.", 0, r"\2.mlp.3."),
        _doubled(r"layers\.(\d+)\.blocks\.(\d+)\.", 0, r"\2."),
        (r"norm\.", "norm."),
        (r"head\.fc\.", "head."),
    ]
)
_REGNET_LAYERS = {
    "conv1.conv": "f.a.0",
    "conv1.bn": "f.a.1",
    "conv2.conv": "f.b.0",
    "conv2.bn": "f.b.1",
    "se.fc1": "f.se.fc1",
    "se.fc2": "f.se.fc2",
    "conv3.conv": "f.c.0",
    "conv3.bn": "f.c.1",
    "downsample.conv": "proj.0",
    "downsample.bn": "proj.1",
}


def _regnet_block(match: re.Match[str]) -> str:
    stage = match[1]
    number = int(match[2]) - 1
    return f"trunk_output.block{stage}.block{stage}-{number}.{_REGNET_LAYERS[match[3]]}."


_REGNET = _by_rules(
    [
        (r"stem\.conv\.", "stem.0."),
        (r"stem\.bn\.", "stem.1."),
        (rf"s(\d+)\.b(\d+)\.({'|'.join(map(re.escape, _REGNET_LAYERS))})\.", _regnet_block),
        (r"head\.fc\.", "fc."),
    ]
)

NAMERS: dict[str, Namer] = {
    "vgg": _VGG,
    "mobilenet_v2": _inverted(
        lambda stage, number, blocks: f"features.{blocks.index((stage, number)) + 1}.conv",
        ("0.0", "0.1", "1.0", "1.1", "", "", "2", "3"),
        ("0.0", "0.1", "", "", "1", "2"),
        _around(lambda blocks: len(blocks) + 1),
    ),
    "mnasnet": _inverted(
        lambda stage, number, blocks: f"layers.{stage + 7}.{number}.layers" if stage else "layers",
        ("0", "1", "3", "4", "", "", "6", "7"),
        ("3", "4", "", "", "6", "7"),
        lambda blocks: _MNASNET_ENDS,
    ),
    "efficientnet": _inverted(
        lambda stage, number, blocks: f"features.{stage + 1}.{number}.block",
        ("0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"),
        ("0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"),
        _around(lambda blocks: blocks[-1][0] + 2),
    ),
    "convnext": _CONVNEXT,
    "vit": _VIT,
    "swin": _SWIN,
    "regnet": _REGNET,
}
