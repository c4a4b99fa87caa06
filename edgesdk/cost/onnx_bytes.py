"""Bytes of the parts of an ONNX file: protocol buffers, as ``onnx.proto`` lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgesdk.cost.mil_bytes import field, varint

_KIND_BYTES = 3  # an attribute's type: a tag of two bytes and a small number
_FLOAT_BYTES = 5


def number(name: str) -> int:
    """Return the bytes of an attribute that is a small integer."""
    return field(field(len(name)) + _KIND_BYTES + 2)


def real(name: str) -> int:
    """Return the bytes of an attribute that is a real number."""
    return field(field(len(name)) + _KIND_BYTES + _FLOAT_BYTES)


def numbers(name: str, count: int) -> int:
    """Return the bytes of an attribute that is a list of small integers."""
    return field(field(len(name)) + _KIND_BYTES + 2 * count)


def text(name: str, length: int) -> int:
    """Return the bytes of an attribute that is a string."""
    return field(field(len(name)) + _KIND_BYTES + field(length))


def node(kind: str, name: str, inputs: Iterable[str], outputs: Iterable[str], extra: int) -> int:
    """Return the bytes of a node; ``extra`` are those of its attributes."""
    names = (kind, name, *inputs, *outputs)
    return field(sum([field(len(text)) for text in names]) + extra)


def initializer(name: str, shape: Sequence[int], data_bytes: int, *, located: bool) -> int:
    """Return the bytes of a constant; ``located``: its place, in this file, is stated."""
    dimensions = sum([1 + varint(size) for size in shape])
    return field(dimensions + 2 + field(len(name)) + field(data_bytes) + 2 * located)


def end(name: str, shape: Sequence[int]) -> int:
    """Return the bytes of an input or an output: its name, its element type and shape."""
    dimensions = field(sum(field(1 + varint(size)) for size in shape))
    return field(field(len(name)) + field(field(2 + dimensions)))
