"""What a file computes with: its operators by type, the bytes they hold, and what stayed float."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.artifact import OpCount
from edgesdk_tflite.flatbuffer import KERNEL_INPUTS, FileOperator, ModelFile

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_FLOATS = ("float64", "float32", "float16")
_QUANTIZED = ("int16", "int8", "uint8")
# Widest first: an operator that mixes types is counted under the one that costs most.
_TYPES: Sequence[str] = (*_FLOATS, "int16", "int8", "uint8", "int4", "int32", "int64", "bool")


def count_operators(file: ModelFile) -> tuple[OpCount, ...]:
    """Return the operators grouped by name and the type they compute in, with their weight bytes.

    A constant that several operators read counts once, for the first of them.
    """
    counts: dict[tuple[str, str], list[int]] = {}
    seen: set[int] = set()
    for op in file.operators:
        group = counts.setdefault((op.name, _told_type(op)), [0, 0])
        group[0] += 1
        for tensor in op.inputs:
            if tensor is not None and tensor.data is not None and tensor.buffer not in seen:
                seen.add(tensor.buffer)
                group[1] += len(tensor.data)
    return tuple(
        OpCount(op=name, dtype=dtype, where="builtin", count=count, weight_bytes=weight_bytes)
        for (name, dtype), (count, weight_bytes) in sorted(counts.items())
    )


def computing_type(op: FileOperator) -> str:
    """Return the type an operator computes in: the widest of the activations it touches.

    QUANTIZE and DEQUANTIZE go by the narrow type that they convert to or from.
    """
    tensors = [t for t in (*op.inputs, *op.outputs) if t is not None]
    if op.name in CONVERSIONS:
        return max((t.dtype for t in tensors), key=_width_rank)
    return min((t.dtype for t in op.activations or tensors), key=_width_rank, default="none")


def _told_type(op: FileOperator) -> str:
    """Return the type an operator computes in, and its kernel's where the two differ."""
    computing = computing_type(op)
    narrow = [
        tensor.dtype
        for position in KERNEL_INPUTS.get(op.name, ())
        if position < len(op.inputs)
        and (tensor := op.inputs[position]) is not None
        and tensor.data is not None
        and tensor.dtype in ("int8", "int4")
    ]
    if computing != "float32" or not narrow:
        return computing
    return f"dynamic int8, {narrow[0]} weights"


def float_islands(file: ModelFile) -> tuple[FileOperator, ...]:
    """Return the operators of a quantized file that compute, or convert, in floating point.

    A QUANTIZE of a file input and a DEQUANTIZE to a file output are not among them: they are how
    a file with float inputs and outputs computes in int8.
    """
    inputs = {tensor.key for tensor in file.inputs.values()}
    outputs = {tensor.key for tensor in file.outputs.values()}
    islands = []
    for op in file.operators:
        touches_float = any(tensor.dtype in _FLOATS for tensor in op.activations)
        reads_input = any(tensor is not None and tensor.key in inputs for tensor in op.inputs)
        writes_output = any(tensor.key in outputs for tensor in op.outputs)
        at_boundary = (op.name == "QUANTIZE" and reads_input) or (
            op.name == "DEQUANTIZE" and writes_output
        )
        if touches_float and not at_boundary:
            islands.append(op)
    return tuple(islands)


def quantized_otherwise(file: ModelFile, dtype: str) -> tuple[FileOperator, ...]:
    """Return the operators that touch quantized activations of another type than ``dtype``."""
    return tuple(
        op
        for op in file.operators
        if any(t.scales and t.dtype in _QUANTIZED and t.dtype != dtype for t in op.activations)
    )


def kernels_not_in(file: ModelFile, dtype: str) -> tuple[str, ...]:
    """Return "OPERATOR (kernel name, type)" for each kernel that is stored in another type."""
    return tuple(
        f"{op.name} ({kernel.name}, {kernel.dtype})"
        for op, kernel in file.kernels()
        if kernel.dtype != dtype
    )


def _width_rank(dtype: str) -> int:
    return _TYPES.index(dtype) if dtype in _TYPES else len(_TYPES)
