"""Weight blobs: arrays out of a package's ``weight.bin``, every offset and length checked.

The layout is MIL's blob storage, version 2: a 64-byte file header (``uint32`` count, ``uint32``
version), then for each blob a 64-byte record (``uint32`` sentinel, ``uint32`` data type,
``uint64`` length, ``uint64`` position of the data) and the data. Apple's reader trusts those
numbers, so a damaged file is stopped here first. Source: ``mlmodel/src/MILBlob/Blob`` in
https://github.com/apple/coremltools.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import ArtifactError

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQ")
_RECORD_BYTES = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF

# The enumeration BlobDataType in StorageFormat.hpp, without its other float formats.
_ELEMENT_TYPES: Mapping[int, str] = {
    1: "float16", 2: "float32", 3: "uint8", 4: "int8",
    6: "int16", 7: "uint16", 8: "int4", 9: "uint1", 10: "uint2", 11: "uint4", 12: "uint3",
    13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip

PACKED_BITS: Mapping[str, int] = {
    "int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6,
}  # fmt: skip
"""Bits of an element, of types that share bytes: NumPy has none of its own for them."""


def stored_type(array: NDArray[Any]) -> str:
    """Return the type of an array in the file: of an unpacked one as packed, else its own."""
    metadata: Mapping[str, str] = array.dtype.metadata or {}
    return metadata.get("stored", array.dtype.name)


def stored_bytes(dtype: str, elements: int) -> int:
    """Return the bytes of that many elements in the file; two int4 share a byte."""
    bits = PACKED_BITS.get(dtype)
    return math.ceil(elements * bits / 8) if bits else elements * np.dtype(dtype).itemsize


def unpack(content: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the values of packed elements, in int8 or uint8; ``stored_type`` tells their own."""
    values = unpack_bits(np.frombuffer(content, np.uint8), PACKED_BITS[dtype], math.prod(shape))
    if dtype == "int4":
        values = (values ^ 8).astype(np.int8) - np.int8(8)
    return values.astype(np.dtype(values.dtype, metadata={"stored": dtype})).reshape(shape)


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """Return ``count`` numbers of so many bits, the lowest bits of the first byte first."""
    stream = np.unpackbits(packed, count=count * bits, bitorder="little")
    return np.packbits(stream.reshape(count, bits), axis=-1, bitorder="little").reshape(count)


class BlobFile:
    """The bytes of one ``weight.bin``, read on first use: small packages have none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: bytes | None = None

    def array(self, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the blob whose record lies at ``offset`` (bytes), of the type and shape declared.

        Raises ``ArtifactError`` where the file is missing, cut short or says something else.
        """
        content = self._bytes()
        if offset < _RECORD_BYTES or offset + _RECORD_BYTES > len(content):
            raise self._damage(f"has no blob at byte {offset}")
        sentinel, kind, length, start = _RECORD.unpack_from(content, offset)
        if sentinel != _SENTINEL:
            raise self._damage(f"has no blob record at byte {offset}")
        if _ELEMENT_TYPES.get(kind) != dtype:
            raise self._damage(f"holds type {kind} at byte {offset} where {dtype} is declared")
        if length != stored_bytes(dtype, math.prod(shape)):
            raise self._damage(f"holds {length} bytes at byte {offset} for {dtype} {list(shape)}")
        if start + length > len(content):
            raise self._damage(
                f"ends at byte {len(content)}, before the blob at byte {offset} does"
            )
        if dtype in PACKED_BITS:
            return unpack(content[start : start + length], dtype, shape)
        return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)

    def _bytes(self) -> bytes:
        if self._content is None:
            if not self._path.is_file():
                raise self._damage("is missing")
            content = self._path.read_bytes()
            if len(content) < _RECORD_BYTES or _HEADER.unpack_from(content)[1] != _VERSION:
                raise self._damage("does not begin as MIL blob storage of version 2 does")
            self._content = content
        return self._content

    def _damage(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"the weights of the Core ML package are damaged: {self._path.name} {what}",
            next_step="copy the artifact again, or compile it anew",
        )
