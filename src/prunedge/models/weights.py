"""Weights from a file into a model, with nothing unpickled and nothing left out silently."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models.key_layouts import Shape, reshaped, translated
from prunedge.models.key_matching import match
from prunedge.models.key_modules import Match, Misfit, listed
from prunedge.models.state_dicts import State
from prunedge.models.weight_files import open_weights

log = logging.getLogger(__name__)

# How libraries call a tensor that all their models of a kind have, and what model to ask for
# instead.
LAYOUTS = (
    ("encoder.layers.encoder_layer_0.", "torchvision's vision transformers (vit_b_16)"),
    (
        "encoder.layer.0.attention.",
        (
            "transformers' models (load them there, save what timm/NAME or a function of "
            "yours expects)"
        ),
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
        """One line that says it."""
        parts = [f"{len(self.pairs)} tensors {self.how}"]
        if self.converted:
            parts.append(f"converted from {self.converted}")
        if self.fresh:
            parts.append(f"new, from random weights: {listed(self.fresh)}")
        if self.left_out:
            parts.append(f"left out of the file: {_by_top(self.left_out)}")
        if self.note:
            parts.append(self.note)
        return f"weights: {self.source}: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "fresh": list(self.fresh), "left_out": list(self.left_out)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Loaded:
        """The inverse of `to_json`."""
        return Loaded(
            **{**record, "fresh": tuple(record["fresh"]), "left_out": tuple(record["left_out"])}
        )


def read_weights(path: str | Path) -> State:
    """Read the tensors of a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file, or of a run or
    bundle folder, on the CPU.

    A file of torch holds a state dict, bare or inside of what a trainer keeps (`state_dict`,
    `model`, `model`, `model_ema`, `teacher`; averaged weights are taken before others), and is read
    with `weights_only=True`: of objects beside the tensors, such as Lightning's hyperparameters,
    nothing is imported or run. A run folder gives its first, unpruned model, a bundle folder its
    own. Raises WeightsError when there is no such file, or it holds anything but finite tensors,
    with the command that converts it.
    """
    return open_weights(path).state


def load_file(
    model: nn.Module,
    path: str | Path,
    *,
    head: Callable[[], frozenset[str]] = frozenset,
    model_name: str = "",
) -> Loaded:
    """Read the weights in `path` and load them into `model` in place: `read_weights` and
    `load_weights` in one.
    """
    found = open_weights(path)
    loaded = load_weights(
        model,
        found.state,
        where=f"{model_name}, {path}" if model_name else path,
        head=head,
        model_name=model_name,
    )
    notes = [f"from its entry {found.entry}"] if found.entry else []
    if found.others:
        notes.append(f"not from {', '.join(found.others)}")
    return Loaded(**{**vars(loaded), "source": str(path), "note": ", ".join(notes)})


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
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    try:
        found = _translated(model_name, theirs, shapes, head) or match(theirs, shapes, head)
    except Misfit as fault:
        said = f"the weights don't fit the model; {fault}" if fault.share else str(fault)
        raise WeightsError(said, where=where, remedy=_remedy(state, own, fault.remedy)) from None
    converted = _converted(found, state, own, where)
    with torch.no_grad():
        for name, given in found.pairs.items():
            own[name].copy_(state[given].reshape(own[name].shape))
    loaded = Loaded(found.pairs, found.how, found.fresh, found.left_out, converted, str(where))
    log.info("%s", loaded.sentence())
    return loaded


def _translated(
    model: str,
    theirs: Mapping[str, Shape],
    own: Mapping[str, Shape],
    head: Callable[[], frozenset[str]],
) -> Match | None:
    """The match of a file with another library's names for this model; None where it is no such
    file. Misfit where it doesn't fit.
    """
    found = translated(model, theirs, own)
    if found is None:
        return None
    library, names = found
    given = {names[name]: name for name in theirs}
    matched = match(
        {named: reshaped(theirs[name], own.get(named)) for named, name in given.items()}, own, head
    )
    pairs = {name: given[named] for name, named in matched.pairs.items()}
    return Match(
        pairs,
        f"by {library}'s names",
        matched.fresh,
        tuple(given[named] for named in matched.left_out),
    )


def _remedy(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], known: str) -> str:
    """Which model to choose instead, as far as the names tell; or else what is `known` to
    help.
    """
    for sign, library in LAYOUTS:
        if any(sign in name for name in state) and not any(sign in name for name in own):
            return f"the names are those of {library}; choose the model that they were saved from"
    return known or "choose the model that they were saved from"


def _converted(
    found: Match, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], where: object
) -> str:
    """The types that have to be converted, in words; WeightsError for those that can't be."""
    kinds: Counter[torch.dtype] = Counter()
    strange = []
    for name, given in found.pairs.items():
        dtype = state[given].dtype
        if not own[name].is_floating_point() or dtype == own[name].dtype:
            continue
        if dtype not in (*HALF, torch.float32):
            strange.append(f"{given} ({str(dtype).removeprefix('torch.')})")
        kinds[dtype] += 1
    if strange:
        raise WeightsError(
            f"tensors that are not of floating point: {listed(strange)}",
            where=where,
            remedy="save the weights in float32, before they are quantised",
        )
    return ", ".join(str(dtype).removeprefix("torch.") for dtype, _ in kinds.most_common())


def _by_top(names: Sequence[str]) -> str:
    """How many tensors of which parts of the file: `130 of encoder_k, queue`."""
    tops = Counter(_part(name) for name in names)
    return listed([f"{count} of {top}" if count > 1 else top for top, count in tops.items()])


def _part(name: str) -> str:
    parts = [part for part in name.split(".") if part != "module"]
    return parts[0]
