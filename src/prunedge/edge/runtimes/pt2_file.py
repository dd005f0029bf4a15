"""Whether a .pt2 file holds operations and weights alone.

torch unpickles parts of such a file, evaluates expressions in it and calls functions that it names,
so that one from a stranger could run anything. Those that prunedge writes have none of that, and
nothing else is handed to torch.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST_GRAPH = 256 * 2**20  # bytes of JSON
EXAMPLES = "data/sample_inputs/model.pt"  # a pickle, unless it is empty
GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
MEMBERS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|"
    r"\.data/version|\.data/serialization_id"
)
OPERATION = re.compile(r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|_operator\.(getitem|add|mul)")
TREES = {"builtins.tuple", "builtins.list", "builtins.dict", "null", None}


def require_plain(file: Path) -> list[int]:
    """The shape (n, channels, height, width) of the images that the program in a .pt2 file takes.
    ValueError, with the reason, where the file holds anything but operations of torch and weights.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive)
            graph = _json(archive, members[GRAPH])
            configs = [_json(archive, members[name]) for name in (WEIGHTS, CONSTANTS)]
        for config in configs:
            if any(payload["use_pickle"] for payload in config["config"].values()):
                raise ValueError("it holds a pickle")
            if not all(_is_own(payload["path_name"]) for payload in config["config"].values()):
                raise ValueError("it holds something else than tensors")
        _require_operations(graph)
        return _input_shape(graph)
    except (OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not what prunedge writes ({error})") from None
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names below the archive's folder."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for entry in archive.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if name in members:
            raise ValueError(f"'{name}' is there twice")
        members[name] = entry
    known = {EXAMPLES, GRAPH, WEIGHTS, CONSTANTS}
    others = [name for name in members if name not in known and not MEMBERS.fullmatch(name)]
    if others or len(folders) != 1:
        raise ValueError(f"it holds '{others[0]}'" if others else "it holds several folders")
    if members[EXAMPLES].file_size:
        raise ValueError("it holds a pickle")
    return members


def _json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.file_size > LARGEST_GRAPH:
        raise ValueError("its graph is too large to be one")
    return json.loads(archive.read(entry))


def _is_own(path: str) -> bool:
    return re.fullmatch(r"(weight|tensor)_\d+", path) is not None


def _require_operations(graph: Any) -> None:
    """ValueError where the graph names a function that is no operation, or code to evaluate."""
    if graph["guards_code"]:
        raise ValueError("it holds code")
    for record in _records(graph):
        if "expr_str" in record:
            raise ValueError("it holds an expression")
        target = record.get("target")
        if "inputs" in record and isinstance(target, str) and not OPERATION.fullmatch(target):
            raise ValueError(f"it calls '{target[:80]}'")
        for key in ("in_spec", "out_spec"):
            if key in record:
                _require_tree(record[key])


def _require_tree(text: str) -> None:
    """ValueError where how inputs or outputs are nested names other types than Python's own."""
    for record in _records(json.loads(text)):
        if record.get("type") not in TREES:
            raise ValueError(f"it names the type '{str(record['type'])[:80]}'")


def _records(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a piece of JSON."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _records(inner)


def _input_shape(graph: Any) -> list[int]:
    """The sizes of the only input that is none of the program's own weights."""
    inside = graph["graph_module"]
    named = [
        spec["user_input"] for spec in inside["signature"]["input_specs"] if "user_input" in spec
    ]
    if len(named) != 1:
        raise ValueError("it takes something else than one tensor")
    name = named[0]["arg"]["as_tensor"]["name"]
    return [size["as_int"] for size in inside["graph"]["tensor_values"][name]["sizes"]]
