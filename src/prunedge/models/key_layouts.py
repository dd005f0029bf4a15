"""How torchvision and timm name the tensors of models that both have. Pure.

A file of either fills the model of the other. Only models that are the same function in both
libraries are here (`COUNTERPARTS`): each pair is built and compared by the tests. MobileNetV3,
EfficientNetV2 and EfficientNet-B5 and up, which divide by other small numbers in their norms, are
not. Nor is EfficientNet from timm to torchvision: timm's `tf_` models, which pad otherwise, have
the same names and shapes. ResNets, DenseNets and Inception need no table: both libraries name them
alike. The names themselves are in `key_namers`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from prunedge.models.key_namers import NAMERS, Namer

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

TORCHVISION = "torchvision"
TIMM = "timm"

_REGNET_SIZES = {
    "400mf": "004",
    "800mf": "008",
    "1_6gf": "016",
    "3_2gf": "032",
    "8gf": "080",
    "16gf": "160",
    "32gf": "320",
}


def _counterparts() -> dict[str, str]:
    names: dict[str, str] = {}
    for depth in (11, 13, 16, 19):
        for norm in ("", "_bn"):
            names[f"vgg{depth}{norm}"] = f"vgg{depth}{norm}"
    names["mobilenet_v2"] = "mobilenetv2_100"
    names["mnasnet0_5"] = "mnasnet_050"
    names["mnasnet0_75"] = "mnasnet_075"
    names["mnasnet1_0"] = "mnasnet_100"
    for width in range(5):
        names[f"efficientnet_b{width}"] = f"efficientnet_b{width}"
    for size in ("tiny", "small", "base", "large"):
        names[f"convnext_{size}"] = f"convnext_{size}"
    for size in ("base", "large"):
        for patch in (16, 32):
            names[f"vit_{size[0]}_{patch}"] = f"vit_{size}_patch{patch}_224"
    for size in ("tiny", "small", "base"):
        names[f"swin_{size[0]}"] = f"swin_{size}_patch4_window7_224"
    for kind in "xy":
        for size, timm_size in _REGNET_SIZES.items():
            names[f"regnet_{kind}_{size}"] = f"regnet{kind}_{timm_size}"

    # timm has these in two widths: torchvision's is called `_tv`.
    names["regnet_x_400mf"] = "regnetx_004_tv"
    names["regnet_y_800mf"] = "regnety_008_tv"
    names["regnet_y_8gf"] = "regnety_080_tv"
    return names


COUNTERPARTS = _counterparts()  # torchvision's name of a model -> timm's
# From torchvision to timm alone: what the models' names begin with.
ONE_WAY = ("efficientnet",)


def translated(model: str, given: Shapes, own: Shapes) -> tuple[str, dict[str, str]] | None:
    """Which library's names a file has that are not those of `model`'s, and the model's name for
    each of the file's.

    None where `model` has no counterpart, or the file has few of the counterpart's names. Names
    that have no counterpart stay as they are.
    """
    pair = _pair(model)
    if pair is None:
        return None
    library, namer, goes_back = pair
    modern = {name: _modern(name) for name in given}
    if library == TORCHVISION and any(name != now for name, now in modern.items()):
        return f"the older {TORCHVISION}", modern
    if library == TIMM:
        to_own = {torchvision_name: name for name, torchvision_name in namer(own).items()}
        return _without_prefix(TORCHVISION, modern, to_own)
    if not goes_back:
        return None

    prefix = _prefix_before(_SIGNS, given)
    if prefix is None:
        return None
    bare = {name: name.removeprefix(prefix) for name in given if name.startswith(prefix)}
    to_own = namer(bare.values())
    renamed = {name: to_own.get(short, short) for name, short in bare.items()}
    if not _fills(renamed.values(), own):
        return None
    return TIMM, {**{name: name for name in given}, **renamed}


def reshaped(given: Shape, own: Shape | None) -> Shape:
    """The model's shape, where the file has the same numbers in other dimensions.

    Otherwise the file's.
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
    """Whose model this is, how its counterpart's names come from timm's, and whether the names in
    a file of timm's tell which model it is of.
    """
    # Of a name that both libraries have, torchvision's model is meant, as `build` takes it.
    library = TORCHVISION if model in COUNTERPARTS else TIMM
    name = model if library == TORCHVISION else _torchvision_name(model)
    if not name:
        return None
    namer = next(namer for family, namer in NAMERS.items() if name.startswith(family))
    return library, namer, not name.startswith(ONE_WAY)


def _torchvision_name(model: str) -> str:
    """torchvision's name of a model of timm's; empty where it has none."""
    bare = model.removeprefix("timm/").split(".")[0]
    for name, timm_name in COUNTERPARTS.items():
        if timm_name == bare:
            return name
    return ""


def _prefix_before(endings: Collection[str], names: Collection[str]) -> str | None:
    """What stands before the first of these endings that a name has; None where none has any."""
    for name in names:
        for ending in endings:
            if name.endswith(ending):
                return name.removesuffix(ending)
    return None


def _without_prefix(
    library: str, names: Mapping[str, str], to_own: Mapping[str, str]
) -> tuple[str, dict[str, str]] | None:
    """The model's name for each of the file's, where most of them stand under a common prefix."""
    first = next(iter(to_own))
    prefix = _prefix_before([first], names.values())
    if prefix is None:
        return None
    renamed = {}
    for given, name in names.items():
        short = name.removeprefix(prefix)
        renamed[given] = to_own.get(short, short) if name.startswith(prefix) else given
    return (library, renamed) if _fills(renamed.values(), to_own.values()) else None


def _fills(names: Collection[str], wanted: Collection[str]) -> bool:
    """Whether more than half of the names that are wanted are there."""
    return 2 * len(set(wanted) & set(names)) > len(set(wanted))


def _modern(name: str) -> str:
    """torchvision's files of vision transformers are older than its models' names."""
    return name.replace("mlp.linear_1.", "mlp.0.").replace("mlp.linear_2.", "mlp.3.")
