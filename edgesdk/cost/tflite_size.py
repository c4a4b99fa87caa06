"""Bytes of a ``.tflite`` before it is written: a flatbuffer, as ``schema.fbs`` lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgesdk.cost.file_form import FormOp, FormTensor
from edgesdk.cost.flatbuffer import (
    OFFSET_BYTES,
    field_list_bytes,
    string_bytes,
    table_bytes,
    up,
    vector_bytes,
    words,
)
from edgesdk.cost.tflite_form import tflite_form
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme

_NUMBER = 3  # characters behind a tensor's layer: ";12"
_DATA_ALIGNMENT = 16
# shape, name, quantization, type, whether it has a rank; a constant's buffer
_TENSOR = OFFSET_BYTES + table_bytes(1, 1, *words(3))
_BUFFER_NUMBER = 4
# The converter gives every tensor a buffer; the quantizer leaves those of constants alone.
_EMPTY_BUFFER = _BUFFER_NUMBER + OFFSET_BYTES + table_bytes()
_QUANTIZATION = table_bytes(*words(2))  # scales and zero points, of four and eight bytes
_NO_QUANTIZATION = table_bytes()
_BUFFER = OFFSET_BYTES + table_bytes(4) + 4
# the operator's number, inputs, outputs; the type of the options and where they are
_OPERATOR = OFFSET_BYTES + table_bytes(*words(3))
_OPTIONED = OFFSET_BYTES + table_bytes(1, *words(4))
_WITHOUT_OPTIONS = frozenset(
    {
        "DEQUANTIZE", "EMBEDDING_LOOKUP", "HARD_SWISH", "LOGISTIC", "QUANTIZE", "RESHAPE",
        "RSQRT", "SLICE", "SQUARED_DIFFERENCE", "TANH", "TRANSPOSE",
    }
)  # fmt: skip
_CODE = OFFSET_BYTES + table_bytes(1, *words(2))
# Fields of the options that are set: operators not named have none.
_OPTIONS: Mapping[str, int] = {
    "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 2, "AVERAGE_POOL_2D": 5,
    "MAX_POOL_2D": 5, "CONCATENATION": 1, "SOFTMAX": 1,
    "TRANSPOSE_CONV": 3, "MEAN": 1, "RESIZE_BILINEAR": 1, "RESIZE_NEAREST_NEIGHBOR": 1,
}  # fmt: skip
# Root and identifier; the model's, the graph's and the signature's tables, their vectors, names
# and lists of fields; the two buffers and entries of the converter's metadata.
_FILE = (
    8 + table_bytes(*words(7)) + string_bytes(len("MLIR Converted.")) + 4 * vector_bytes(0)
    + OFFSET_BYTES + table_bytes(*words(5)) + 2 * vector_bytes(1) + string_bytes(len("main"))
    + 2 * vector_bytes(0)
    + vector_bytes(1) + table_bytes(*words(4)) + string_bytes(len("serving_default"))
    + 2 * (vector_bytes(1) + table_bytes(*words(2)) + string_bytes(len("output")))
    + 2 * (OFFSET_BYTES + table_bytes(*words(2)))
    + string_bytes(len("min_runtime_version")) + string_bytes(len("keep_stablehlo_constant"))
    + 3 * _BUFFER + 2 * _DATA_ALIGNMENT
    + sum(field_list_bytes(fields) for fields in (8, 6, 5, 2, 2, 2, 10, 4, 3, 5, 4, 3, 6, 4))
)  # fmt: skip


def tflite_bytes(
    graph: OpGraph, scheme: Scheme, *, integer_io: bool,
    formats: Mapping[str, Scheme] = MappingProxyType({}),
) -> float:  # fmt: skip
    """Return the bytes of the ``.tflite`` of a graph; ``formats`` names the operators that have
    another scheme than the network."""
    form = tflite_form(graph, scheme, integer_io=integer_io, formats=formats)
    size = float(_FILE) + len({op.operator for op in form.ops}) * _CODE
    size += sum(map(_tensor_bytes, form.tensors)) + sum(map(_operator_bytes, form.ops))
    if scheme == "fp32":
        size += _EMPTY_BUFFER * sum(not tensor.is_constant for tensor in form.tensors)
    return size


def _tensor_bytes(tensor: FormTensor) -> float:
    size = _TENSOR + vector_bytes(tensor.rank) + string_bytes(len(tensor.layer) + _NUMBER)
    if tensor.scales:
        zeros = vector_bytes(tensor.scales, 8)
        size += _QUANTIZATION + vector_bytes(tensor.scales) + zeros
    else:
        size += _NO_QUANTIZATION
    if tensor.is_constant:
        size += _BUFFER_NUMBER + _BUFFER + up(tensor.size_bytes, _DATA_ALIGNMENT)
    return size


def _operator_bytes(op: FormOp) -> float:
    size = vector_bytes(len(op.inputs)) + vector_bytes(len(op.outputs))
    if op.operator in _WITHOUT_OPTIONS:
        return size + _OPERATOR
    return size + _OPTIONED + table_bytes(*words(_OPTIONS.get(op.operator, 0)))
