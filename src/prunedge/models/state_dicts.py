"""The state dict that is meant among all that a file of weights holds, and what it must be like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from prunedge.errors import WeightsError
from prunedge.models.sealed import sealed
from prunedge.utils.wording import first_of

State = dict[str, torch.Tensor]
Keys = tuple[str, ...]  # those that lead to an entry of a file

# Where trainers keep their weights, the best first: averaged weights are the better ones (timm and
# torchvision evaluate them).
AVERAGED = (
    "state_dict_ema",
    "model_state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "ema",
    "params_ema",
)
USUAL = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net_state_dict",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "teacher",
    "student",
    "backbone",
    "encoder",
)
# Entries whose tensors are no model's: what an optimiser remembers, class weights, random states.
NO_MODEL = (
    "optim",
    "sched",
    "scaler",
    "rng",
    "callback",
    "loops",
    "loss",
    "criterion",
    "hparams",
    "hyper_param",
    "metric",
)
DEEPEST = 4
LOAD = "torch.load({file!r}, map_location='cpu', weights_only=False)"


def find_entry(content: object, file: Path) -> tuple[Keys, list[Keys]]:
    """The keys that lead to the state dict that is meant, and to the others that there are."""
    path = sealed(content)
    if path:
        raise _whole_object(path, file, "")
    states = dict(_states(content, ()))
    if not states:
        raise _no_state(content, file)

    complete = max(len(state) for state in states.values())
    rank = {keys: _rank(keys, len(state), complete) for keys, state in states.items()}
    first, *others = sorted(states, key=lambda keys: rank[keys])
    if others and rank[first] == rank[others[0]]:
        names = ", ".join(".".join(keys) for keys in (first, *others))
        raise WeightsError(
            f"the file holds several models: {names}",
            where=file,
            remedy="save the one that is meant alone",
        )
    return first, others


def _states(value: object, keys: Keys) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """Every mapping of names to tensors inside `value`, with the keys that lead to it.

    Optimizers and the like are left out.
    """
    if not isinstance(value, Mapping) or len(keys) > DEEPEST:
        return
    inner: list[tuple[Keys, Mapping[str, Any]]] = []
    for key, held in value.items():
        if _is_models(key):
            inner += _states(held, (*keys, key))
    if inner:
        yield from inner
        return
    has_tensors = any(isinstance(held, torch.Tensor) for held in value.values())
    if has_tensors and all(isinstance(key, str) for key in value):
        yield keys, value


def _is_models(key: object) -> bool:
    """Whether the tensors under this key may be a model's."""
    return isinstance(key, str) and not any(word in key.lower() for word in NO_MODEL)


def _rank(keys: Keys, size: int, complete: int) -> tuple[int, int]:
    """Which state dict is meant: the lower, the likelier."""
    words = [key.lower() for key in keys]
    # Some averages keep the parameters alone, and lack what batch norms have measured.
    averaged = [AVERAGED.index(word) for word in words if word in AVERAGED]
    if averaged and size >= complete:
        return 0, min(averaged)
    usual = [USUAL.index(word) for word in words if word in USUAL]
    return (1, min(usual)) if usual else (2, 0)


def at(content: Any, keys: Keys) -> object:
    """The entry that these keys lead to."""
    for key in keys:
        content = content[key]
    return content


def command(file: Path, access: str) -> str:
    """The command that takes the weights out of a file by running its code."""
    loaded = LOAD.format(file=str(file)) + access
    return f"python -c \"import torch; torch.save({loaded}.state_dict(), 'weights.pth')\""


def _no_state(content: object, file: Path) -> WeightsError:
    remedy = "save model.state_dict()"
    if not isinstance(content, Mapping) or not content:
        kind = type(content).__name__
        return WeightsError(f"the file holds {kind}, not named tensors", where=file, remedy=remedy)
    access = _arrays(content, "")
    if access is not None:
        what = "the file holds arrays of NumPy, which aren't opened, since that could run its code"
        remedy = f"where you trust it: {_array_command(file, access)}"
        return WeightsError(what, where=file, remedy=remedy)
    for key, held in content.items():
        path = sealed(held)
        if path:
            return _whole_object(path, file, f"[{key!r}]")
    first = list(content.items())[:8]
    kinds = ", ".join(f"{key} ({type(held).__name__})" for key, held in first)
    return WeightsError(f"the file holds no named tensors, but {kinds}", where=file, remedy=remedy)


def _whole_object(path: str, file: Path, access: str) -> WeightsError:
    under = f" under {access[1:-1]}" if access else ""
    return WeightsError(
        f"the file holds a whole object ({path}){under}, which isn't opened, since that "
        "could run its code",
        where=file,
        remedy=f"where you trust it: {command(file, access)}",
    )


def checked(state: object, file: Path, entry: str) -> State:
    """The state dict's tensors; WeightsError where there are none, or not of plain numbers."""
    where = f"{file}, {entry}" if entry else file
    assert isinstance(state, Mapping)
    if not state:
        raise WeightsError(
            "the file holds no tensors", where=where, remedy="save model.state_dict()"
        )
    given = {}
    for key, held in state.items():
        if held is not None and not _is_extra(key):
            given[key] = held

    others = [key for key, held in given.items() if not isinstance(held, torch.Tensor)]
    if others:
        kinds = ", ".join(f"{key} ({_kind(given[key])})" for key in others)
        raise WeightsError(
            f"entries that are not tensors: {kinds}", where=where, remedy="save model.state_dict()"
        )
    empty = [key for key, tensor in given.items() if tensor.is_meta]
    if empty:
        raise WeightsError(
            f"tensors that are shapes alone (of the device meta): {first_of(empty)}",
            where=where,
            remedy="save the model when its weights are there",
        )
    packed = [key for key, x in given.items() if x.is_quantized or x.layout != torch.strided]
    if packed:
        raise WeightsError(
            f"tensors that are quantised or sparse: {first_of(packed)}",
            where=where,
            remedy="save the weights in float32 before that",
        )
    broken = [key for key, x in given.items() if _is_checkable(x) and not x.isfinite().all()]
    if broken:
        raise WeightsError(
            f"tensors with values that are not finite: {first_of(broken)}",
            where=where,
            remedy="the training that wrote them went astray: take an earlier checkpoint",
        )
    return {key: tensor.detach() for key, tensor in given.items()}


def _is_extra(key: str) -> bool:
    """What modules keep beside their tensors (`Module.get_extra_state`)."""
    return key.endswith("_extra_state")


def _kind(value: object) -> str:
    return sealed(value) or type(value).__name__


def _is_checkable(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _arrays(content: Mapping[Any, Any], access: str, depth: int = 0) -> str | None:
    """How the mapping of names to arrays is reached, as `['state_dict']`; None where none is."""
    if any((sealed(held) or "").startswith("numpy") for held in content.values()):
        return access
    if depth == DEEPEST:
        return None
    for key, held in content.items():
        if isinstance(held, Mapping) and held and _is_models(key):
            inner = _arrays(held, f"{access}[{key!r}]", depth + 1)
            if inner is not None:
                return inner
    return None


def _array_command(file: Path, access: str) -> str:
    """The command that makes tensors of a file's arrays by running its code."""
    loaded = LOAD.format(file=str(file)) + access
    tensors = f"{{name: torch.as_tensor(one) for name, one in {loaded}.items()}}"
    return f"python -c \"import torch; torch.save({tensors}, 'weights.pth')\""
