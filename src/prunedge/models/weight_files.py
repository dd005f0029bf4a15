"""Files of weights: opened without running anything that they hold, and searched for the state dict that is meant."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunedge.edge.bundle import LARGEST_MANIFEST, MANIFEST, other_format
from prunedge.errors import RunError, WeightsError
from prunedge.utils.files import require_regular
from prunedge.utils.filetypes import MISNAMED, PACKED, kind_of_file
from prunedge.utils.machine import pass_on, pass_on_reading
from prunedge.utils.signs import CONFIG, sign_of

State = dict[str, torch.Tensor]

# Where trainers keep their weights, the best first: averaged weights are the better ones (timm and torchvision evaluate them).
AVERAGED = ("state_dict_ema", "model_state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
USUAL = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network", "module", "weights", "params",
    "teacher", "student", "backbone", "encoder",
)  # fmt: skip
# Entries whose tensors are no network's: what an optimiser remembers, class weights, random states.
NO_NETWORK = ("optim", "sched", "scaler", "rng", "callback", "loops", "loss", "criterion", "hparams", "hyper_param", "metric")
DEEPEST = 4
SEALED = "prunedge sealed"

# Formats of other tools, by suffix.
FOREIGN = {
    ".onnx": "an ONNX model", ".h5": "a Keras model", ".keras": "a Keras model", ".pb": "a TensorFlow model", ".npz": "NumPy arrays",
    ".tflite": "a TensorFlow Lite model", ".msgpack": "Flax weights", ".gguf": "a GGUF file", ".engine": "a TensorRT engine",
    ".pkl": "a pickle", ".pickle": "a pickle", ".joblib": "a pickle",
}  # fmt: skip
# How torch.save began its files before they were zip archives: its magic number as a pickle, whatever the protocol.
LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")
_BEGINNING = 64
_PIECE = 2**20
LOAD = "torch.load({file!r}, map_location='cpu', weights_only=False)"


@dataclass(frozen=True)
class Found:
    """The state dict that a file holds.

    `entry` says under which keys it was found ('' for the whole file), `others` which state dicts were passed over for it.
    """

    state: State
    entry: str = ""
    others: tuple[str, ...] = ()


class _Sealing(type):
    """Makes calling a `Sealed` class give one of its objects, whatever its `__new__` gives."""

    def __call__(cls, *args: Any) -> Any:
        return object.__new__(cls)  # type: ignore[arg-type]  # `cls` is such a class


class Sealed(metaclass=_Sealing):
    """Stands where a file wants an object of a class, or the result of a function, that torch doesn't call harmless.

    torch's restricted reader takes it in the place of what was asked for, so nothing of the file's choosing is imported or run. What was to
    be called gives a sealed object; what was to be made and then filled gives a dict that knows what was asked for, since it may be
    a kind of dict.
    """

    path = "an object"

    def __new__(cls, *args: Any) -> Any:
        """Give what the reader lets items and attributes be set on."""
        made: OrderedDict[Any, Any] = OrderedDict()
        made.__dict__[SEALED] = cls.path
        return made

    def __setstate__(self, state: Any) -> None:
        """Take no notice."""


def sealed(value: object) -> str | None:
    """What was asked for, if `value` is a sealed object; None for all else, and for dicts of whichever class."""
    if isinstance(value, Sealed):
        return value.path
    return vars(value).get(SEALED) if isinstance(value, OrderedDict) and not value else None


def open_weights(path: str | Path) -> Found:
    """Find the state dict in a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file, or in a run or bundle folder.

    What `prunedge.models.read_weights` says of files holds here. Raises WeightsError.
    """
    file = _file_in(Path(path))
    _refuse_others(file)
    if file.suffix == ".safetensors":
        return Found(_checked(_safetensors(file), file, ""))
    found = _torchs(file)
    entry, others = _entry(found, file)
    return Found(_checked(_at(found, entry), file, ".".join(entry)), ".".join(entry), others)


def refuse_other_files(path: str | Path) -> None:
    """Raise WeightsError where there is no such file or folder, or its first bytes show that it holds no weights."""
    _refuse_others(_file_in(Path(path)))


def _file_in(path: Path) -> Path:
    if path.is_dir():
        _refuse_other_format(path)
        for inside in ("model.safetensors", "first/model.safetensors", "checkpoints/step-000/model.safetensors"):
            require_regular(path / inside, WeightsError)
            if (path / inside).is_file():
                return path / inside
        what = "the folder is neither a run nor a bundle: it has no model.safetensors"
        raise WeightsError(what, where=path, remedy="name a run, a bundle, or a file of weights")
    require_regular(path, WeightsError)
    if not path.is_file():
        raise WeightsError("there is no such weights file", where=path, remedy="give imagenet, none, or a file that exists")
    return path


def _refuse_other_format(folder: Path) -> None:
    """WeightsError where another version of prunedge made the run or bundle in a folder."""
    try:
        if (folder / CONFIG).is_file():
            sign_of(folder)
    except RunError as error:
        raise WeightsError(error.what, where=error.where, remedy=error.remedy) from None
    manifest = folder / MANIFEST
    other = other_format(manifest.read_bytes()) if manifest.is_file() and manifest.stat().st_size <= LARGEST_MANIFEST else None
    if other is not None:
        raise WeightsError(other[0], where=folder, remedy=other[1])


def _safetensors(file: Path) -> State:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:  # header and decoding errors of the library
        pass_on_reading(error, file)
        raise _unreadable(file, error) from error


def _torchs(file: Path) -> object:
    """What `torch.save` wrote, with `Sealed` objects for all that isn't harmless."""
    _refuse_unsaved(file)
    _refuse_programs(file)
    _refuse_overwritten(file)
    try:
        with torch.serialization.safe_globals([(_sealing(name), name) for name in _foreign_globals(file)]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the file holds more than tensors and isn't opened, since that could run its code",
            where=file,
            remedy=f"save net.state_dict() alone, or a .safetensors file; if you trust it: {_command(file, '')}",
        ) from error
    except Exception as error:  # zip, header and decoding errors of torch
        pass_on_reading(error, file)
        raise _unreadable(file, error) from error


