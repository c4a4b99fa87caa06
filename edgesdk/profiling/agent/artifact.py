"""The artifact's folder: its manifest, checked against its files, and its golden vectors."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .problem import AgentError

_HEADER_LIMIT_BYTES = 1_000_000
# Of safetensors, as numpy calls them: floats, and the integers that stand for words.
_TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}


def read_manifest(folder: Path) -> Any:
    """Return the manifest, every file of the artifact being inside the folder and as sealed."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sealed = dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise AgentError(f"{folder} is not an artifact folder: {problem}") from None
    for name, digest in sealed.items():
        path = folder / name
        if os.path.isabs(name) or ".." in Path(name).parts or not _is_within(path, folder):
            raise AgentError(f"the manifest names {name!r}, which is not inside the artifact")
        if not path.is_file() or sha256_of(path) != digest:
            raise AgentError(f"{name} is missing or not the file that was sealed; copy it again")
    return manifest


def _is_within(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their relative names together."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def read_golden(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the golden inputs and outputs, ``[N, ...]`` in PyTorch layout, of a safetensors file.

    The format: the header's length, the header in JSON, then the bytes of the tensors.
    """
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    if length > _HEADER_LIMIT_BYTES:
        raise AgentError(f"{path.name} has a header of {length} bytes")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    found: dict[str, Any] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            kind = _TYPES.get(tensor["dtype"])
            if kind is None:
                raise AgentError(
                    f"{path.name} holds {tensor['dtype']}: this agent does not read it"
                )
            found[name] = np.frombuffer(data[begin:end], dtype=kind).reshape(tensor["shape"])
    columns = [
        [found[f"{kind}.{i}"] for i in range(len(found)) if f"{kind}.{i}" in found]
        for kind in ("input", "output")
    ]
    return columns[0], columns[1]
