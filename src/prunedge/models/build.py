"""From a name to a model with a head for the user's classes."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunedge.errors import ModelError, WeightsError
from prunedge.models.init import calm_head, initialise
from prunedge.models.weight_files import refuse_other_files
from prunedge.models.weights import Loaded, load_file, load_weights
from prunedge.utils import trust
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import traced

log = logging.getLogger(__name__)

# Auxiliary heads only help training and their channels would have to be pruned too. The input
# transform belongs to the model's own ImageNet weights; it's always on, so that a model rebuilt
# without weights is the same function.
TORCHVISION_OPTIONS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True)
class Maker:
    """How to make one model: `make(classes)` gives it with random weights, `imagenet(model,
    classes)` fills it.
    """

    name: str
    make: Callable[[int], nn.Module]
    imagenet: Callable[[nn.Module], dict[str, torch.Tensor]]
    own: bool = False  # the user's function: its random start is the user's affair


def build(
    name: str, classes: Sequence[str] | int, weights: str | Path = "imagenet", *, seed: int = 0
) -> nn.Module:
    """Build the model `name` with one output per class, in training mode, on the CPU, in float32.

    `name` is a torchvision name, a timm name (`timm/NAME` when both have it), or
    `package.module:function`, called as `function(num_classes=n)` with the working directory
    importable. `weights` is `imagenet` (the library's own, downloaded), `none` (random, from `seed`
    alone) or a file or folder that `read_weights` reads; a head of another number of classes, or
    one that the file doesn't have, stays random (`build_told` tells). torch's global random state
    is left as it was.

    Raises ModelError for a name that nobody knows (with the nearest ones), WeightsError for weights
    that can't be had or don't fit.

        model = build("resnet18", ["crack", "sound"], weights="none")
    """
    if isinstance(classes, str):
        raise ModelError(
            f"classes is a text, {classes!r}",
            where=name,
            remedy="give their names in a list, or how many",
        )
    trust.give(name)
    return build_told(name, classes, weights, seed=seed)[0]


def rebuild(name: str, classes: Sequence[str] | int, *, seed: int = 0) -> nn.Module:
    """What `build` gives with random weights, for a name that a file tells: `prunedge.utils.trust`
    must have been asked about it.
    """
    return build_told(name, classes, "none", seed=seed)[0]


@traced("build")
def build_told(
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
        maker = _maker(name)
        model = _made(maker, count)
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
            loaded = load_file(model, weights, head=head, model_name=name)
        _start_afresh(model, loaded.fresh, head, own=maker.own)
    return model.train(), loaded


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
    maker = _maker(name)
    if weights == "none":
        return
    if weights != "imagenet":
        refuse_other_files(weights)
    elif maker.own:
        raise WeightsError(f"{name} has no ImageNet weights of its own", remedy=_others())


def known_names() -> tuple[str, ...]:
    """List every name that `build` knows, torchvision's and timm's, sorted."""
    import timm
    import torchvision

    return tuple(
        sorted({*torchvision.models.list_models(module=torchvision.models), *timm.list_models()})
    )


def _maker(name: str) -> Maker:
    if ":" in name:
        return _users(name)
    import timm
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        return _torchvisions(name)
    bare = name.removeprefix("timm/")
    if bare.split(".")[0] in timm.list_models():
        return _timms(bare)
    near = difflib.get_close_matches(bare.lower(), known_names(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ModelError(
        f"no model is called {name!r}",
        remedy=f"{hint}any torchvision or timm name works, or package.module:function of your own",
    )


def _torchvisions(name: str) -> Maker:
    import torchvision

    options = _torchvision_options(name)

    def download(model: nn.Module) -> dict[str, torch.Tensor]:
        best = torchvision.models.get_model_weights(name).DEFAULT
        with _one_clear_line(name):
            return dict(best.get_state_dict(progress=False, check_hash=True))

    return Maker(
        name,
        lambda n: torchvision.models.get_model(name, weights=None, num_classes=n, **options),
        download,
    )


def _torchvision_options(name: str) -> dict[str, bool]:
    if name.startswith("vgg") and not name.endswith("_bn"):
        return {
            "init_weights": False
        }  # `initialise` draws the start of 130 million weights; once is enough
    return TORCHVISION_OPTIONS.get(name, {})


def _timms(name: str) -> Maker:
    import timm

    def download(model: nn.Module) -> dict[str, torch.Tensor]:
        if not timm.models.is_model_pretrained(name):
            raise WeightsError(f"timm has no ImageNet weights for {name}", remedy=_others())
        with _one_clear_line(name), _offline_unless_hub_answers():
            trained = timm.create_model(name, pretrained=True)
        cfg = getattr(trained, "pretrained_cfg", {})
        if not _is_near(cfg.get("mean", IMAGENET_MEAN), IMAGENET_MEAN):
            log.warning(
                "%s was trained with mean %s; fine-tuning adapts it to ImageNet's",
                name,
                cfg["mean"],
            )
        return trained.state_dict()

    return Maker(name, lambda n: timm.create_model(name, pretrained=False, num_classes=n), download)


def _users(name: str) -> Maker:
    module_name, _, attribute = name.partition(":")
    with working_directory_importable():
        try:
            function = getattr(importlib.import_module(module_name), attribute)
        except (
            Exception
        ) as error:  # whatever is in the user's module, or names that lead up or nowhere
            raise ModelError(
                f"can't import {name}: {error}",
                remedy="write it as package.module:function, run where it can be imported",
            ) from error

    def make(count: int) -> nn.Module:
        with working_directory_importable():
            model = function(num_classes=count)
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"{name} returned {type(model).__name__}",
                remedy="it has to return a torch.nn.Module",
            )
        return model

    def download(model: nn.Module) -> dict[str, torch.Tensor]:
        raise WeightsError(f"{name} has no ImageNet weights of its own", remedy=_others())

    return Maker(name, make, download, own=True)


def _made(maker: Maker, count: int) -> nn.Module:
    try:
        return maker.make(count).float()
    except ModelError:
        raise
    except Exception as error:  # a constructor of anybody's may raise anything
        pass_on(error)
        remedy = (
            "can it be built in Python with num_classes alone? else wrap it in a function of "
            "your own"
        )
        raise ModelError(
            f"{maker.name} can't be built for {count} classes: {error}", remedy=remedy
        ) from error


def _head(maker: Maker, model: nn.Module, count: int) -> frozenset[str]:
    """The names of the tensors whose shape follows the number of classes: found by building for one
    class more.
    """
    other = _on_meta(maker, count + 1)  # a large VGG takes seconds to draw
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return frozenset(
        name for name, tensor in model.state_dict().items() if tensor.shape != shapes.get(name)
    )


def fits_classes(name: str, model: nn.Module, count: int) -> bool:
    """Whether `model`, a model of that name, pruned or not, gives as many outputs: no removal takes
    any of those.
    """
    maker = _maker(name)
    try:
        named = _on_meta(maker, count).state_dict()
        more = _on_meta(maker, count + 1).state_dict()
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


def _on_meta(maker: Maker, count: int) -> nn.Module:
    """A model that has shapes and no memory, where its constructor lets it."""
    try:
        with torch.device("meta"):
            return _made(maker, count)
    except ModelError:  # a constructor that looks at its own values
        return _made(maker, count)


@contextmanager
def _one_clear_line(name: str) -> Iterator[None]:
    log.info("downloading the ImageNet weights of %s, unless they are here already", name)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (
        Exception
    ) as error:  # urllib, http clients, hubs and hash checks each raise kinds of their own
        pass_on(error)
        log.debug("download of %s failed", name, exc_info=True)
        raise WeightsError(
            f"the ImageNet weights of {name} can't be downloaded ({type(error).__name__})",
            remedy=f"{_others()}: a file that you have, or random weights",
        ) from error


@contextmanager
def _offline_unless_hub_answers() -> Iterator[None]:
    # The hub's client retries for most of a minute without a model; offline it looks into its
    # cache at once.
    from huggingface_hub import constants

    was = constants.HF_HUB_OFFLINE
    try:
        urllib.request.urlopen(
            urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10
        ).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Let the user's own modules be imported from where the command runs."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _is_near(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < 0.02 for a, b in zip(one, other, strict=True))


def _others() -> str:
    """Where a model's weights come from, if not from its library."""
    return f"use {option('weights', 'FILE')} or {option('weights', 'none')}"
