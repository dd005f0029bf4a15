"""Weights from a file into a model, with nothing unpickled and nothing left out silently."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models.key_layouts import Shape, reshaped, translated
from prunedge.models.key_matching import match
from prunedge.models.key_modules import Match, Misfit
from prunedge.models.state_dicts import State
from prunedge.models.weight_files import Found, open_weights
from prunedge.utils.advice import option
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)

# How libraries call a tensor that all their models of a kind have, and what model to ask for
# instead.
LAYOUTS = (
    ("encoder.layers.encoder_layer_0.", "torchvision's vision transformers (vit_b_16)"),
    (
        "encoder.layer.0.attention.",
        "transformers' models (load them there, save what timm/NAME or a function of "
        "yours expects)",
    ),
    ("blocks.0.attn.qkv.", "timm's vision transformers (timm/NAME)"),
    ("stages.0.blocks.0.", "timm's models (timm/NAME)"),
    ("layers.0.blocks.0.attn.", "timm's Swin transformers (timm/NAME)"),
    ("features.0.0.", "torchvision's models (without timm/)"),
    ("conv_stem.", "timm's models (timm/NAME)"),
)
HALF = (torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Loaded:
    """What became of a file's tensors.

    `pairs` leads from the model's names to the file's, and `how` says by what they were matched.
    `fresh` names the model's tensors that start from random weights, `left_out` the file's that
    have no place in it. `converted` says from which type numbers were converted to float32 ('' for
    none), `source` where the tensors come from, and `note` what is to be known of that.
    """

    pairs: dict[str, str]
    how: str
    fresh: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    converted: str = ""
    source: str = ""
    note: str = ""

    def sentence(self) -> str:
        """The same in words, on a line."""
        clauses = [f"{counted(len(self.pairs), 'tensor')} {self.how}"]
        if self.converted:
            clauses.append(f"converted from {self.converted}")
        if self.fresh:
            clauses.append(f"new, from random weights: {first_of(self.fresh)}")
        if self.left_out:
            clauses.append(f"left out of the file: {_by_top(self.left_out)}")
        if self.note:
            clauses.append(self.note)
        return f"weights: {self.source}: {'; '.join(clauses)}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "fresh": list(self.fresh), "left_out": list(self.left_out)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Loaded:
        """The inverse of `to_json`."""
        fields = dict(record)
        fields["fresh"] = tuple(record["fresh"])
        fields["left_out"] = tuple(record["left_out"])
        return Loaded(**fields)


def read_weights(path: str | Path) -> State:
    """Read the tensors of a file of weights, or of a run or bundle folder, on the CPU.

    The file is a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin`.

    A file of torch holds a state dict, bare or inside of what a trainer keeps (`state_dict`,
    `model`, `net`, `model_ema`, `teacher`; averaged weights are taken before others), and is read
    with `weights_only=True`: of objects beside the tensors, such as Lightning's hyperparameters,
    nothing is imported or run. A run folder gives its first, unpruned model, a bundle folder its
    own. Raises WeightsError when there is no such file, or it holds anything but finite tensors,
    with the command that converts it.
    """
    return open_weights(path).state


def load_opened(
    model: nn.Module,
    opened: Found,
    path: str | Path,
    *,
    head: Callable[[], frozenset[str]] = frozenset,
    model_name: str = "",
) -> Loaded:
    """Load the weights that were found in `path` into `model` in place, as `load_weights` does."""
    loaded = load_weights(
        model,
        opened.state,
        where=f"{model_name}, {path}" if model_name else path,
        head=head,
        model_name=model_name,
    )
    notes = []
    if opened.entry:
        notes.append(f"from its entry {opened.entry}")
    if opened.others:
        notes.append(f"not from {', '.join(opened.others)}")
    return replace(loaded, source=str(path), note=", ".join(notes))


def load_weights(
    model: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    where: object,
    head: Callable[[], frozenset[str]] = frozenset,
    model_name: str = "",
) -> Loaded:
    """Copy `state` into `model` in place and tell what was taken from where.

    Names may differ by what wraps the model, in their separators, or wholly, where both sides agree
    in order, kind and shape and no other assignment would be as good
    (`prunedge.models.key_matching`). Of a `model_name` that torchvision and timm both have, the
    file may be the other library's (`prunedge.models.key_layouts`). `head()` names the tensors
    whose shape follows the number of classes: these may be missing or of another shape, and so may
    whole modules behind all that is in the file; they stay random. Batch counters may be missing;
    heads, projectors and loss weights that the model doesn't have are left out.

    Raises WeightsError, which names each tensor, for whatever else doesn't fit, and for integers
    and complex numbers.
    """
    own = model.state_dict()
    given_shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    own_shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    try:
        matched = _translated(model_name, given_shapes, own_shapes, head)
        matched = matched or match(given_shapes, own_shapes, head)
    except Misfit as misfit:
        what = f"the weights don't fit the model; {misfit}" if misfit.share else str(misfit)
        raise WeightsError(what, where=where, remedy=_remedy(state, own, misfit.remedy)) from None

    converted = _converted(matched, state, own, where)
    with torch.no_grad():
        for name, given in matched.pairs.items():
            own[name].copy_(state[given].reshape(own[name].shape))
    loaded = Loaded(
        matched.pairs, matched.how, matched.fresh, matched.left_out, converted, str(where)
    )
    log.info("%s", loaded.sentence())
    return loaded


def _translated(
    model: str,
    given: Mapping[str, Shape],
    own: Mapping[str, Shape],
    head: Callable[[], frozenset[str]],
) -> Match | None:
    """The match of a file with another library's names for this model.

    None where it is no such file; Misfit where it doesn't fit.
    """
    translation = translated(model, given, own)
    if translation is None:
        return None
    library, names = translation

    given_names = {names[name]: name for name in given}  # translated name -> the file's
    shapes = {}
    for named, name in given_names.items():
        shapes[named] = reshaped(given[name], own.get(named))
    matched = match(shapes, own, head)
    pairs = {name: given_names[named] for name, named in matched.pairs.items()}
    left_out = [given_names[named] for named in matched.left_out]
    return Match(pairs, f"by {library}'s names", matched.fresh, tuple(left_out))


def _remedy(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], known: str) -> str:
    """Which model to choose instead, as far as the names tell; else what is `known` to help."""
    for sign, library in LAYOUTS:
        is_given = any(sign in name for name in state)
        if is_given and not any(sign in name for name in own):
            return f"the names are those of {library}; choose the model that they were saved from"
    for name, tensor in own.items():
        of_one = (len(tensor), 1, *tensor.shape[2:]) if tensor.ndim == 4 else None
        is_of_one = name in state and tuple(state[name].shape) == of_one
        if of_one is not None and tensor.shape[1] == 3 and is_of_one:
            return f"they see grey images: {option('in_channels', 1)}"
    return known or "choose the model that they were saved from"


def _converted(
    matched: Match,
    state: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    where: object,
) -> str:
    """The types that have to be converted, in words; WeightsError for those that can't be."""
    kinds: Counter[torch.dtype] = Counter()
    unfit = []
    for name, given in matched.pairs.items():
        dtype = state[given].dtype
        if not own[name].is_floating_point() or dtype == own[name].dtype:
            continue
        if dtype not in (*HALF, torch.float32):
            unfit.append(f"{given} ({str(dtype).removeprefix('torch.')})")
        kinds[dtype] += 1
    if unfit:
        raise WeightsError(
            f"tensors that are not of floating point: {first_of(unfit)}",
            where=where,
            remedy="save the weights in float32, before they are quantised",
        )
    return ", ".join(str(dtype).removeprefix("torch.") for dtype, _ in kinds.most_common())


def _by_top(names: Sequence[str]) -> str:
    """How many tensors of which outermost modules: `130 of encoder_k, queue`."""
    counts = Counter(_top(name) for name in names)
    return first_of([f"{count} of {top}" if count > 1 else top for top, count in counts.items()])


def _top(name: str) -> str:
    """The outermost module of a tensor, without what wraps the model."""
    words = [word for word in name.split(".") if word != "module"]
    return words[0]
