"""The float32 constants of an ONNX file, read without the onnx package, which devices don't have.

An ONNX file is one message of protocol buffers; the fields and their numbers are those of
onnx.proto3, the encoding is https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FLOAT = 1  # TensorProto.DataType
DEEPEST = 32  # graphs inside graphs
# Fields of each message that lead to tensors: the number of the field, the message that it holds.
MODEL = {7: "graph", 25: "function"}
GRAPH = {1: "node", 5: "tensor"}
NODE = {5: "attribute"}
ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"}
FUNCTION = {7: "node"}
MESSAGES = {
    "model": MODEL,
    "graph": GRAPH,
    "node": NODE,
    "attribute": ATTRIBUTE,
    "function": FUNCTION,
}
DATA_TYPE, FLOAT_DATA, RAW_DATA = 2, 4, 9  # of TensorProto
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types


def float_constants(file: Path) -> Iterator[np.ndarray]:
    """Each float32 constant of an ONNX file as a flat array. ValueError where the file is none."""
    with file.open("rb") as opened:
        # Not closed: the arrays are views of it, and it goes with the last of them.
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    for tensor in _tensors("model", memoryview(data), DEEPEST):
        yield from _floats(tensor)


def _tensors(message: str, data: memoryview, depth: int) -> Iterator[memoryview]:
    """The tensors inside a message."""
    if depth == 0:
        raise ValueError("its graphs are nested too deeply")
    inside = MESSAGES[message]
    for number, value in _fields(data):
        kind = inside.get(number)
        if kind is None or isinstance(value, int):
            continue
        if kind == "tensor":
            yield value
        else:
            yield from _tensors(kind, value, depth - 1)


def _floats(tensor: memoryview) -> Iterator[np.ndarray]:
    """The values of a tensor of float32, nothing of others."""
    held = list(_fields(tensor))
    if (DATA_TYPE, FLOAT) not in [(number, value) for number, value in held if number == DATA_TYPE]:
        return
    for number, value in held:
        if number in (FLOAT_DATA, RAW_DATA) and isinstance(value, memoryview):
            if len(value) % 4:
                raise ValueError("a tensor ends within a number")
            yield np.frombuffer(value, "<f4")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number and value, which is bytes of what is no single number."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == BYTES:
            length, place = _varint(data, place)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of the unknown kind {wire}")
        if length > len(data) - place:
            raise ValueError("it ends within a field")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            raise ValueError("it ends within a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
