"""Lowering: an exported program, with the share that a delegate takes of it, as a ``.pte``."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node as FxNode

from edgesdk.errors import EdgeSDKError, UnsupportedModel, first_line
from edgesdk_executorch.delegate import Delegate, innermost_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowered:
    """ExecuTorch's manager of the final program, and of each call of a delegate, in order, the
    layer behind each handle of its nodes; ``record`` is ExecuTorch's ETRecord of it."""

    final: Any
    record: Any
    layers: tuple[Mapping[str, str], ...]


def lower(exported: ExportedProgram, delegate: Delegate, partitioner: Callable[[], Any]) -> Lowered:
    """Return the lowered program; raises ``UnsupportedModel`` naming operator and layer."""
    from executorch.exir import to_edge_transform_and_lower

    try:
        with _quiet():
            edge = to_edge_transform_and_lower(
                exported, partitioner=[partitioner()], generate_etrecord=True
            )
            layers = tuple(delegate.finish(module) for module in _delegated(edge))
            final = edge.to_executorch()
            return Lowered(final=final, record=final.get_etrecord(), layers=layers)
    except EdgeSDKError:
        raise
    except Exception as problem:
        operator, layer = _place(str(problem), exported)
        raise UnsupportedModel(
            f"ExecuTorch cannot lower {operator} of layer {layer} for {delegate.title}: "
            f"{_with_cause(problem)}",
            expected="operators of the Core ATen set, without complex numbers",
            next_step=f"replace {operator} in {layer}, or choose another delegate or target",
        ) from problem


def operator_calls(graph: torch.fx.Graph) -> Iterator[FxNode]:
    """Yield the nodes that call an operator, in order."""
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            yield node


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep bars, prints and warnings of ExecuTorch's back ends to themselves; errors still raise.

    The Vulkan partitioner also sets the level of the whole program's root logger when imported.
    """
    root, disabled = logging.getLogger(), logging.root.manager.disable
    level = root.level
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)


def _delegated(edge: Any) -> Iterator[Any]:
    """Yield the lowered modules in the order of their calls."""
    module = edge.exported_program().graph_module
    for node in module.graph.nodes:
        if node.target is torch.ops.higher_order.executorch_call_delegate:
            yield getattr(module, node.args[0].target)


def _place(message: str, exported: ExportedProgram) -> tuple[str, str]:
    """Return the first operator of the program that a message names, and its layer."""
    for graph in _graphs(exported):
        for node in operator_calls(graph):
            name = str(node.target)
            # As PyTorch spells it in full and in short, and as a node of a graph is called.
            spelled = (name, node.target.name().partition(".")[0], name.replace(".", "_"))  # type: ignore[union-attr]
            found = (rf"(?<!\w){re.escape(word)}(?:_\d+)?(?!\w)" for word in spelled)
            if any(re.search(pattern, message) for pattern in found):
                return name, innermost_layer(node) or "(the model)"
    return "an operator", "(unknown)"


def _graphs(exported: ExportedProgram) -> Iterator[torch.fx.Graph]:
    yield exported.graph
    try:
        yield exported.run_decompositions().graph
    except Exception:  # noqa: BLE001 - the failure that is being explained may be this very one
        return


def _with_cause(problem: BaseException) -> str:
    """Return the first line of a message, and behind it that of the cause, if there is one."""
    cause = f" ({_with_cause(problem.__cause__)})" if problem.__cause__ else ""
    return first_line(problem).rstrip('".:') + cause
