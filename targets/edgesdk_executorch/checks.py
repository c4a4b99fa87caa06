"""What reading the ``.pte`` back proves or disproves about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from edgesdk.artifact import Check
from edgesdk.compressed import CompressedModel
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk.trace import trace
from edgesdk_executorch.node import Node
from edgesdk_executorch.program import Program

_DTYPE: dict[Scheme, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}

# Operators that XNNPACK computes in int8 and the quantizer marks wherever it meets them.
_QUANTIZABLE = ("add", "multiply", "concatenate2", "concatenate3", "concatenate4", "concatenate5")
_NAMED_AT_MOST = 5


def check_program(
    program: Program, emission: Emission, model: CompressedModel
) -> tuple[Check, ...]:
    """Return the checks of a program against the model it was emitted from."""
    return (
        _check_tensors(program, emission),
        _check_weights(program, model),
        _check_precision(program, emission, model.scheme),
        _check_islands(program, emission, model.scheme),
        _check_delegation(program, emission),
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


def _check_weights(program: Program, model: CompressedModel) -> Check:
    """Every weight tensor of the model's convolutions and linear layers is there, whole."""
    graph = trace(model.module, model.example_inputs, name="")
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


def _check_precision(program: Program, emission: Emission, scheme: Scheme) -> Check:
    """Every convolution and linear layer computes in the scheme's type, with weights in it."""
    wanted = _DTYPE[scheme]
    weighted = [node for node in program.nodes if node.weight_dtype is not None]
    wrong = [node for node in weighted if node.precision != wanted]
    detail = f"{len(weighted) - len(wrong)} of {len(weighted)} convolutions and linear layers "
    detail += f"compute in {wanted} with {wanted} weights"
    if wrong:
        detail += f"; not so {_listed(wrong, emission)}"
    nothing = scheme == "int8" and not weighted
    return Check(name="precision", passed=not wrong and not nothing, detail=detail)


def _check_islands(program: Program, emission: Emission, scheme: Scheme) -> Check:
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
        if node.op in _QUANTIZABLE and not node.constants and to_float.issuperset(node.reads)
    ]
    detail = f"{len(in_float)} operators compute in float"
    if in_float:
        detail += f": {_listed(avoidable or in_float, emission)}"
    return Check(name="float islands", passed=not avoidable, detail=detail)


def _check_delegation(program: Program, emission: Emission) -> Check:
    """The delegate executes the model; whatever it does not is named."""
    outside = [node for node in program.nodes if node.where != "xnnpack"]
    inside = len(program.nodes) - len(outside)
    detail = f"XNNPACK executes {inside} of {len(program.nodes)} operators"
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
