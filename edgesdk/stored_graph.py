"""The graph an artifact was emitted from, on disk: what refines a profile when it is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from edgesdk.document import read_json, to_builtins
from edgesdk.errors import ArtifactError
from edgesdk.graph import OpGraph

_MAXIMUM_BYTES = 50_000_000  # a graph of 1,000 operators has about 1 MB


@dataclass(frozen=True, kw_only=True)
class StoredGraph:
    """An ``OpGraph`` as a document of its own."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    graph: OpGraph
    schema_version: Literal[1] = 1


def write_graph(graph: OpGraph, path: Path) -> None:
    """Write the graph as JSON that ``read_graph`` reads back as an equal graph."""
    text = json.dumps(to_builtins(StoredGraph(graph=graph)), ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_graph(path: Path) -> OpGraph:
    """Return the graph that ``write_graph`` wrote.

    Raises ``ArtifactError`` for a file that is missing, too large or malformed, and for a graph
    that cannot be: an operator that reads what nobody computed, a negative size.
    """
    if path.is_file() and path.stat().st_size > _MAXIMUM_BYTES:
        raise ArtifactError(f"{path.name} is larger than {_MAXIMUM_BYTES} bytes")
    graph = read_json(StoredGraph, path).graph
    for problem in _problems(graph):
        raise ArtifactError(f"{path.name} holds no graph: {problem}")
    return graph


def _problems(graph: OpGraph) -> Iterator[str]:
    for name, tensor in graph.tensors.items():
        if tensor.name != name:
            yield f"tensor {tensor.name!r} is filed under {name!r}"
        if any(size < 0 for size in tensor.shape):
            yield f"tensor {name!r} has the shape {list(tensor.shape)}"
    known = {name for name, tensor in graph.tensors.items() if tensor.role != "activation"}
    known -= {name for op in graph.ops for name in op.outputs}
    for op in graph.ops:
        if op.macs < 0:
            yield f"operator {op.name!r} has {op.macs} MACs"
        if not op.outputs:
            yield f"operator {op.name!r} computes nothing"
        for name in (*op.inputs, *op.parameters):
            if name not in known:
                yield f"operator {op.name!r} reads {name!r} before it is computed"
        for name in op.outputs:
            if name not in graph.tensors:
                yield f"operator {op.name!r} writes {name!r}, which is no tensor"
        known.update(op.outputs)
