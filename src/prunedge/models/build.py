"""From a name to a model with a head for the user's classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import InChannels
from prunedge.errors import ModelError, WeightsError
from prunedge.models.init import calm_head, initialise
from prunedge.models.makers import Maker, made, made_on_meta, maker_of, other_weights
from prunedge.models.one_channel import of_grey, see_grey, sees_grey
from prunedge.models.weight_files import Found, open_weights, refuse_other_files
from prunedge.models.weights import Loaded, load_opened, load_weights
from prunedge.utils import trust
from prunedge.utils.advice import option
from prunedge.utils.arguments import require
from prunedge.utils.tracing import traced

IMAGENET_CLASSES = 1000


def build(
    name: str,
    classes: Sequence[str] | int,
    weights: str | Path = "imagenet",
    *,
    seed: int = 0,
    in_channels: InChannels = 3,
    image_norm: ImageNorm = "imagenet",
) -> nn.Module:
    """Build the model `name` with one output per class, in training mode, on the CPU, in float32.

    `name` is a torchvision name, a timm name (`timm/NAME` when both have it),
    `smp:ARCHITECTURE-ENCODER` of segmentation-models-pytorch (`smp:unet-resnet18`), or
    `package.module:function`, called as `function(num_classes=n)` with the working directory
    importable. `weights` is `imagenet` (the library's own, downloaded), `none` (random, from `seed`
    alone) or a file or folder that `read_weights` reads; a head of another number of classes, or
    one that the file doesn't have, stays random (`build_with_report` tells). torch's global random
    state is left as it was.

    With `in_channels=1` it takes grey images (n, 1, height, width): it is the model of three
    colours whose first convolution is summed over them, so that it answers the same to grey images,
    which are normalised by `image_norm`. Weights in a file may be of one channel already, and a
    function of your own has to make such a model.

    Raises ModelError for a name that nobody knows (with the nearest ones) and for a model that
    can't see one channel, WeightsError for weights that can't be had or don't fit.

        model = build("resnet18", ["crack", "sound"], weights="none")
    """
    require("name", name, str, "the name of a model")
    require("classes", classes, (int, Collection), "a list of names, or how many")
    require("weights", weights, (str, os.PathLike), "imagenet, none or a path")
    if isinstance(classes, str):
        raise ModelError(
            f"classes is a text, {classes!r}",
            where=name,
            remedy="give their names in a list, or how many",
        )
    trust.give(name)
    require("in_channels", in_channels, int, "1 (grey) or 3 (colours)")
    if in_channels not in (1, 3):
        raise ModelError(
            f"a model that sees {in_channels} channels",
            where=name,
            remedy=f"give {option('in_channels', 1)} (grey) or {option('in_channels', 3)}",
        )
    return build_with_report(
        name, classes, weights, seed=seed, in_channels=in_channels, image_norm=image_norm
    )[0]


def require_model(model: object) -> None:
    """TypeError where something else was given than a model: its name, say."""
    require("model", model, nn.Module, "an nn.Module, such as prunedge.build(...) gives")


def rebuild(
    name: str, classes: Sequence[str] | int, *, seed: int = 0, in_channels: InChannels = 3
) -> nn.Module:
    """What `build` gives with random weights, for a name that a file tells: `prunedge.utils.trust`
    must have been asked about it.
    """
    return build_with_report(name, classes, "none", seed=seed, in_channels=in_channels)[0]


@traced("build")
def build_with_report(
    name: str,
    classes: Sequence[str] | int,
    weights: str | Path = "imagenet",
    *,
    seed: int = 0,
    in_channels: InChannels = 3,
    image_norm: ImageNorm = "imagenet",
) -> tuple[nn.Module, Loaded | None]:
    """What `build` gives, and what became of the weights: None for random ones."""
    count = classes if isinstance(classes, int) else len(classes)
    if count < 1:
        raise ModelError(
            "a model needs at least one class", where=name, remedy="give its classes, or how many"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        maker = maker_of(name)
        model = made(maker, count)
        is_to_see_grey = in_channels == 1 and not maker.own
        if in_channels == 1 and maker.own:
            _refuse_colours(model, name)

        @cache
        def head() -> frozenset[str]:
            return _head(maker, model, count)

        if str(weights) == "none":
            loaded = None
            if not maker.own:
                initialise(model)
                calm_head(model, head())
        elif str(weights) == "imagenet":
            loaded = load_weights(
                model, maker.imagenet(model), where=f"{name}, imagenet", head=head
            )
        else:
            opened = open_weights(weights)
            grey = of_grey(opened.state, model, name) if is_to_see_grey else None
            if grey is not None:
                head()  # by the shapes of the model as its library makes it
                see_grey(model, image_norm, name)
                opened = replace(opened, state=grey)
                is_to_see_grey = False
            loaded = _from_file(maker, name, model, opened, weights, head)
        if loaded is not None:
            _start_afresh(model, loaded.fresh, head, own=maker.own)
        if is_to_see_grey:
            summed = see_grey(model, image_norm, name)
            loaded = None if loaded is None else _with_sum(loaded, summed)
    return model.train(), loaded


def _from_file(
    maker: Maker,
    name: str,
    model: nn.Module,
    opened: Found,
    file: str | Path,
    head: Callable[[], frozenset[str]],
) -> Loaded:
    """Load the weights of a file: those of the whole model, or a classifier's into its encoder.

    `name` is the model's as it was asked for: `timm/NAME` tells whose names its tensors have.
    """
    try:
        return load_opened(model, opened, file, head=head, model_name=name)
    except WeightsError:
        ways = [_into_encoder] if maker.encoder else []
        ways += [_by_way_of_classifier] if maker.classifier else []
        for way in ways:
            with suppress(WeightsError):
                return way(maker, model, opened, file, head)
        raise


def _into_encoder(
    maker: Maker,
    model: nn.Module,
    opened: Found,
    file: str | Path,
    head: Callable[[], frozenset[str]],
) -> Loaded:
    """Load a classifier's weights into the encoder, whose names are its own."""
    encoder = model.get_submodule(maker.encoder)
    loaded = load_opened(encoder, opened, file, model_name=f"{maker.name}, {maker.encoder}")
    prefix = f"{maker.encoder}."
    beyond = [name for name in model.state_dict() if not name.startswith(prefix)]
    return replace(
        loaded,
        pairs={f"{prefix}{name}": given for name, given in loaded.pairs.items()},
        fresh=(*(f"{prefix}{name}" for name in loaded.fresh), *beyond),
    )


