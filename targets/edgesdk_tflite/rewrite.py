"""Rewrites of a float file into forms that the quantizer takes, with the same numbers."""

from __future__ import annotations

from typing import Any

from edgesdk_tflite.flatbuffer import items, operator_name, pack, unpack

_BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_BIAS = 2
_GATHER_VERSION = 1


def ready_for_integers(content: bytes) -> bytes:
    """Return the float file with flat biases, and with table look-ups as gathers."""
    model = unpack(content)
    for graph in model.subgraphs:
        for operator in items(graph.operators):
            name = operator_name(model, operator)
            if name in _BIASED:
                _flatten_bias(graph, operator)
            elif name == "EMBEDDING_LOOKUP":
                _gather(model, operator)
    return pack(model)


def _flatten_bias(graph: Any, operator: Any) -> None:
    """Give a bias of shape [1, ..., C] the shape [C], in place.

    The quantizer writes the scales of a bias along its first axis, whatever that is; a file with
    C scales along an axis of length 1 does not load.
    """
    indices = items(operator.inputs)
    if len(indices) <= _BIAS or indices[_BIAS] < 0:
        return
    tensor = graph.tensors[indices[_BIAS]]
    shape = [int(size) for size in tensor.shape]
    readers = [other for other in items(graph.operators) if indices[_BIAS] in items(other.inputs)]
    if len(shape) > 1 and set(shape[:-1]) == {1} and len(readers) == 1:
        tensor.shape = shape[-1:]


def _gather(model: Any, operator: Any) -> None:
    """Turn the look-up of table rows into the gather it is, in place.

    Given:   EMBEDDING_LOOKUP(rows [N], table [V, ...])
    Result:  GATHER(table, rows, axis=0)

    The quantizer has integer forms of the second only.
    """
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.BuiltinOperator.GATHER
    known = [i for i, code in enumerate(model.operatorCodes) if code.builtinCode == kind]
    if not known:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = _GATHER_VERSION
        model.operatorCodes.append(code)
    operator.opcodeIndex = known[0] if known else len(model.operatorCodes) - 1
    rows, table = items(operator.inputs)
    operator.inputs = [table, rows]
    operator.builtinOptionsType = schema.BuiltinOptions.GatherOptions
    operator.builtinOptions = schema.GatherOptionsT()
