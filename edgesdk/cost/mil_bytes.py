"""Bytes of a Core ML program: protocol buffers, as ``MIL.proto`` of coremltools lays them out.

Every operation repeats the names of what it reads, and every argument that is no tensor (strides,
axes, an element type) is an operation of its own. So names weigh most, and are counted letter by
letter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

Shape = tuple[int, ...]

_WEIGHT_FILE = len("@model_path/weights/weight.bin")
_OFFSET_BYTES = 4  # of a tag and a place in the weight file, below 2 MB
_SMALLEST_BLOB = 10  # elements: shorter constants are written into the program
_ALIGNMENT = 64
HEADER_BYTES = 64  # in weight.bin, once for the file and in front of every constant
CACHED = 1 << 14
"""Results that are kept of a function: candidates of a plan have the same names, and mostly the
same shapes."""


def varint(value: int) -> int:
    """Return the bytes of an integer, seven bits in each."""
    return (value.bit_length() + 6) // 7 or 1


def field(size: int) -> int:
    """Return the bytes of a field that holds a message, a string or packed numbers: its tag, its
    length and itself."""
    return 1 + ((size.bit_length() + 6) // 7 or 1) + size  # varint, without a call


@lru_cache(maxsize=CACHED)
def type_bytes(shape: Shape = ()) -> int:
    """Return the bytes of a value's type: elements, rank, each dimension."""
    dimensions = sum(field(field(1 + varint(size))) for size in shape)
    return field(2 + (2 if shape else 0) + dimensions)


@lru_cache(maxsize=CACHED)
def immediate(size: int, shape: Shape = ()) -> int:
    """Return the bytes of a value written into the program: strings, numbers or raw bytes."""
    return field(type_bytes(shape)) + field(field(field(field(size))))


def stored(shape: Shape) -> int:
    """Return the bytes of a value that stands in the weight file."""
    return field(type_bytes(shape)) + field(field(_WEIGHT_FILE) + _OFFSET_BYTES)


def constant_value(shape: Shape, element_bytes: int = 2) -> int:
    """Return the bytes of a value of numbers, in the program if it is short."""
    elements = math.prod(shape)
    if elements < _SMALLEST_BLOB:
        return immediate(elements * element_bytes, shape)
    return stored(shape)


def entry(key: str, value: int) -> int:
    """Return the bytes of an entry of a map of operations' attributes."""
    return field(field(len(key)) + field(value))


def argument(key: str, value: int) -> int:
    """Return the bytes of an argument that is a value itself and not the name of one."""
    return field(field(len(key)) + field(field(field(value))))


def reads(key: str, value: str) -> int:
    """Return the bytes by which an operation reads a value of a name."""
    return _reads(len(key), len(value))


def operation(
    kind: str, name: str, shapes: Iterable[Shape], inputs: int = 0, attributes: int = 0
) -> int:
    """Return the bytes of an operation: its kind, its results, and what it ``reads``."""
    length = len(name)
    results = sum([_result(length, shape) for shape in shapes])
    return field(_head(len(kind), length) + results + inputs + attributes)


def result(name: str, shape: Shape) -> int:
    """Return the bytes of one more result of an operation."""
    return _result(len(name), shape)


def constant(name: str, value: int, shape: Shape = ()) -> int:
    """Return the bytes of an operation that gives a constant."""
    return _constant(len(name), value, shape)


def blob_bytes(elements: int, element_bytes: float) -> int:
    """Return what a constant takes in the weight file, nothing where it stands in the program."""
    if elements < _SMALLEST_BLOB:
        return 0
    return HEADER_BYTES + math.ceil(elements * element_bytes / _ALIGNMENT) * _ALIGNMENT


# Names differ, their lengths seldom do.
@lru_cache(maxsize=CACHED)
def _reads(key: int, value: int) -> int:
    return field(field(key) + field(field(field(value))))


@lru_cache(maxsize=CACHED)
def _head(kind: int, name: int) -> int:
    return field(kind) + entry("name", immediate(name))


@lru_cache(maxsize=CACHED)
def _result(name: int, shape: Shape) -> int:
    return field(field(name) + field(type_bytes(shape)))


@lru_cache(maxsize=CACHED)
def _constant(name: int, value: int, shape: Shape) -> int:
    head = _head(len("const"), name) + _result(name, shape)
    return field(head + entry("val", value))
