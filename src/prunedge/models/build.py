"""From a name to a model with a head for the user's classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from prunedge.errors import ModelError, WeightsError
from prunedge.models.init import calm_head, initialise
from prunedge.models.makers import Maker, made, made_on_meta, maker_of, other_weights
from prunedge.models.weight_files import refuse_other_files
from prunedge.models.weights import Loaded, load_file, load_weights
from prunedge.utils import trust
from prunedge.utils.arguments import require
from prunedge.utils.tracing import traced

IMAGENET_CLASSES = 1000


def build(
    name: str, classes: Sequence[str] | int, weights: str | Path = "imagenet", *, seed: int = 0
) -> nn.Module:
    """Build the model `name` with one output per class, in training mode, on the CPU, in float32.

    `name` is a torchvision name, a timm name (`timm/NAME` when both have it),
    `smp:ARCHITECTURE-ENCODER` of segmentation-models-pytorch (`smp:unet-resnet18`), or
    `package.module:function`, called as `function(num_classes=n)` with the working directory
    importable. `weights` is `imagenet` (the library's own, downloaded), `none` (random, from `seed`
    alone) or a file or folder that `read_weights` reads; a head of another number of classes, or
    one that the file doesn't have, stays random (`build_with_report` tells). torch's global random
    state is left as it was.

    Raises ModelError for a name that nobody knows (with the nearest ones), WeightsError for weights
    that can't be had or don't fit.

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
    return build_with_report(name, classes, weights, seed=seed)[0]


def require_model(model: object) -> None:
    """TypeError where something else was given than a model: its name, say."""
    require("model", model, nn.Module, "an nn.Module, such as prunedge.build(...) gives")


def rebuild(name: str, classes: Sequence[str] | int, *, seed: int = 0) -> nn.Module:
    """What `build` gives with random weights, for a name that a file tells: `prunedge.utils.trust`
    must have been asked about it.
    """
    return build_with_report(name, classes, "none", seed=seed)[0]


@traced("build")
def build_with_report(
    name: str, classes: Sequence[str] | int, weights: str | Path = "imagenet", *, seed: int = 0
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
        if str(weights) == "none":
            if not maker.own:
                initialise(model)
                calm_head(model, _head(maker, model, count))
            return model.train(), None

        def head() -> frozenset[str]:
            return _head(maker, model, count)

        if str(weights) == "imagenet":
            loaded = load_weights(
                model, maker.imagenet(model), where=f"{name}, imagenet", head=head
            )
        else:
            loaded = _from_file(maker, model, weights, head)
        _start_afresh(model, loaded.fresh, head, own=maker.own)
    return model.train(), loaded


def _from_file(
    maker: Maker, model: nn.Module, file: str | Path, head: Callable[[], frozenset[str]]
) -> Loaded:
    """Load the weights of a file: those of the whole model, or a classifier's into its encoder."""
    try:
        return load_file(model, file, head=head, model_name=maker.name)
    except WeightsError:
        ways = [_into_encoder] if maker.encoder else []
        ways += [_by_way_of_classifier] if maker.classifier else []
        for way in ways:
            with suppress(WeightsError):
                return way(maker, model, file, head)
        raise


def _into_encoder(
    maker: Maker, model: nn.Module, file: str | Path, head: Callable[[], frozenset[str]]
) -> Loaded:
    """Load a classifier's weights into the encoder, whose names are its own."""
    encoder = model.get_submodule(maker.encoder)
    loaded = load_file(encoder, file, model_name=f"{maker.name}, {maker.encoder}")
    prefix = f"{maker.encoder}."
    beyond = [name for name in model.state_dict() if not name.startswith(prefix)]
    return replace(
        loaded,
        pairs={f"{prefix}{name}": given for name, given in loaded.pairs.items()},
        fresh=(*(f"{prefix}{name}" for name in loaded.fresh), *beyond),
    )


def _by_way_of_classifier(
    maker: Maker, model: nn.Module, file: str | Path, head: Callable[[], frozenset[str]]
) -> Loaded:
    """Load a classifier's weights under other names: first into that classifier, which has as many
    tensors, and from there into the encoder.
    """
    whole = maker_of(maker.classifier)
    classifier = made(whole, IMAGENET_CLASSES)
    read = load_file(
        classifier,
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
