"""Emission: a compressed model through ``torch.export`` and a delegate into ``model.pte``."""

from __future__ import annotations

from itertools import islice, starmap
from pathlib import Path

import torch
from torch.export import ExportedProgram

from edgesdk.artifact import TensorSpec
from edgesdk.compress.pt2e import export_graph, quantize_graph
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import UnsupportedModel
from edgesdk.layer_format import require_formats
from edgesdk.scheme import DYNAMIC_SCHEMES, FLOAT_SCHEMES
from edgesdk.target import Emission, refuse_schemes
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace
from edgesdk_executorch.delegate import Delegate, innermost_layer
from edgesdk_executorch.delegates import find_delegate
from edgesdk_executorch.developer_files import RECORD, write_record
from edgesdk_executorch.lowering import Lowered, lower, operator_calls
from edgesdk_executorch.program import Program, Tensor, read_program
from edgesdk_executorch.toolchain import TARGET_NAME, find_capability, tool_versions

FILE = "model.pte"
_NAMED_AT_MOST = 5


def write_program(model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
    """Write ``model.pte`` into the folder and return how to feed it.

    Raises ``UnsupportedModel`` for a scheme that this target refuses for the runtime, and naming
    layer and operator where the model cannot be exported or lowered.
    """
    refuse_schemes(find_capability(runtime), model)
    delegate = find_delegate(runtime.delegate)
    assert delegate is not None  # or every scheme would have been refused
    if model.layer_schemes or model.scheme in DYNAMIC_SCHEMES:
        graph = trace(model.module, model.example_inputs, name="")
        require_formats(graph, TARGET_NAME, model.scheme, model.layer_schemes)
    lowered = lower(
        _export(model, delegate), delegate, lambda: delegate.partitioner(model, runtime)
    )
    (folder / FILE).write_bytes(lowered.final.buffer)
    program = read_program(folder, FILE)
    layer_of = _layers(program, lowered)
    _check_kernels(program, layer_of)
    _check_taken(program, delegate, layer_of)
    _check_integers(program, delegate, model, layer_of)
    write_record(lowered.record, folder / RECORD)
    return Emission(
        files=(FILE,),
        developer_files=(RECORD,),
        inputs=tuple(starmap(_spec, zip(program.inputs, model.inputs, strict=True))),
        outputs=tuple(starmap(_spec, zip(program.outputs, model.outputs, strict=True))),
        tool_versions=tool_versions(delegate.name),
        layer_of=layer_of,
    )


def _export(model: CompressedModel, delegate: Delegate) -> ExportedProgram:
    """Return the program to lower, row-major throughout: XNNPACK takes no other inputs.

    It is float32 where the network is float16, too: the delegate rounds then.
    """
    graph = export_graph(model) if model.schemes <= set(FLOAT_SCHEMES) else quantize_graph(model)
    delegate.prepare(graph)
    for tensor in (*graph.parameters(), *graph.buffers()):
        # A copy: contiguous() keeps odd strides of dimensions of size 1, which XNNPACK refuses.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return torch.export.export(graph, tuple(x.contiguous() for x in model.example_inputs))


def _layers(program: Program, lowered: Lowered) -> dict[str, str]:
    """Return the layer of each of the file's operators, by name, as far as the graphs tell.

    Delegates are called, and the runtime's own kernels too, in the order of the final graph.
    """
    kernels = [node for node in program.nodes if node.where == "portable"]
    layers = dict(zip(program.delegate_calls, lowered.layers, strict=True))
    found = {
        node.name: layers[node.instruction].get(node.handle, "")
        for node in program.nodes
        if node.handle is not None
    }
    calls = list(operator_calls(lowered.final.exported_program().graph))
    if len(kernels) == len(calls):
        pairs = zip(kernels, calls, strict=True)
        found |= {kernel.name: innermost_layer(call) for kernel, call in pairs}
    return {name: layer for name, layer in found.items() if layer}


def _check_taken(program: Program, delegate: Delegate, layer_of: dict[str, str]) -> None:
    """Raise ``UnsupportedModel`` where the delegate took nothing: the file would be another's."""
    if any(node.where == delegate.executor for node in program.nodes):
        return
    left = (
        f"{node.op} of layer {layer_of.get(node.name, '(the model)')}" for node in program.nodes
    )
    raise UnsupportedModel(
        f"{delegate.title} takes no operator of this model: "
        f"{', '.join(islice(left, _NAMED_AT_MOST)) or 'there is none'}",
        expected="at least one operator that the delegate executes",
        next_step="choose another --delegate or --target",
    )


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
                expected="operators that the delegate or ExecuTorch's portable kernels compute",
                next_step=f"replace {node.op} in {layer}, or choose another target",
            )


def _check_integers(
    program: Program, delegate: Delegate, model: CompressedModel, layer_of: dict[str, str]
) -> None:
    """Raise ``UnsupportedModel`` for a layer that the delegate computes in float from int8 weights:
    it would be decoded at every inference, and slower than float."""
    left = [
        f"{layer_of.get(node.name, '(the model)')} ({node.op}, {node.precision})"
        for node in program.nodes
        if model.schemes == {"int8"} and node.weight_dtype and node.scheme != "int8"
    ]
    if left and not delegate.runs_here:
        raise UnsupportedModel(
            f"{delegate.title} computes {len(left)} layers in float although their weights are "
            f"int8: {', '.join(left[:_NAMED_AT_MOST])}",
            expected="layers that it computes in int8",
            next_step="choose among --scheme fp16 and fp32, or another --delegate",
        )


def _spec(tensor: Tensor, meaning: InputSpec | OutputSpec) -> TensorSpec:
    return TensorSpec(
        name=meaning.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        from_torch=tuple(range(len(tensor.shape))),
        labels=meaning.labels if isinstance(meaning, OutputSpec) else (),
    )
