"""Float inputs and outputs around a graph that computes in integers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from edgesdk_tflite.flatbuffer import enum_names, items, pack, unpack

# Schema versions since which the operators take and give a type.
_QUANTIZE_VERSIONS = {"INT8": 1, "INT16": 2}
_DEQUANTIZE_VERSIONS = {"INT8": 2, "INT16": 3}


def with_float_boundary(content: bytes) -> bytes:
    """Return the file with its quantized inputs and outputs, int8 or int16, as float32.

    Given:   x int8 -> graph -> y int8
    Result:  x float32 -> QUANTIZE -> graph -> DEQUANTIZE -> y float32

    Shapes and the signature's names stay. The quantizer can be told to leave inputs and outputs
    in float itself, but then an operator that reads a tensor which is also an output stays float.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpack(content)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    kinds = schema.BuiltinOperator
    before, after = [], []
    outside = {index: _float_copy(graph, index) for index in _quantized(graph, graph.inputs)}
    for inner, outer in outside.items():
        version = _QUANTIZE_VERSIONS[_type_name(graph, inner)]
        before.append(_operator(model, kinds.QUANTIZE, version, outer, inner))
    graph.inputs = [outside.get(int(index), int(index)) for index in graph.inputs]
    _redirect(signature.inputs, outside)
    outside = {index: _float_copy(graph, index) for index in _quantized(graph, graph.outputs)}
    for inner, outer in outside.items():
        version = _DEQUANTIZE_VERSIONS[_type_name(graph, inner)]
        after.append(_operator(model, kinds.DEQUANTIZE, version, inner, outer))
    graph.outputs = [outside.get(int(index), int(index)) for index in graph.outputs]
    _redirect(signature.outputs, outside)
    graph.operators = [*before, *items(graph.operators), *after]
    return pack(model)


def _quantized(graph: Any, indices: Any) -> list[int]:
    """Return each of those tensor indices once whose tensor is int8 or int16 and has a scale."""
    return [
        i
        for i in dict.fromkeys(map(int, indices))
        if _type_name(graph, i) in _QUANTIZE_VERSIONS and _has_scale(graph.tensors[i])
    ]


def _has_scale(tensor: Any) -> bool:
    return tensor.quantization is not None and len(items(tensor.quantization.scale)) > 0


def _type_name(graph: Any, index: int) -> str:
    return enum_names("TensorType")[graph.tensors[index].type]


def _float_copy(graph: Any, index: int) -> int:
    """Add a float32 tensor of the same shape to the graph and return its index."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = copy.copy(graph.tensors[index])
    tensor.name = f"{tensor.name.decode()};float"
    tensor.type = schema.TensorType.FLOAT32
    tensor.quantization = None
    tensor.buffer = 0  # the schema's empty buffer: what activations have
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, kind: int, version: int, source: int, result: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = version
    known = [
        i
        for i, c in enumerate(model.operatorCodes)
        if (c.builtinCode, c.version) == (kind, version)
    ]
    if not known:
        model.operatorCodes.append(code)
    operator.opcodeIndex = known[0] if known else len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [source], [result]
    return operator


def _redirect(entries: Any, outside: Mapping[int, int]) -> None:
    for entry in entries:
        entry.tensorIndex = outside.get(entry.tensorIndex, entry.tensorIndex)