def _refuse_others(file: Path) -> None:
    """WeightsError for what its first bytes show to be no weights at all: torch would take it for a pickle, and warn of its code."""
    try:
        kind = kind_of_file(file)
    except OSError as error:
        pass_on_reading(error, file)
        raise _unreadable(file, error) from None
    if kind is not None and kind not in PACKED and kind != MISNAMED:
        raise _no_weights(kind, file)


def _no_weights(kind: str, file: Path) -> WeightsError:
    remedy = "name a .pth or .safetensors file, a run or a bundle"
    return WeightsError(f"this is {kind}, not a file of weights", where=file, remedy=remedy)


def _foreign_globals(file: Path) -> list[str]:
    """The classes and functions that a file of torch's zip format asks for and that torch doesn't call harmless."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception as error:  # another format: torch.load says what is wrong with it
        pass_on(error, where=file)
        return []


def _sealing(name: str) -> type[Sealed]:
    return type("Sealed", (Sealed,), {"path": name})


def _refuse_unsaved(file: Path) -> None:
    """Raise WeightsError for what torch.save never wrote: to be told to trust it would help nobody."""
    with file.open("rb") as opened:
        start = opened.read(_BEGINNING)
    kind = kind_of_file(file)
    # A zip file that was cut short is told by torch, and so is an empty file; torch's oldest files are tar archives.
    if not start or start.startswith(b"PK") or LEGACY in start or kind == PACKED[0]:
        return
    if kind is None or kind == MISNAMED:
        kind = FOREIGN.get(file.suffix.lower())
    if kind is None and start[:1] == b"\x80" and start[1] <= pickle.HIGHEST_PROTOCOL:
        kind = "a pickle that torch.save did not write"
    remedy = "write the weights as a torch state dict (.pth) or as .safetensors"
    raise WeightsError(f"this is {kind or 'no file that torch.save wrote'}", where=file, remedy=remedy)


def _refuse_overwritten(file: Path) -> None:
    """Raise WeightsError where a part of a zip file is not what was written; torch itself looks at no checksum."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as packed:
            for part in packed.infolist():
                # torch can be told to write none.
                if not part.CRC:
                    continue
                with packed.open(part) as opened:
                    while opened.read(_PIECE):
                        pass
    except Exception as error:  # BadZipFile, and what a damaged header makes of the rest
        pass_on_reading(error, file)
        what = "the file differs from its own checksums"
        raise WeightsError(what, where=file, remedy="copy or download it again") from None