def _by_way_of_classifier(
    maker: Maker,
    model: nn.Module,
    opened: Found,
    file: str | Path,
    head: Callable[[], frozenset[str]],
) -> Loaded:
    """Load a classifier's weights under other names: first into that classifier, which has as many
    tensors, and from there into the encoder.
    """
    whole = maker_of(maker.classifier)
    classifier = made(whole, IMAGENET_CLASSES)
    read = load_opened(
        classifier,
        opened,
        file,
        head=lambda: _head(whole, classifier, IMAGENET_CLASSES),
        model_name=maker.classifier,
    )
    loaded = load_weights(model, classifier.state_dict(), where=file, head=head)
    # Counters of batches may be missing in the file.
    known = read.pairs
    pairs = {name: known[given] for name, given in loaded.pairs.items() if given in known}
    left_out = [known[given] for given in loaded.left_out if given in known]
    return replace(loaded, pairs=pairs, left_out=tuple(left_out), how=read.how)


def _refuse_colours(model: nn.Module, name: str) -> None:
    """ModelError where the user's own model takes no image of one channel."""
    if not sees_grey(model):
        raise ModelError(
            f"{name} has no convolution that takes one channel",
            where=option("in_channels", 1),
            remedy="let the function make its first convolution for one, or leave three channels",
        )


def _with_sum(loaded: Loaded, layer: str) -> Loaded:
    """What became of weights, with the convolution that was summed over the colours."""
    note = f"{layer} is summed over the three colours, for grey images"
    return replace(loaded, note=f"{loaded.note}, {note}" if loaded.note else note)


def _start_afresh(
    model: nn.Module, fresh: Sequence[str], head: Callable[[], frozenset[str]], *, own: bool
) -> None:
    """Give what the weights lack a start: calm where classes come out, and so that the signal keeps
    its size before that.
    """
    if not fresh:
        return
    final = head()
    if not own:
        initialise(model, [name for name in fresh if name not in final])
    calm_head(model, [name for name in fresh if name in final])


def refuse_unknown(name: str, weights: str) -> None:
    """Raise ModelError for a model's name that nobody knows, WeightsError for weights that it
    can't have; nothing is built or read.
    """
    maker = maker_of(name)
    if weights == "none":
        return
    if weights != "imagenet":
        refuse_other_files(weights)
    elif maker.own:
        raise WeightsError(f"{name} has no ImageNet weights of its own", remedy=other_weights())


def _head(maker: Maker, model: nn.Module, count: int) -> frozenset[str]:
    """The names of the tensors whose shape follows the number of classes: found by building for one
    class more.
    """
    other = made_on_meta(maker, count + 1)  # a large VGG takes seconds to draw
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return frozenset(
        name for name, tensor in model.state_dict().items() if tensor.shape != shapes.get(name)
    )


def fits_classes(name: str, model: nn.Module, count: int) -> bool:
    """Whether `model`, a model of that name, pruned or not, gives as many outputs: no removal takes
    any of those.
    """
    maker = maker_of(name)
    try:
        named = made_on_meta(maker, count).state_dict()
        more = made_on_meta(maker, count + 1).state_dict()
    except ModelError:  # a function of somebody's own that makes one number of classes alone
        return True

    own = model.state_dict()
    for key in named.keys() & more.keys() & own.keys():
        for size, other, real in zip(
            named[key].shape, more[key].shape, own[key].shape, strict=False
        ):
            if size != other and real != size:
                return False
    return True
