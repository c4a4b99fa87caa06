"""The XNNPACK payload of a ``.pte``: a flatbuffer of nodes and values, without the constants' data.

Tables and fields are those of ExecuTorch 1.5's ``backends/xnnpack/serialization/schema.fbs``;
fields at their default take no room, which is why a convolution without padding is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgesdk.cost.flatbuffer import (
    OFFSET_BYTES,
    field_list_bytes,
    string_bytes,
    table_bytes,
    up,
    vector_bytes,
    words,
)

ValueType = Literal["float", "tensor", "row", "channel", "group"]
"""How a value is quantized: not at all, with one scale, with scales found at run time for each
row, with one scale a channel, with one a group of channels."""

KEY_CHARACTERS = 67
"""A constant's name: a SHA-256 in hexadecimal, behind "scale_" for every second one of int8."""

_HEADER_BYTES = 32
_PAYLOAD_ALIGNMENT = 16
# Node kinds: the fields of their tables that are set, and how many vectors those point to.
_FIELDS: Mapping[str, tuple[int, int]] = {
    "convolution": (13, 0),
    "linear": (4, 0),
    "pool": (8, 0),
    "unary": (2, 0),
    "binary": (3, 0),
    "concatenation": (2, 0),
    "transpose": (4, 1),
    "reshape": (4, 1),
    "slice": (5, 2),
    "pad": (4, 2),
    "resize": (4, 0),
}
_LAST_FIELD: Mapping[str, int] = {"convolution": 19, "pool": 12, "concatenation": 6}
_PADDING_FIELDS = 4
# type of the union, offset, debug handle
_NODE = OFFSET_BYTES + table_bytes(1, *words(2))
_CLAMP = 4 + table_bytes(4)
# type of the union and offset; datatype, number of dimensions, dimensions, external id, own id
_VALUE = OFFSET_BYTES + table_bytes(1, 4) + table_bytes(2, *words(4))
_QUANTIZED = table_bytes(*words(2), 1)
_SCALES: Mapping[ValueType, int] = {
    "float": 0,
    "tensor": _QUANTIZED + table_bytes(*words(2)),
    "row": _QUANTIZED + table_bytes(4),
    "channel": _QUANTIZED + table_bytes(*words(3)) + vector_bytes(0),
    "group": _QUANTIZED + table_bytes(*words(4)) + vector_bytes(0),
}
# offset (all ones), size and name
_CONSTANT = OFFSET_BYTES + table_bytes(8, 8, 4) + string_bytes(KEY_CHARACTERS)
# Root, file identifier, version "0", the lists of nodes, values, ends and constants, the entry of
# no constant, and the lists of fields of what every payload has.
_ROOT = (
    8 + table_bytes(*words(7)) + string_bytes(1) + 5 * vector_bytes(0)
    + OFFSET_BYTES + table_bytes(4) + string_bytes(0)
    + sum(field_list_bytes(fields) for fields in (9, 3, 4, 1, 2, 7, 3, 3))
)  # fmt: skip


class Payload:
    """A payload being written: nodes and values are added, ``size_bytes`` is what they take."""

    def __init__(self) -> None:
        self.nodes = 0
        self._bytes = float(_ROOT)
        self._shapes: set[object] = set()

    @property
    def size_bytes(self) -> int:
        """The bytes of the payload."""
        return _HEADER_BYTES + up(self._bytes, _PAYLOAD_ALIGNMENT)

    def node(
        self, kind: str, *, clamps: bool = False, padded: bool = False, operands: int = 0,
        rank: int = 4,
    ) -> None:  # fmt: skip
        """Add a node; ``operands`` counts those of a concatenation, ``rank`` the elements of the
        vectors a transpose, a reshape, a slice and a padding have."""
        fields, vectors = _FIELDS[kind]
        fields += operands + _PADDING_FIELDS * padded
        self.nodes += 1
        self._bytes += _NODE + (_CLAMP if clamps else 0) + table_bytes(*words(fields))
        self._bytes += vectors * vector_bytes(rank)
        self._once((kind, padded), field_list_bytes(_LAST_FIELD.get(kind, fields)))

    def value(self, rank: int, form: ValueType = "float", *, is_end: bool = False) -> None:
        """Add a tensor between nodes; ``is_end``: an input or an output of the payload."""
        self._bytes += _VALUE + vector_bytes(rank) + _SCALES[form]
        self._bytes += (4 + OFFSET_BYTES) * is_end  # its flags, its place in the list of ends
        self._once(form, 2 * field_list_bytes(3))

    def ends(self, count: int) -> None:
        """Say of as many values added before that the payload hands them out."""
        self._bytes += (4 + OFFSET_BYTES) * count

    def constant(self, rank: int, form: ValueType = "float") -> None:
        """Add a constant, and where it has scales those, by the names of their data."""
        self._bytes += _VALUE + 4 + vector_bytes(rank) + _SCALES[form]
        self._bytes += _CONSTANT * (2 if form in ("channel", "group") else 1)
        self._once(form, 2 * field_list_bytes(3))

    def _once(self, shape: object, size: int) -> None:
        if shape not in self._shapes:
            self._shapes.add(shape)
            self._bytes += size
