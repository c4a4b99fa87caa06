"""Parcels: what crosses between processes. JSON and tensors; nothing is ever unpickled."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True, eq=False)
class Parcel:
    """JSON-ready ``values`` and named ``tensors``; numbers arrive as they left, to the last bit."""

    values: Any = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the length of the values' JSON, the JSON, and the tensors as safetensors."""
        text = json.dumps(self.values, separators=(",", ":")).encode()
        # Copies, because safetensors refuses tensors that share memory, as slices of a data set do.
        copies = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in self.tensors.items()
        }
        return _LENGTH.pack(len(text)) + text + safetensors.torch.save(copies)

    @classmethod
    def from_bytes(cls, data: bytes) -> Parcel:
        """Return the parcel that those bytes are."""
        (length,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + length
        values = json.loads(data[_LENGTH.size : start])
        return cls(values=values, tensors=safetensors.torch.load(data[start:]))


def put_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with their names under a prefix, to share a parcel with others."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def found_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that ``put_under`` gave that prefix, by their own names."""
    start = f"{prefix}/"
    return {n.removeprefix(start): tensor for n, tensor in tensors.items() if n.startswith(start)}
