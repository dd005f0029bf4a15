"""How torchvision and timm name the tensors of models that both have: a file of either fills the
model of the other. Pure.

Only models that are one function in both libraries are here (`COUNTERPARTS`): each pair is built
and compared by the tests. MobileNetV3, EfficientNetV2 and EfficientNet-B5 and up, which divide by
other small numbers in their norms, are not. Nor is EfficientNet from timm to torchvision: timm's
`tf_` models, which pad otherwise, have the same names and shapes. ResNets, DenseNets and Inception
need no table: both libraries name them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Namer = Callable[[Collection[str]], dict[str, str]]  # timm's names of a model -> torchvision's

TORCHVISION, TIMM = "torchvision", "timm"

# torchvision's name -> timm's, by what both begin with.
COUNTERPARTS = {
    **{f"vgg{depth}{bn}": f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")},
    "mobilenet_v2": "mobilenetv2_100",
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    **{f"efficientnet_b{width}": f"efficientnet_b{width}" for width in range(5)},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{
        f"vit_{size[0]}_{patch}": f"vit_{size}_patch{patch}_224"
        for size in ("base", "large")
        for patch in (16, 32)
    },
    **{f"swin_{size[0]}": f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")},
    **{
        f"regnet_{kind}_{ours}": f"regnet{kind}_{theirs}"
        for kind in "xy"
        for ours, theirs in (
            ("400mf", "004"),
            ("800mf", "008"),
            ("1_6gf", "016"),
            ("3_2gf", "032"),
            ("8gf", "080"),
            ("16gf", "160"),
            ("32gf", "320"),
        )
    },
    # These are as wide as torchvision has them, and not as the others.
    "regnet_x_400mf": "regnetx_004_tv",
    "regnet_y_800mf": "regnety_008_tv",
    "regnet_y_8gf": "regnety_080_tv",
}
# From torchvision to timm alone.
ONE_WAY = ("efficientnet",)


def translated(model: str, theirs: Shapes, own: Shapes) -> tuple[str, dict[str, str]] | None:
    """Which library's names a file has that are not those of `model`'s, and the file's names in the
    model's own.

    None where `model` has no counterpart, or the file has few of the counterpart's names. Names
    that have no counterpart stay as they are.
    """
    found = _pair(model)
    if found is None:
        return None
    library, namer, goes_back = found
    if library == TORCHVISION and (older := {name: _modern(name) for name in theirs}) != {
        name: name for name in theirs
    }:
        return f"the older {TORCHVISION}", older
    if library == TIMM:
        named = {after: before for before, after in namer(own).items()}
        return _stripped(TORCHVISION, {name: _modern(name) for name in theirs}, named)
    if not goes_back:
        return None
    prefix = next(
        (name.removesuffix(sign) for name in theirs for sign in _SIGNS if name.endswith(sign)), None
    )
    if prefix is None:
        return None
    bare = {name: name.removeprefix(prefix) for name in theirs if name.startswith(prefix)}
    named = namer(bare.values())
    renamed = {name: named.get(short, short) for name, short in bare.items()}
    return (
        (TIMM, {**{name: name for name in theirs}, **renamed})
        if _fills(renamed.values(), own)
        else None
    )


def reshaped(given: Shape, own: Shape | None) -> Shape:
    """The model's shape, where the file has the same numbers in the same order and only lays them
    out in other dimensions.
    """
    if own is not None and prod(given) == prod(own) and given[:1] == own[:1]:
        return own
    return given


# The first tensor of each of timm's families.
_SIGNS = (
    "pre_logits.fc1.weight",
    "conv_stem.weight",
    "stem.0.weight",
    "patch_embed.proj.weight",
    "stem.conv.weight",
)


def _pair(model: str) -> tuple[str, Namer, bool] | None:
    """Whose model this is, how its counterpart's names come from timm's, and whether a file of
    timm's tells which model it is.
    """
    if (
        model in COUNTERPARTS
    ):  # of a name that both have, torchvision's is meant, as `build` takes it
        library, name = TORCHVISION, model
    else:
        bare = model.removeprefix("timm/").split(".")[0]
        library, name = (
            TIMM,
            next((ours for ours, counterpart in COUNTERPARTS.items() if counterpart == bare), ""),
        )
    if not name:
        return None
    namer = next(namer for start, namer in _NAMERS.items() if name.startswith(start))
    return library, namer, not name.startswith(ONE_WAY)


def _stripped(
    library: str, names: Mapping[str, str], named: Mapping[str, str]
) -> tuple[str, dict[str, str]] | None:
    """The file's names in the model's own, where `named` has most of them under one prefix."""
    first = next(iter(named))
    prefix = next(
        (name.removesuffix(first) for name in names.values() if name.endswith(first)), None
    )
    if prefix is None:
        return None
    renamed = {}
    for given, name in names.items():
        short = name.removeprefix(prefix)
        renamed[given] = named.get(short, short) if name.startswith(prefix) else given
    return (library, renamed) if _fills(renamed.values(), named.values()) else None


def _fills(found: Collection[str], wanted: Collection[str]) -> bool:
    return 2 * len(set(wanted) & set(found)) > len(set(wanted))


def _modern(name: str) -> str:
    """torchvision's files of vision transformers are older than its models' names."""
    return name.replace("mlp.linear_1.", "mlp.0.").replace("mlp.linear_2.", "mlp.3.")


# timm's names -> torchvision's


def _by_rules(rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]) -> Namer:
    """Names by the first pattern that fits from their beginning; others have no counterpart."""
    compiled = [(re.compile(pattern), made) for pattern, made in rules]

    def named(names: Collection[str]) -> dict[str, str]:
        found = {}
        for name in names:
            for pattern, made in compiled:
                if pattern.match(name):
                    found[name] = pattern.sub(made, name, count=1)
                    break
        return found

    return named


def _doubled(pattern: str, less: int, rest: str) -> tuple[str, Callable[[re.Match[str]], str]]:
    """Stages that torchvision lists with what comes between them: stage S is number 2S + 1, the
    step before it 2S.
    """
    return pattern, lambda found: f"features.{2 * int(found[1]) + 1 - less}.{found.expand(rest)}"


# The parts of a block of inverted residuals, in timm's words, and of the first one, which doesn't
# widen.
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


def _inverted(
    place: Callable[[int, int, Sequence[tuple[int, int]]], str],
    widening: Sequence[str],
    first: Sequence[str],
    ends: Callable[[Sequence[tuple[int, int]]], dict[str, str]],
) -> Namer:
    """Models of inverted residuals: `place` names a block from its stage, its number and all
    blocks; `ends` what is around them.
    """

    def named(names: Collection[str]) -> dict[str, str]:
        blocks = sorted(
            {(int(found[1]), int(found[2])) for name in names if (found := _BLOCK.match(name))}
        )
        around, made = ends(blocks), {}
        for name in names:
            module, _, kind = name.rpartition(".")
            if module in around:
                made[name] = f"{around[module]}.{kind}"
            elif found := _BLOCK.match(name):
                stage, number, part = int(found[1]), int(found[2]), found[3]
                parts = (
                    dict(zip(_FIRST, first, strict=True))
                    if stage == 0
                    else dict(zip(_WIDENING, widening, strict=True))
                )
                if part in parts:
                    made[name] = f"{place(stage, number, blocks)}.{parts[part]}.{kind}"
        return made

    return named


def _around(
    last: Callable[[Sequence[tuple[int, int]]], int],
) -> Callable[[Sequence[tuple[int, int]]], dict[str, str]]:
    def ends(blocks: Sequence[tuple[int, int]]) -> dict[str, str]:
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
_REGNET_PARTS = {
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


def _regnet_block(found: re.Match[str]) -> str:
    stage, number = found[1], int(found[2]) - 1
    return f"trunk_output.block{stage}.block{stage}-{number}.{_REGNET_PARTS[found[3]]}."


_REGNET = _by_rules(
    [
        (r"stem\.conv\.", "stem.0."),
        (r"stem\.bn\.", "stem.1."),
        (rf"s(\d+)\.b(\d+)\.({'|'.join(map(re.escape, _REGNET_PARTS))})\.", _regnet_block),
        (r"head\.fc\.", "fc."),
    ]
)

_NAMERS: dict[str, Namer] = {
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