def _refuse_programs(file: Path) -> None:
    """Raise WeightsError for what torch would hand to another loader."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as packed:
        parts = {name.rpartition("/")[2] for name in packed.namelist()}
    ways = {
        "constants.pkl": ("a TorchScript program", f"torch.jit.load({str(file)!r}, map_location='cpu').state_dict()"),
        "archive_format": ("an exported program", f"torch.export.load({str(file)!r}).state_dict"),
    }
    for sign, (kind, code) in ways.items():
        if sign in parts:
            remedy = f"python -c \"import torch; torch.save({code}, 'weights.pth')\""
            raise WeightsError(f"the file is {kind}", where=file, remedy=remedy)


def _unreadable(file: Path, error: Exception) -> WeightsError:
    if kind_of_file(file) == MISNAMED:
        return _no_weights(MISNAMED, file)
    remedy = "was it cut short? copy or download it again"
    if kind := FOREIGN.get(file.suffix.lower()):
        remedy = f"it looks like {kind}: write its weights as a torch state dict (.pth) or as .safetensors"
    return WeightsError(f"the file can't be read as weights ({type(error).__name__})", where=file, remedy=remedy)


def _command(file: Path, access: str) -> str:
    """The command that takes the weights out of a file by running its code."""
    loaded = LOAD.format(file=str(file)) + access
    return f"python -c \"import torch; torch.save({loaded}.state_dict(), 'weights.pth')\""


def _entry(found: object, file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that lead to the state dict that is meant, and the others that there are."""
    if path := sealed(found):
        raise _whole_object(path, file, "")
    places = {place: one for place, one in _states(found, ())}
    if not places:
        raise _no_state(found, file)
    if len(places) == 1:
        return next(iter(places)), ()
    complete = max(len(one) for one in places.values())
    ranked = sorted(places, key=lambda place: _rank(place, len(places[place]), complete))
    first, second = ranked[0], ranked[1]
    if _rank(first, len(places[first]), complete) == _rank(second, len(places[second]), complete):
        names = ", ".join(".".join(place) for place in ranked)
        raise WeightsError(f"the file holds several networks: {names}", where=file, remedy="save the one that is meant alone")
    return first, tuple(".".join(place) for place in ranked[1:])


