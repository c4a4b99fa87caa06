"""What reading the ``.pte`` back proves or disproves about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from edgesdk.artifact import Check
from edgesdk.compressed import CompressedModel
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerFormat, name_exceptions, op_formats
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk.trace import trace
from edgesdk_executorch.delegate import Delegate
from edgesdk_executorch.delegates import DELEGATES
from edgesdk_executorch.node import Node
from edgesdk_executorch.program import Program
from edgesdk_executorch.toolchain import TARGET_NAME

_NAMED_AT_MOST = 5


def check_program(
    program: Program, emission: Emission, model: CompressedModel
) -> tuple[Check, ...]:
    """Return the checks of a program against the model it was emitted from."""
    graph = trace(model.module, model.example_inputs, name="")
    called = {node.where for node in program.nodes}
    # A file has one; where nothing is delegated, any of them says so.
    delegate = next((each for each in DELEGATES if each.executor in called), DELEGATES[0])
    return (
        _check_tensors(program, emission),
        _check_weights(program, graph),
        _check_precision(program, emission, model, graph),
        _check_islands(program, emission, model.scheme, delegate),
        _check_delegation(program, emission, delegate),
    )


def _check_tensors(program: Program, emission: Emission) -> Check:
    """The file takes and returns the shapes and types that the emission states."""
    stated = [(spec.shape, spec.dtype) for spec in (*emission.inputs, *emission.outputs)]
    found = [(tensor.shape, tensor.dtype) for tensor in (*program.inputs, *program.outputs)]
    text = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in found)
    return Check(
        name="inputs and outputs",
        passed=found == stated,
        detail=f"the file has {text}" + ("" if found == stated else f", stated are {stated}"),
    )


def _check_weights(program: Program, graph: OpGraph) -> Check:
    """Every weight tensor of the model's convolutions and linear layers is there, whole."""
    weighted = [op for op in graph.ops if op.kind.startswith("conv") or op.kind == "linear"]
    tensors = ([graph.tensors[name] for name in op.parameters] for op in weighted)
    weights = [[tensor for tensor in own if len(tensor.shape) > 1] for own in tensors]
    expected = Counter(own[0].elements for own in weights if own)
    found = Counter(math.prod(n.weight_shape) for n in program.nodes if n.weight_shape is not None)
    missing = expected - found
    total = sum(size * count for size, count in found.items())
    detail = f"{found.total()} weight tensors with {total} weights"
    if missing:
        detail += f"; the model has others, of {sorted(missing.elements())} weights"
    return Check(name="weights", passed=not missing, detail=detail)


def _check_precision(
    program: Program, emission: Emission, model: CompressedModel, graph: OpGraph
) -> Check:
    """Every convolution and linear layer is in its own scheme, weights and arithmetic both.

    A layer that the delegate cannot have in the scheme asked for is in the one that the rules
    name, and is named here too.
    """
    expected = _expected(graph, model)
    # What is no layer of the model: a batch norm that became a convolution.
    # In a network of float16, ExecuTorch's own kernels compute in float32 what was left to them.
    left = LayerFormat(scheme="fp32")
    other = LayerFormat(scheme=model.scheme if model.scheme in ("int8", "fp16") else "fp32")
    weighted = [node for node in program.nodes if node.weight_shape is not None]
    wrong, exceptions = [], []
    missing = dict(model.layer_schemes)
    for node in weighted:
        layer = emission.layer_of.get(node.name, "")
        missing.pop(layer, None)
        wanted = expected.get((layer, math.prod(node.weight_shape or ())), other)
        if model.scheme == "fp16" and node.where == "portable":
            wanted = left
        exceptions.append((layer, wanted))
        if node.scheme != wanted.scheme:
            wrong.append(node)
    right = Counter(node.scheme for node in weighted if node not in wrong)
    told = ", ".join(f"{count} in {scheme}" for scheme, count in sorted(right.items())) or "none"
    detail = (
        f"{right.total()} of {len(weighted)} convolutions and linear layers are as asked: {told}"
    )
    named = name_exceptions(exceptions)
    detail += f"; {named}" if named else ""
    if wrong:
        detail += f"; not as asked {_listed(wrong, emission)}"
    # A scheme that no operator was seen to have may be on another layer, or on none.
    detail += f"; no operator is known to be of {', '.join(missing)}" if missing else ""
    nothing = model.schemes != {"fp32"} and not weighted
    passed = not wrong and not nothing and not missing
    return Check(name="precision", passed=passed, detail=detail)


def _expected(graph: OpGraph, model: CompressedModel) -> dict[tuple[str, int], LayerFormat]:
    """Return the format of each layer by its path and the size of its weight."""
    formats = op_formats(graph, TARGET_NAME, model.scheme, model.layer_schemes)
    return {
        (op.layer, graph.tensors[op.parameters[0]].elements): formats[op.name]
        for op in graph.ops
        if op.name in formats
    }


def _check_islands(
    program: Program, emission: Emission, scheme: Scheme, delegate: Delegate
) -> Check:
    """No operator between int8 operators was left in float that could be int8; the rest is named.

    A product or sum counts as left only if all it reads comes from int8: ``x * sigmoid(x)`` reads
    a sigmoid, which XNNPACK computes in float.
    """
    if scheme != "int8":
        return Check(name="float islands", passed=True, detail=f"not looked for in {scheme}")
    in_float = [node for node in program.nodes if "float" in node.dtype and "->" not in node.dtype]
    to_float = {node.name for node in program.nodes if node.dtype == "int8->float32"}
    avoidable = [
        node
        for node in in_float
        if node.op in delegate.quantizable
        and not node.constants
        and to_float.issuperset(node.reads)
    ]
    detail = f"{len(in_float)} operators compute in float"
    if in_float:
        detail += f": {_listed(avoidable or in_float, emission)}"
    return Check(name="float islands", passed=not avoidable, detail=detail)


def _check_delegation(program: Program, emission: Emission, delegate: Delegate) -> Check:
    """The delegate executes the model; whatever it does not is named."""
    outside = [node for node in program.nodes if node.where != delegate.executor]
    inside = len(program.nodes) - len(outside)
    detail = f"{delegate.title} executes {inside} of {len(program.nodes)} operators"
    if outside:
        detail += f"; outside {_listed(outside, emission)}"
    return Check(name="delegation", passed=inside > 0, detail=detail)


def _listed(nodes: Iterable[Node], emission: Emission) -> str:
    """Return the first few nodes with layer and precision, and how many more there are."""
    texts = [
        f"{emission.layer_of.get(node.name, 'the model itself')} ({node.op}, {node.precision})"
        for node in nodes
    ]
    more = len(texts) - _NAMED_AT_MOST
    return ", ".join(texts[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
