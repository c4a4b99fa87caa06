"""A folder in one piece of bytes, as ExecuTorch's Core ML delegate keeps its package in a ``.pte``.

All files' bytes one after another, then their directory as JSON, its characters in reverse order:
``{"nodes": [{"name", "kind", "children": {name: index}, "dataRegion": {"offset", "size"}}]}``,
the root last, kind 0 for files and 1 for folders (executorch's
backends/apple/coreml/runtime/inmemoryfs).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgesdk.artifact import inside
from edgesdk.errors import ArtifactError

_FILE, _FOLDER = 0, 1
_DIRECTORY_BYTES = 1 << 20
_DEPTH = 8


def flatten(folder: Path) -> bytes:
    """Return a folder's content; equal folders give equal bytes, whatever order a disk lists."""
    data = bytearray()
    nodes: list[dict[str, Any]] = []

    def add(path: Path) -> int:
        children = {p.name: add(p) for p in sorted(path.iterdir())} if path.is_dir() else {}
        content = b"" if path.is_dir() else path.read_bytes()
        region = {"offset": 0 if path.is_dir() else len(data), "size": len(content)}
        kind = _FOLDER if path.is_dir() else _FILE
        nodes.append({"children": children, "dataRegion": region, "kind": kind, "name": path.name})
        data.extend(content)
        return len(nodes) - 1

    add(folder)
    directory = json.dumps({"nodes": nodes}, separators=(",", ":"), sort_keys=True)
    return bytes(data) + directory.encode()[::-1]


def unflatten(content: bytes, folder: Path) -> None:
    """Write the files of a flattened folder into an existing one.

    Raises ``ArtifactError`` for bytes that are no such folder, or name what is not inside it.
    """
    backwards = content[-_DIRECTORY_BYTES:][::-1].decode("latin-1")
    try:
        nodes = json.JSONDecoder().raw_decode(backwards)[0]["nodes"]
        _write_children(nodes[-1], nodes, content, folder, left=_DEPTH)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as problem:
        raise ArtifactError(
            f"the program's Core ML payload is damaged: {problem!r}",
            next_step="copy the artifact again, or compile it anew",
        ) from problem


def _write_children(node: Any, nodes: Any, content: bytes, folder: Path, *, left: int) -> None:
    """Write a folder's files and, ``left`` levels deep, its folders."""
    for name, index in node["children"].items():
        child, path = nodes[index], inside(folder, name)
        if "/" in name or name in ("", ".", "..") or left == 0:
            raise ArtifactError(f"the program's Core ML payload holds {name!r}, not a file's name")
        if child["kind"] == _FOLDER:
            path.mkdir()
            _write_children(child, nodes, content, path, left=left - 1)
            continue
        offset, size = child["dataRegion"]["offset"], child["dataRegion"]["size"]
        if not 0 <= offset <= offset + size <= len(content):
            raise ArtifactError(f"{name} of the program's Core ML payload is cut short")
        path.write_bytes(content[offset : offset + size])
