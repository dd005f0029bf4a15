"""Names of models: torchvision's, timm's and the user's own functions, and how each is made."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.edge.image.normalise import HALF, IMAGENET_MEAN
from prunedge.errors import ExtraMissing, ModelError, WeightsError
from prunedge.models.downloads import offline_unless_hub_answers, one_clear_line
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on
from prunedge.utils.wording import counted, words_of

log = logging.getLogger(__name__)

# Auxiliary heads only help training and their channels would have to be pruned too. The input
# transform belongs to the model's own ImageNet weights; it's always on, so that a model rebuilt
# without weights is the same function.
TORCHVISION_OPTIONS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}
SMP = "smp:"  # segmentation-models-pytorch, by its architecture and its encoder
AUXILIARY = "aux_classifier."  # a head that helped to train torchvision's models of pixels


@dataclass(frozen=True)
class Maker:
    """How to make one model: `make(classes)` gives it with random weights, `imagenet(model,
    classes)` fills it.
    """

    name: str
    make: Callable[[int], nn.Module]
    imagenet: Callable[[nn.Module], dict[str, torch.Tensor]]
    own: bool = False  # the user's function: its random start is the user's affair
    encoder: str = ""  # the module in front of a decoder, which a classifier's weights fit
    classifier: str = ""  # the name of that classifier, where it is known


def known_names() -> tuple[str, ...]:
    """List every name that `build` knows, torchvision's and timm's, sorted."""
    import timm

    return tuple(sorted({*_names_of_torchvision(), *timm.list_models()}))


def _names_of_torchvision() -> list[str]:
    """torchvision's models of whole images, and those of pixels."""
    import torchvision

    modules = (torchvision.models, torchvision.models.segmentation)
    return [name for module in modules for name in torchvision.models.list_models(module=module)]


def maker_of(name: str) -> Maker:
    """How to make the model of that name; ModelError with near names where nobody knows it."""
    if name.startswith(SMP):
        return smp_maker(name)
    bare = name.removeprefix("torchvision:")
    if ":" in bare:
        return _users(name)
    if bare in _names_of_torchvision():
        return _torchvisions(bare)

    import timm  # after torchvision: it takes a second, which only its own models need

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
        with one_clear_line(name, other_weights()):
            state = best.get_state_dict(progress=False, check_hash=True)
        return {key: values for key, values in state.items() if not key.startswith(AUXILIARY)}

    is_of_pixels = "weights_backbone" in options
    return Maker(
        name,
        lambda n: torchvision.models.get_model(name, weights=None, num_classes=n, **options),
        download,
        encoder="backbone" if is_of_pixels else "",
    )


def _torchvision_options(name: str) -> dict[str, Any]:
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models.segmentation):
        # Unless told, its backbone downloads weights.
        return {"weights_backbone": None}
    if name.startswith("vgg") and not name.endswith("_bn"):
        # `initialise` draws the start of 130 million weights; once is enough.
        return {"init_weights": False}
    return TORCHVISION_OPTIONS.get(name, {})


def _timms(name: str) -> Maker:
    import timm

    def download(model: nn.Module) -> dict[str, torch.Tensor]:
        if not timm.models.is_model_pretrained(name):
            raise WeightsError(f"timm has no ImageNet weights for {name}", remedy=other_weights())
        with one_clear_line(name, other_weights()), offline_unless_hub_answers():
            trained = timm.create_model(name, pretrained=True)
        cfg = getattr(trained, "pretrained_cfg", {})
        if not _is_near(cfg.get("mean", IMAGENET_MEAN), IMAGENET_MEAN):
            log.warning("%s was trained on images of mean %s: %s", name, cfg["mean"], _advice(cfg))
        return trained.state_dict()

    return Maker(name, lambda n: timm.create_model(name, pretrained=False, num_classes=n), download)


def smp_maker(name: str) -> Maker:
    """The maker of `smp:ARCHITECTURE-ENCODER`: `smp:unet-resnet18`, `smp:fpn-tu-tinynet_e`.

    ExtraMissing where segmentation-models-pytorch is not installed, ModelError where it has no such
    architecture or encoder.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise ExtraMissing(
            f"{name} needs segmentation-models-pytorch",
            remedy="pip install 'prunedge[segmentation]'",
        ) from None

    architecture, _, encoder = name.removeprefix(SMP).partition("-")
    known = {
        "architecture": (architecture, list(smp.MODEL_ARCHITECTURES_MAPPING)),
        "encoder": (encoder, smp.encoders.get_encoder_names()),
    }
    for noun, (given, names) in known.items():
        if given not in names and not given.startswith("tu-"):
            near = difflib.get_close_matches(given, names, n=3, cutoff=0.4) or names[:3]
            raise ModelError(
                f"segmentation-models-pytorch has no {noun} called '{given}'",
                where=name,
                remedy=(
                    f"did you mean {', '.join(near)}? write smp:ARCHITECTURE-ENCODER, as "
                    "smp:unet-resnet18; tu-NAME is timm's encoder of that name"
                ),
            )

    def download(model: nn.Module) -> dict[str, torch.Tensor]:
        with one_clear_line(name, other_weights()), offline_unless_hub_answers():
            trained = smp.encoders.get_encoder(encoder, weights="imagenet")
        return {f"encoder.{key}": values for key, values in trained.state_dict().items()}

    return Maker(
        name,
        lambda n: smp.create_model(architecture, encoder, encoder_weights=None, classes=n),
        download,
        encoder="encoder",
        classifier=encoder.replace("tu-", "timm/", 1) if encoder.startswith("tu-") else "",
    )


def _users(name: str) -> Maker:
    module_name, _, attribute = name.partition(":")
    with working_directory_importable():
        try:
            function = getattr(importlib.import_module(module_name), attribute)
        # Whatever is in the user's module, or names that lead up or nowhere.
        except Exception as error:
            raise ModelError(
                f"can't import {name}: {words_of(error)}",
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
        raise WeightsError(f"{name} has no ImageNet weights of its own", remedy=other_weights())

    return Maker(name, make, download, own=True)


def made(maker: Maker, count: int) -> nn.Module:
    """The model for `count` classes, in float32; ModelError where its library can't make it."""
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
            f"{maker.name} can't be built for {counted(count, 'class', 'classes')}: "
            f"{words_of(error)}",
            remedy=remedy,
        ) from error


def made_on_meta(maker: Maker, count: int) -> nn.Module:
    """A model that has shapes and no memory, where its constructor lets it."""
    try:
        with torch.device("meta"):
            return made(maker, count)
    except ModelError:  # a constructor that looks at its own values
        return made(maker, count)


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Let the user's own modules be imported from where the command runs."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _advice(cfg: Mapping[str, Any]) -> str:
    """What to do about weights that were trained on images of another mean than ImageNet's."""
    if _is_near(cfg["mean"], HALF):
        return f"{option('image_norm', 'half')} gives it such"
    return "fine-tuning adapts it to ImageNet's"


def _is_near(first: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < 0.02 for a, b in zip(first, other, strict=True))


def other_weights() -> str:
    """Where a model's weights come from, if not from its library."""
    return f"use {option('weights', 'FILE')} or {option('weights', 'none')}"
