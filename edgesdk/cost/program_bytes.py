"""The program of a ``.pte`` around its payloads: values, calls, delegates and tables of segments.

Tables and fields are those of ExecuTorch 1.5's ``exir/_serialize/program.fbs``.
"""

from __future__ import annotations

from edgesdk.cost.flatbuffer import (
    OFFSET_BYTES,
    field_list_bytes,
    string_bytes,
    table_bytes,
    vector_bytes,
    words,
)
from edgesdk.cost.xnnpack_payload import KEY_CHARACTERS

SEGMENT_ALIGNMENT = 128
"""Every segment begins at a multiple of it: payloads, and each constant of a delegate."""
CONSTANT_ALIGNMENT = 16
"""Constants of ExecuTorch's own operators share one segment."""

# The type of the union and the offset.
_UNION = table_bytes(1, 4)
_EVALUE = OFFSET_BYTES + _UNION
# scalar type, sizes, order of dimensions, whether it requires a gradient, where it is
_TENSOR = table_bytes(1, *words(3), 1)
_PLACE = table_bytes(*words(2))  # the memory and the offset in it
_BOOL, _NUMBER = table_bytes(1), table_bytes(8)
_CALL = OFFSET_BYTES + _UNION + table_bytes(*words(2))
_SEGMENT = OFFSET_BYTES + table_bytes(8, 8)
_DELEGATE = (
    OFFSET_BYTES + table_bytes(*words(3)) + string_bytes(len("XnnpackBackend"))
    + table_bytes(1, 4) + vector_bytes(0) + _SEGMENT
)  # fmt: skip
_NAMED = OFFSET_BYTES + table_bytes(*words(2)) + string_bytes(KEY_CHARACTERS) + _SEGMENT
# How a caller's arguments are nested, in JSON: a tuple of positional ones and a dictionary.
_NESTED = 232
_NESTED_LEAF = len('{"type": null, "context": null, "children_spec": []}, ')
# Extended header and identifier, the program's and the plan's tables with their vectors and lists
# of fields, the name "forward", the empty segment in front.
_PROGRAM = (
    8 + 32 + table_bytes(*words(7)) + table_bytes(*words(9)) + string_bytes(len("forward"))
    + table_bytes(*words(2)) + 14 * vector_bytes(0) + vector_bytes(2, 8) + table_bytes(4, 4)
    + table_bytes(*words(3)) + _SEGMENT
    + sum(field_list_bytes(fields) for fields in (8, 9, 2, 2, 9, 3, 2, 3, 3, 2, 2, 2, 2))
)  # fmt: skip


def program_bytes(inputs: int, outputs: int) -> float:
    """Return the bytes of a program without values, calls and constants."""
    names = string_bytes(_NESTED + _NESTED_LEAF * inputs) + string_bytes(4 + _NESTED_LEAF * outputs)
    return float(_PROGRAM + names + OFFSET_BYTES * (inputs + outputs))


def tensor_bytes(rank: int, *, is_constant: bool = False) -> float:
    """Return the bytes of a tensor's entry among the values; a constant's place is its number."""
    place = 8 if is_constant else _PLACE  # the offset in the segment
    return float(_EVALUE + _TENSOR + vector_bytes(rank) + vector_bytes(rank, 1) + place)


def number_bytes() -> float:
    """Return the bytes of an integer or a real number among the values."""
    return float(_EVALUE + _NUMBER)


def list_bytes(length: int) -> float:
    """Return the bytes of a list of integers, whose elements are values of their own."""
    return float(_EVALUE + table_bytes(4) + vector_bytes(length, 8) + length * number_bytes())


def call_bytes(arguments: int) -> float:
    """Return the bytes of a call of a delegate or of an operator."""
    return float(_CALL + vector_bytes(arguments))


def operator_bytes(name: str) -> float:
    """Return the bytes of an operator's entry, which all its calls share."""
    table = OFFSET_BYTES + table_bytes(*words(2))
    return float(table + string_bytes(len("aten::") + len(name)) + string_bytes(len("out")))


def delegate_bytes() -> float:
    """Return the bytes of a delegate's entry and its segment's, without its payload."""
    return float(_DELEGATE)


def named_bytes() -> float:
    """Return the bytes of the entries of a delegate's constant: its name and its segment."""
    return float(_NAMED)
