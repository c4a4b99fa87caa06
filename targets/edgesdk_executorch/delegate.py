"""A delegate: what executes parts of a ``.pte``, and what is known of it ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.scheme import Scheme
from edgesdk_executorch.node import Node


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """One of ExecuTorch's back ends.

    - ``name``: as profiles and ``--delegate`` call it; ``title`` as its makers do.
    - ``backend_id``: what a ``.pte`` calls it; ``executor`` what counts of operators call it.
    - ``mixes``, ``unmixed``: as ``edgesdk.target.Capability`` has them.
    - ``runs_here``: whether the runtime in the wheel executes it on this machine.
    - ``quantizable``: operators without weights that it can compute in int8.
    - ``refusal``: why it does not have a scheme on a runtime that lists it, None where it has.
    - ``prepare``: rewrites a graph, in place, into the one that it takes more of.
    - ``partitioner``: what takes its share of a model out of the exported graph.
    - ``finish``: completes a lowered module, and gives the layer behind each handle of its nodes.
    - ``read_nodes``: yields the nodes of a payload, their names behind a prefix.
    """

    name: str
    title: str
    backend_id: str
    executor: str
    mixes: Mapping[Scheme, tuple[Scheme, ...]]
    unmixed: str
    runs_here: bool
    quantizable: Collection[str]
    refusal: Callable[[Scheme, Runtime], str | None]
    prepare: Callable[[GraphModule], None]
    partitioner: Callable[[CompressedModel, Runtime], Any]
    finish: Callable[[Any], Mapping[str, str]]
    read_nodes: Callable[[bytes, str], Iterator[Node]]


def take_as_it_is(graph: GraphModule) -> None:
    """Leave a graph as it is: the ``prepare`` of a delegate that needs nothing else."""


def layer_of_handle(module: Any) -> dict[str, str]:
    """Return the layer behind each debug handle of a lowered module's graph, where one is known."""
    # Quantize and dequantize nodes share the handle of what they surround, but know no layer.
    return {
        str(node.meta["debug_handle"]): layer
        for node in module.original_module.graph.nodes
        if "debug_handle" in node.meta and (layer := innermost_layer(node))
    }


def innermost_layer(node: Any) -> str:
    """Return the path of the innermost module that a node of a graph came from, empty for none."""
    return next((path for path, _ in reversed(node.meta.get("nn_module_stack", {}).values())), "")