def _states(value: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every mapping of names to tensors inside `value`, with the keys that lead to it; optimisers and the like left out."""
    if not isinstance(value, Mapping) or len(place) > DEEPEST:
        return
    inner = [found for key, one in value.items() if _is_networks(key) for found in _states(one, (*place, key))]
    if inner:
        yield from inner
    elif any(isinstance(one, torch.Tensor) for one in value.values()) and all(isinstance(key, str) for key in value):
        yield place, value


def _is_networks(key: object) -> bool:
    return isinstance(key, str) and not any(part in key.lower() for part in NO_NETWORK)


def _rank(place: tuple[str, ...], size: int, complete: int) -> tuple[int, int]:
    """Which state dict is meant: the lower, the likelier."""
    words = [key.lower() for key in place]
    # Some averages keep the parameters alone, and lack what batch norms have measured.
    averaged = [AVERAGED.index(word) for word in words if word in AVERAGED] if size >= complete else []
    if averaged:
        return 0, min(averaged)
    usual = [USUAL.index(word) for word in words if word in USUAL]
    return (1, min(usual)) if usual else (2, 0)


def _at(found: Any, place: tuple[str, ...]) -> object:
    for key in place:
        found = found[key]
    return found


def _no_state(found: object, file: Path) -> WeightsError:
    if not isinstance(found, Mapping) or not found:
        return WeightsError(f"the file holds {type(found).__name__}, not named tensors", where=file, remedy="save net.state_dict()")
    if access := _arrays(found, ""):
        what = "the file holds arrays of NumPy, which aren't opened, since that could run its code"
        return WeightsError(what, where=file, remedy=f"where you trust it: {_array_command(file, access.removeprefix('found'))}")
    for key, one in found.items():
        if path := sealed(one):
            return _whole_object(path, file, f"[{key!r}]")
    held = ", ".join(f"{key} ({type(one).__name__})" for key, one in list(found.items())[:8])
    return WeightsError(f"the file holds no named tensors, but {held}", where=file, remedy="save net.state_dict()")


def _arrays(found: Mapping[Any, Any], access: str, depth: int = 0) -> str | None:
    """How the mapping of names to arrays is reached, as `found['state_dict']`; None where there is none."""
    values = list(found.values())
    if any((sealed(one) or "").startswith("numpy") for one in values):
        return f"found{access}"
    inner = [(key, one) for key, one in found.items() if isinstance(one, Mapping) and one and _is_networks(key)]
    if depth == DEEPEST:
        return None
    return next((place for key, one in inner if (place := _arrays(one, f"{access}[{key!r}]", depth + 1))), None)


def _array_command(file: Path, access: str) -> str:
    """The command that makes tensors of a file's arrays by running its code."""
    loaded = LOAD.format(file=str(file)) + access
    made = f"{{name: torch.as_tensor(one) for name, one in {loaded}.items()}}"
    return f"python -c \"import torch; torch.save({made}, 'weights.pth')\""


def _whole_object(path: str, file: Path, access: str) -> WeightsError:
    place = f" under {access[1:-1]}" if access else ""
    return WeightsError(
        f"the file holds a whole object ({path}){place}, which isn't opened, since that could run its code",
        where=file,
        remedy=f"where you trust it: {_command(file, access)}",
    )


def _checked(state: object, file: Path, entry: str) -> State:
    place = f"{file}, {entry}" if entry else file
    assert isinstance(state, Mapping)
    if not state:
        raise WeightsError("the file holds no tensors", where=place, remedy="save net.state_dict()")
    given = {key: one for key, one in state.items() if one is not None and not _is_extra(key)}
    strange = [f"{key} ({_kind(one)})" for key, one in given.items() if not isinstance(one, torch.Tensor)]
    if strange:
        raise WeightsError(f"entries that are not tensors: {', '.join(strange)}", where=place, remedy="save net.state_dict()")
    empty = [key for key, one in given.items() if one.is_meta]
    if empty:
        what = f"tensors that are shapes alone (of the device meta): {_first(empty)}"
        raise WeightsError(what, where=place, remedy="save the network when its weights are there")
    packed = [key for key, one in given.items() if one.is_quantized or one.layout != torch.strided]
    if packed:
        raise WeightsError(
            f"tensors that are quantised or sparse: {_first(packed)}", where=place, remedy="save the weights in float32 before that"
        )
    broken = [key for key, one in given.items() if _is_checkable(one) and not bool(one.isfinite().all())]
    if broken:
        what = f"tensors with values that are not finite: {_first(broken)}"
        raise WeightsError(what, where=place, remedy="the training that wrote them went astray: take an earlier checkpoint")
    return {key: one.detach() for key, one in given.items()}


def _is_extra(key: str) -> bool:
    """What modules keep beside their tensors (`Module.get_extra_state`)."""
    return key.endswith("_extra_state")


def _kind(value: object) -> str:
    return sealed(value) or type(value).__name__


def _is_checkable(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _first(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
