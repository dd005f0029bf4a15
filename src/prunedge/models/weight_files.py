"""Files of weights.

Opened without running anything that they hold, and searched for the state dict that is meant.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunedge.edge.manifest import LARGEST_MANIFEST, MANIFEST, other_format
from prunedge.errors import RunError, WeightsError
from prunedge.models.sealed import sealing
from prunedge.models.state_dicts import State, at, checked, command, find_entry
from prunedge.utils.files import require_regular
from prunedge.utils.filetypes import MISNAMED, PACKED, kind_of_file
from prunedge.utils.machine import pass_on, pass_on_reading
from prunedge.utils.signs import CONFIG, sign_of

# In a run or bundle folder, the best first.
# How torch.save began its files before they were zip archives: its magic number as a pickle,
# whatever the protocol.
LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")
_BEGINNING = 64
_PIECE = 2**20
PLACES = (
    "model.safetensors",
    "first/model.safetensors",
    "checkpoints/step-000/model.safetensors",
)
# Formats of other tools, by suffix.
FOREIGN = {
    ".onnx": "an ONNX model",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow model",
    ".npz": "NumPy arrays",
    ".tflite": "a TensorFlow Lite model",
    ".msgpack": "Flax weights",
    ".gguf": "a GGUF file",
    ".engine": "a TensorRT engine",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".joblib": "a pickle",
}


@dataclass(frozen=True)
class Found:
    """The state dict that a file holds.

    `entry` says under which keys it was found ('' for the whole file), `others` which state dicts
    were passed over for it.
    """

    state: State
    entry: str = ""
    others: tuple[str, ...] = ()


def open_weights(path: str | Path) -> Found:
    """Find the state dict in a file of weights, or in a run or bundle folder.

    Files are `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin`. What `prunedge.models.read_weights`
    says of files holds here. Raises WeightsError.
    """
    file = _file_in(Path(path))
    _refuse_others(file)
    if file.suffix == ".safetensors":
        return Found(checked(_safetensors(file), file, ""))
    content = _torchs(file)
    keys, others = find_entry(content, file)
    entry = ".".join(keys)
    state = checked(at(content, keys), file, entry)
    return Found(state, entry, tuple(".".join(other) for other in others))


def refuse_other_files(path: str | Path) -> None:
    """Raise WeightsError where there is no such file, or its first bytes show no weights."""
    _refuse_others(_file_in(Path(path)))


def _file_in(path: Path) -> Path:
    if path.is_dir():
        _refuse_other_format(path)
        for inside in PLACES:
            require_regular(path / inside, WeightsError)
            if (path / inside).is_file():
                return path / inside
        what = "the folder is neither a run nor a bundle: it has no model.safetensors"
        raise WeightsError(what, where=path, remedy="name a run, a bundle, or a file of weights")
    require_regular(path, WeightsError)
    if not path.is_file():
        raise WeightsError(
            "there is no such weights file",
            where=path,
            remedy="give imagenet, none, or a file that exists",
        )
    return path


def _refuse_other_format(folder: Path) -> None:
    """WeightsError where another version of prunedge made the run or bundle in a folder."""
    try:
        if (folder / CONFIG).is_file():
            sign_of(folder)
    except RunError as error:
        raise WeightsError(error.what, where=error.where, remedy=error.remedy) from None

    manifest = folder / MANIFEST
    if not manifest.is_file() or manifest.stat().st_size > LARGEST_MANIFEST:
        return
    other = other_format(manifest.read_bytes())
    if other is not None:
        what, remedy = other
        raise WeightsError(what, where=folder, remedy=remedy)


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
        stand_ins: list[Any] = [(sealing(name), name) for name in _foreign_globals(file)]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the file holds more than tensors and isn't opened, since that could run its code",
            where=file,
            remedy=(
                "save model.state_dict() alone, or a .safetensors file; if you trust it: "
                f"{command(file, '')}"
            ),
        ) from error
    except Exception as error:  # zip, header and decoding errors of torch
        pass_on_reading(error, file)
        raise _unreadable(file, error) from error


def _refuse_others(file: Path) -> None:
    """WeightsError for what its first bytes show to be no weights at all.

    torch would take it for a pickle, and warn of its code.
    """
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
    """The classes and functions that a file asks for and that torch doesn't call harmless."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception as error:  # another format: torch.load says what is wrong with it
        pass_on(error, where=file)
        return []


def _refuse_programs(file: Path) -> None:
    """Raise WeightsError for what torch would hand to another loader."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as packed:
        parts = {name.rpartition("/")[2] for name in packed.namelist()}
    name = repr(str(file))
    script = f"torch.jit.load({name}, map_location='cpu').state_dict()"
    ways = {
        "constants.pkl": ("a TorchScript program", script),
        "archive_format": ("an exported program", f"torch.export.load({name}).state_dict"),
    }
    for sign, (kind, code) in ways.items():
        if sign in parts:
            remedy = f"python -c \"import torch; torch.save({code}, 'weights.pth')\""
            raise WeightsError(f"the file is {kind}", where=file, remedy=remedy)


def _unreadable(file: Path, error: Exception) -> WeightsError:
    if kind_of_file(file) == MISNAMED:
        return _no_weights(MISNAMED, file)
    remedy = "was it cut short? copy or download it again"
    kind = FOREIGN.get(file.suffix.lower())
    if kind:
        remedy = (
            f"it looks like {kind}: write its weights as a torch state dict (.pth) or as "
            ".safetensors"
        )
    return WeightsError(
        f"the file can't be read as weights ({type(error).__name__})", where=file, remedy=remedy
    )


def _refuse_unsaved(file: Path) -> None:
    """Raise WeightsError for what torch.save never wrote: to be told to trust it would help
    nobody.
    """
    with file.open("rb") as opened:
        start = opened.read(_BEGINNING)
    kind = kind_of_file(file)
    # torch reports a zip file that was cut short, and an empty file; torch's oldest files are tar
    # archives.
    if not start or start.startswith(b"PK") or LEGACY in start or kind == PACKED[0]:
        return
    if kind is None or kind == MISNAMED:
        kind = FOREIGN.get(file.suffix.lower())
    if kind is None and start[:1] == b"\x80" and start[1] <= pickle.HIGHEST_PROTOCOL:
        kind = "a pickle that torch.save did not write"
    remedy = "write the weights as a torch state dict (.pth) or as .safetensors"
    raise WeightsError(
        f"this is {kind or 'no file that torch.save wrote'}", where=file, remedy=remedy
    )


def _refuse_overwritten(file: Path) -> None:
    """Raise WeightsError where a member of a zip file is not what was written.

    torch itself looks at no checksum.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as packed:
            for member in packed.infolist():
                # torch can be set to write none.
                if not member.CRC:
                    continue
                with packed.open(member) as opened:
                    while opened.read(_PIECE):
                        pass
    except Exception as error:  # BadZipFile, and what a damaged header makes of the rest
        pass_on_reading(error, file)
        what = "the file differs from its own checksums"
        raise WeightsError(what, where=file, remedy="copy or download it again") from None
