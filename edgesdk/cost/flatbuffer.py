"""Bytes of the parts of a flatbuffer (flatbuffers.dev, "FlatBuffer Internals").

A table is the distance to its list of fields and the fields that are not left at their default;
the list of fields (``vtable``) is stored once for all tables of one shape.
"""

from __future__ import annotations

import math
from functools import lru_cache

OFFSET_BYTES = 4
_CACHED = 1 << 12  # results of each function; few differ within a file


@lru_cache(maxsize=_CACHED)
def table_bytes(*widths: int) -> int:
    """Return the bytes of a table with fields of those widths; eight-byte fields align it."""
    alignment = max(OFFSET_BYTES, *widths, 0) if widths else OFFSET_BYTES
    return up(OFFSET_BYTES + sum(widths), alignment)


def words(count: int) -> tuple[int, ...]:
    """Return the widths of that many fields of four bytes."""
    return (4,) * count


def field_list_bytes(fields: int) -> int:
    """Return the bytes of a list of fields up to the last that is not at its default."""
    return 2 * (2 + fields)


@lru_cache(maxsize=_CACHED)
def vector_bytes(count: int, width: int = OFFSET_BYTES) -> int:
    """Return the bytes of a vector: its length and its elements."""
    return up(4 + count * width, 4)


@lru_cache(maxsize=_CACHED)
def string_bytes(length: int) -> int:
    """Return the bytes of a string of that many characters, its closing zero included."""
    return up(4 + length + 1, 4)


def up(size: float, alignment: int) -> int:
    """Return the next multiple of an alignment."""
    return math.ceil(size / alignment) * alignment
