"""Weights from a file into a network, with nothing unpickled and nothing left out silently."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from prunedge.errors import WeightsError

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]
ENVELOPES = ("state_dict", "model_state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
COUNTER = "num_batches_tracked"


def read_weights(path: str | Path) -> State:
    """Read the tensors of a `.safetensors`, `.pth` or `.pt` file, or of a run or bundle folder, on the CPU.

    A `.pth` file holds a state dict, bare or under `state_dict`, `model_state_dict` or `model`, and is read with
    `weights_only=True`. A run folder gives its first, unpruned network, a bundle folder its own.
    Raises WeightsError when there is no such file, or it holds anything but finite tensors.
    """
    file = _file_in(Path(path))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the file holds more than tensors and isn't opened, since that could run its code",
            where=file,
            remedy="save net.state_dict() alone, or a .safetensors file",
        ) from error
    except Exception as error:  # zip, header and decoding errors of two libraries
        raise WeightsError(f"the file can't be read as weights ({type(error).__name__})", where=file) from error
    return _checked(_unwrapped(state), file)


def load_weights(
    net: nn.Module, state: Mapping[str, torch.Tensor], *, where: object, head: Callable[[], frozenset[str]] = frozenset
) -> tuple[str, ...]:
    """Copy `state` into `net` in place and return the names of the head's tensors that stayed random.

    `head()` names the tensors whose shape follows the number of classes: only these may differ in shape. Names may
    differ wholly when the two agree in order, last name part and shape. Batch counters may be missing, and auxiliary
    heads that the network doesn't have are left out; whatever else doesn't fit raises WeightsError, which names each
    tensor.
    """
    own = net.state_dict()
    state = _renamed(dict(state), own, where)
    dropped = sorted(key for key in state if key not in own and key.startswith(AUXILIARY))
    if dropped:
        log.info("%s: left out %d tensors of auxiliary heads", where, len(dropped))
    state = {key: tensor for key, tensor in state.items() if key not in dropped}
    unlike = {key for key in state if key in own and state[key].shape != own[key].shape}
    fresh = unlike & head() if unlike else set()
    _refuse_misfits(own, state, unlike - fresh, where)
    with torch.no_grad():
        for key in state.keys() - fresh:
            own[key].copy_(state[key])
    if fresh:
        log.info("%s: another number of classes, so %s start(s) from random weights", where, ", ".join(sorted(fresh)))
    return tuple(sorted(fresh))


def _file_in(path: Path) -> Path:
    if path.is_dir():
        for inside in ("model.safetensors", "first/model.safetensors", "checkpoints/step-000/model.safetensors"):
            if (path / inside).is_file():
                return path / inside
        raise WeightsError("the folder is neither a run nor a bundle: it has no model.safetensors", where=path)
    if not path.is_file():
        raise WeightsError("there is no such weights file", where=path, remedy="give imagenet, none, or a file that exists")
    return path


def _unwrapped(state: object) -> object:
    for key in ENVELOPES:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            return state[key]
    return state


def _checked(state: object, file: Path) -> State:
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"the file holds {type(state).__name__}, not named tensors", where=file)
    strange = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(f"entries that are not tensors: {', '.join(strange)}", where=file, remedy="save net.state_dict()")
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(f"tensors with values that are not finite: {', '.join(broken)}", where=file)
    return dict(state)


def _renamed(state: State, own: State, where: object) -> State:
    """The same tensors under the network's names, when only a wrapper's prefix or the naming as a whole differs."""
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in state) and not any(key.startswith(prefix) for key in own):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    if state.keys() & own.keys():
        return state
    theirs = [key for key in state if not key.endswith(COUNTER)]
    ours = [key for key in own if not key.endswith(COUNTER)]
    if len(theirs) != len(ours) or not all(_alike(state[a], a, own[b], b) for a, b in zip(theirs, ours, strict=True)):
        return state
    log.info("%s: names differ wholly; %d tensors taken in order, every shape agrees", where, len(theirs))
    return {b: state[a] for a, b in zip(theirs, ours, strict=True)}


def _alike(one: torch.Tensor, its_name: str, other: torch.Tensor, other_name: str) -> bool:
    # The first dimension of the head may differ: load_weights judges it.
    same_kind = its_name.rpartition(".")[2] == other_name.rpartition(".")[2]
    return same_kind and one.ndim == other.ndim and one.shape[1:] == other.shape[1:]


def _refuse_misfits(own: State, state: State, unlike: set[str], where: object) -> None:
    if not state.keys() & own.keys():
        raise WeightsError(
            f"none of the file's {len(state)} tensors is in the network: the file begins with {next(iter(state))}, "
            f"the network with {next(iter(own), 'nothing')}",
            where=where,
            remedy="choose the --model that they were saved from",
        )
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    foreign = [key for key in state if key not in own]
    shapes = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in state if key in unlike]
    faults = [
        f"{title}: {', '.join(names)}"
        for title, names in (("other shapes", shapes), ("missing", missing), ("not in the network", foreign))
        if names
    ]
    if faults:
        raise WeightsError(
            f"the weights don't fit the network; {'; '.join(faults)}",
            where=where,
            remedy="choose the --model that they were saved from",
        )
