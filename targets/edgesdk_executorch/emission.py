"""Emission: a compressed model through ``torch.export`` and XNNPACK into ``model.pte``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node as FxNode

from edgesdk.artifact import TensorSpec
from edgesdk.compress.pt2e import export_graph, quantize_graph
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import UnsupportedModel, first_line
from edgesdk.layer_format import require_formats
from edgesdk.scheme import DYNAMIC_SCHEMES
from edgesdk.target import Emission, refuse_schemes
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace
from edgesdk_executorch.program import Program, Tensor, read_program
from edgesdk_executorch.toolchain import TARGET_NAME, find_capability, find_toolchain

FILE = "model.pte"


def write_program(model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
    """Write ``model.pte`` into the folder and return how to feed it.

    Raises ``UnsupportedModel`` for a scheme that this target refuses for the runtime, and naming
    layer and operator where the model cannot be exported or lowered.
    """
    refuse_schemes(find_capability(runtime), model)
    if model.layer_schemes or model.scheme in DYNAMIC_SCHEMES:
        graph = trace(model.module, model.example_inputs, name="")
        require_formats(graph, TARGET_NAME, model.scheme, model.layer_schemes)
    exported = _export(model)
    lowered, final = _lower(exported)
    (folder / FILE).write_bytes(final.buffer)
    program = read_program(folder, FILE)
    layer_of = _layers(program, lowered, final)
    _check_kernels(program, layer_of)
    return Emission(
        files=(FILE,),
        inputs=tuple(starmap(_spec, zip(program.inputs, model.inputs, strict=True))),
        outputs=tuple(starmap(_spec, zip(program.outputs, model.outputs, strict=True))),
        tool_versions={p.name: str(p.found) for p in find_toolchain().packages},
        layer_of=layer_of,
    )


def _export(model: CompressedModel) -> ExportedProgram:
    """Return the program to lower, row-major throughout: XNNPACK takes no other inputs."""
    graph = export_graph(model) if model.schemes == {"fp32"} else quantize_graph(model)
    for tensor in (*graph.parameters(), *graph.buffers()):
        # A copy: contiguous() keeps odd strides of dimensions of size 1, which XNNPACK refuses.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return torch.export.export(graph, tuple(x.contiguous() for x in model.example_inputs))


def _lower(exported: ExportedProgram) -> tuple[Any, Any]:
    """Return the lowered program, whose graph still knows the layers, and the final one."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    try:
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return lowered, lowered.to_executorch()
    except Exception as problem:
        operator, layer = _place(str(problem), exported)
        raise UnsupportedModel(
            f"ExecuTorch cannot lower {operator} of layer {layer}: {_with_cause(problem)}",
            expected="operators of the Core ATen set, without complex numbers",
            next_step=f"replace {operator} in {layer}, or choose another target",
        ) from problem


def _place(message: str, exported: ExportedProgram) -> tuple[str, str]:
    """Return the first operator of the program that a message names, and its layer."""
    for graph in _graphs(exported):
        for node in _calls(graph):
            names = (str(node.target), node.target.name().partition(".")[0])  # type: ignore[union-attr]
            if any(re.search(rf"(?<![\w]){re.escape(name)}(?!\w)", message) for name in names):
                return names[0], _layer(node) or "(the model)"
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


def _calls(graph: torch.fx.Graph) -> Iterator[FxNode]:
    """Yield the nodes that call an operator, in order."""
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            yield node


def _layer(node: FxNode) -> str:
    """Return the path of the innermost module that a node came from."""
    return next((path for path, _ in reversed(node.meta.get("nn_module_stack", {}).values())), "")


def _layers(program: Program, lowered: Any, final: Any) -> dict[str, str]:
    """Return the layer of each of the file's operators, by name, as far as the graphs tell.

    Delegated nodes carry a handle into the graph that was lowered; the runtime's own kernels are
    called in the order of the final graph.
    """
    # Quantize and dequantize nodes share the handle of what they surround, but know no layer.
    handles = {
        node.meta["debug_handle"]: _layer(node)
        for module in lowered.exported_program().graph_module.children()
        if hasattr(module, "original_module")
        for node in module.original_module.graph.nodes
        if "debug_handle" in node.meta and _layer(node)
    }
    found = {n.name: handles.get(n.handle, "") for n in program.nodes if n.where == "xnnpack"}
    kernels = [node for node in program.nodes if node.where == "portable"]
    calls = list(_calls(final.exported_program().graph))
    if len(kernels) == len(calls):
        found |= {kernel.name: _layer(call) for kernel, call in zip(kernels, calls, strict=True)}
    return {name: layer for name, layer in found.items() if layer}


def _check_kernels(program: Program, layer_of: dict[str, str]) -> None:
    """Raise ``UnsupportedModel`` for an operator that the runtime has no kernel for."""
    import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
    from executorch.runtime import Runtime

    known = Runtime.get().operator_registry.operator_names
    for node in program.nodes:
        # ExecuTorch's own convolution is there, and fails when it meets a 3-D one.
        is_3d = node.weight_shape is not None and len(node.weight_shape) == 5
        if node.where == "portable" and (is_3d or node.op not in known):
            layer = layer_of.get(node.name, "(the model)")
            raise UnsupportedModel(
                f"ExecuTorch has no {'3-D ' if is_3d else ''}kernel for {node.op} of layer {layer}",
                expected="operators that XNNPACK or ExecuTorch's portable kernels compute",
                next_step=f"replace {node.op} in {layer}, or choose another target",
            )


def _spec(tensor: Tensor, meaning: InputSpec | OutputSpec) -> TensorSpec:
    return TensorSpec(
        name=meaning.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        from_torch=tuple(range(len(tensor.shape))),
        labels=meaning.labels if isinstance(meaning, OutputSpec) else (),
    )
