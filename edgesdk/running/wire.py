"""Messages between edgesdk and its worker process: a JSON header and arrays, never pickle."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgesdk import errors

_LENGTH = struct.Struct("<Q")

Array = NDArray[np.generic]


def write_message(stream: IO[bytes], header: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write one message: header length, header, then each array as a length and ``.npy`` bytes."""
    text = json.dumps({**header, "arrays": len(arrays)}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
        stream.write(_LENGTH.pack(buffer.tell()))
        stream.write(buffer.getbuffer())
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[Array]]:
    """Return the next message; ``EOFError`` when the other side has gone."""
    header = json.loads(_read_block(stream))
    arrays = [
        np.load(io.BytesIO(_read_block(stream)), allow_pickle=False)
        for _ in range(header.pop("arrays"))
    ]
    return header, arrays


def error_message(problem: errors.EdgeSDKError) -> dict[str, Any]:
    """Return the header that tells the other side what was raised."""
    # A target's own subclass is not known on the other side; the class it extends is.
    known = next(c for c in type(problem).__mro__ if c.__module__ == errors.__name__)
    error = {
        "class": known.__name__,
        "found": problem.found,
        "expected": problem.expected,
        "next_step": problem.next_step,
    }
    return {"error": error}


def error_in(header: dict[str, Any]) -> errors.EdgeSDKError:
    """Return the error that a header tells of, to be raised on this side."""
    error = header["error"]
    known: type[errors.EdgeSDKError] = getattr(errors, error["class"])
    return known(error["found"], expected=error["expected"], next_step=error["next_step"])


def _read_block(stream: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return _read_exactly(stream, length)


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        block = stream.read(length - len(data))
        if not block:
            raise EOFError
        data += block
    return bytes(data)
