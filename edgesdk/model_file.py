"""Model files that somebody already has, read into an ``OpGraph`` by the target of their format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgesdk.cost.fusion import WEIGHTED
from edgesdk.errors import ArtifactError, UsageError
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme
from edgesdk.target import GraphReader, find_target, target_names

FORMATS = (".tflite", ".pte", ".mlpackage", ".mlmodel", ".onnx")
"""Endings of what people have; which of them can be read depends on the targets."""

_INTEGERS = frozenset({"int4", "int8", "uint8"})


def is_model_file(reference: str) -> bool:
    """Return whether a command line's argument names a model file and not a task."""
    return Path(reference).suffix.lower() in FORMATS


def read_graph(path: Path) -> OpGraph:
    """Return what a model file computes.

    Raises ``UsageError`` for a format that no target reads, ``ArtifactError`` for a missing or
    damaged file, ``UnsupportedModel`` for what an ``OpGraph`` cannot hold.
    """
    readers = _readers()
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise UsageError(
            f"no target reads {suffix or 'such'} files",
            expected=f"a file ending in {', '.join(readers)}",
            next_step="inspect the task that the file was made from",
        )
    if not path.is_file():
        raise ArtifactError(f"{path} is not a file")
    return readers[suffix].read_graph(path)


def scheme_of(graph: OpGraph) -> Scheme:
    """Return the precision a file computes in, going by the kernels of most of its operators."""
    kernels = [op.parameters[0] for op in graph.ops if op.kind in WEIGHTED and op.parameters]
    dtypes = [graph.tensors[name].dtype for name in kernels]
    if 2 * sum(dtype in _INTEGERS for dtype in dtypes) > len(dtypes):
        return "int8"
    return "fp16" if 2 * dtypes.count("float16") > len(dtypes) else "fp32"


def _readers() -> Mapping[str, GraphReader]:
    targets = (find_target(name) for name in target_names())
    return {target.suffix: target for target in targets if isinstance(target, GraphReader)}
