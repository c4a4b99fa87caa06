"""The arena of TensorFlow Lite Micro: what it plans (head), and its own structures (tail).

The rules are those of tensorflow/lite/micro/{micro_allocator,micro_allocation_info}.cc and
memory_planner/greedy_memory_planner.cc in github.com/tensorflow/tflite-micro at 90b983c2 (August
2026); sizes of structures are those of its x86-64 build with reference kernels, as that build's
RecordingMicroAllocator reports them for the files of benchmarks/footprint.py. On a 32-bit core
pointers take half, so the tail is smaller there; CMSIS-NN's scratch buffers come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgesdk.cost.arena import Buffer, aligned, arena_bytes
from edgesdk.cost.file_form import FileForm, FormOp, FormTensor

# Allocator, planner and interpreter, for a single subgraph; the same for every file.
_FIXED_BYTES = 488
_EVAL_TENSOR_BYTES = 24  # TfLiteEvalTensor, for every tensor of the file
_NODE_BYTES = 64  # NodeAndRegistration, for every operator
_BOUNDARY_TENSOR_BYTES = 64  # TfLiteTensor, for every input and output
_BOUNDARY_SCALES_BYTES = 32  # TfLiteAffineQuantization and one zero point
_POINTER_BYTES = 8
_SCRATCH_HANDLE_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class OperatorData:
    """What an operator holds in the tail: its options as parsed and its kernel's own data."""

    options: int
    kernel: int


# sizeof the structures of tensorflow/lite/core/c/builtin_op_data.h and of micro/kernels/*.
_CONVOLUTION = OperatorData(options=28, kernel=80)
_DATA: Mapping[str, OperatorData] = {
    "CONV_2D": _CONVOLUTION,
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "TRANSPOSE_CONV": OperatorData(options=20, kernel=128),
    "FULLY_CONNECTED": OperatorData(options=32, kernel=72),
    "ADD": OperatorData(options=8, kernel=60),
    "SUB": OperatorData(options=8, kernel=52),
    "MUL": OperatorData(options=4, kernel=36),
    "AVERAGE_POOL_2D": OperatorData(options=40, kernel=32),
    "MAX_POOL_2D": OperatorData(options=40, kernel=32),
    "MEAN": OperatorData(options=4, kernel=44),
    "SUM": OperatorData(options=4, kernel=44),
    "PAD": OperatorData(options=0, kernel=56),
    "PADV2": OperatorData(options=0, kernel=56),
    "CONCATENATION": OperatorData(options=8, kernel=80),
    "SOFTMAX": OperatorData(options=4, kernel=80),
    "LOGISTIC": OperatorData(options=0, kernel=16),
    "TANH": OperatorData(options=0, kernel=16),
    "HARD_SWISH": OperatorData(options=0, kernel=20),
    "RELU": OperatorData(options=0, kernel=32),
    "RELU6": OperatorData(options=0, kernel=8),
    "QUANTIZE": OperatorData(options=0, kernel=32),
    "DEQUANTIZE": OperatorData(options=0, kernel=32),
    "RESHAPE": OperatorData(options=36, kernel=0),
    "TRANSPOSE": OperatorData(options=0, kernel=0),
    "RESIZE_NEAREST_NEIGHBOR": OperatorData(options=4, kernel=0),
    "RESIZE_BILINEAR": OperatorData(options=4, kernel=0),
}
_OTHER = OperatorData(options=8, kernel=48)  # between the others; not looked up

_PER_CHANNEL = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
_REDUCTIONS = frozenset({"MEAN", "SUM"})
_INDEX_BYTES = 4
_LOOK_UP_BYTES = 2 * 513  # a table of int16 over the range of int16, as softmax has two


def micro_arena_bytes(form: FileForm) -> float:
    """Return the bytes of arena that TensorFlow Lite Micro's x86-64 build takes for a file."""
    scratch = [_scratch_bytes(op, form) for op in form.ops]
    return aligned(arena_bytes(_planned(form, scratch))) + structure_bytes(form)


def structure_bytes(form: FileForm) -> float:
    """Return what of the arena the same build's own structures take (the tail)."""
    scratch = [_scratch_bytes(op, form) for op in form.ops]
    tail: float = (
        _FIXED_BYTES + _EVAL_TENSOR_BYTES * len(form.tensors) + _NODE_BYTES * len(form.ops)
    )
    for tensors in (form.inputs, form.outputs):
        tail += aligned(_POINTER_BYTES * len(tensors))
        tail += _BOUNDARY_TENSOR_BYTES * len(tensors)
        tail += _BOUNDARY_SCALES_BYTES * sum(form.tensors[i].scales > 0 for i in tensors)
    tail += _SCRATCH_HANDLE_BYTES * sum(map(len, scratch))
    tail += sum(_operator_bytes(op, form) for op in form.ops)
    return aligned(tail)


def _planned(form: FileForm, scratch: list[list[float]]) -> list[Buffer]:
    """Return every activation and scratch buffer with the operators during which it lives.

    Inputs exist before the first operator; outputs stay until the last.
    """
    first = dict.fromkeys(form.inputs, 0)
    last = dict(first)
    for step, op in enumerate(form.ops, start=1):
        for index in op.outputs:
            first.setdefault(index, step)
        last.update(dict.fromkeys((*op.inputs, *op.outputs), step))
    last.update(dict.fromkeys(form.outputs, len(form.ops)))
    buffers = [
        Buffer(size_bytes=aligned(form.tensors[i].size_bytes), first=start, last=last[i])
        for i, start in first.items()
    ]
    for step, sizes in enumerate(scratch, start=1):
        buffers += [Buffer(size_bytes=aligned(size), first=step, last=step) for size in sizes]
    return buffers


def _operator_bytes(op: FormOp, form: FileForm) -> float:
    data = _DATA.get(op.operator, _OTHER)
    total: float = data.options + aligned(data.kernel)
    weight = form.tensors[op.inputs[1]] if len(op.inputs) > 1 else None
    if op.operator in _PER_CHANNEL:  # a multiplier and a shift a channel, in float as well
        channels = form.tensors[op.inputs[2]].elements if len(op.inputs) > 2 else 0
        total += 2 * aligned(_INDEX_BYTES * channels)
    elif op.operator == "FULLY_CONNECTED" and weight is not None and weight.scales > 1:
        total += 2 * aligned(_INDEX_BYTES * weight.scales)
    elif op.operator == "SOFTMAX" and _is_int16(form.tensors[op.inputs[0]]):
        total += 2 * aligned(_LOOK_UP_BYTES)
    elif op.operator == "BATCH_MATMUL" and weight is not None:  # the second factor, transposed
        total += aligned(weight.size_bytes) + 32 + aligned(_INDEX_BYTES * (weight.rank + 1))
    return total


def _scratch_bytes(op: FormOp, form: FileForm) -> list[float]:
    """Return the scratch buffers that the reference kernel asks for."""
    if not op.inputs:
        return []
    source, result = form.tensors[op.inputs[0]], form.tensors[op.outputs[0]]
    if op.operator in _REDUCTIONS:
        axes = form.tensors[op.inputs[1]].elements if len(op.inputs) > 1 else 1
        sums = [_INDEX_BYTES * result.elements] if source.scales else []
        return [*map(float, sums), float(_INDEX_BYTES * source.rank), float(_INDEX_BYTES * axes)]
    if op.operator == "TRANSPOSE_CONV" and result.scales:
        return [float((8 if _is_int16(result) else 4) * result.elements)]
    return []


def _is_int16(tensor: FormTensor) -> bool:
    return tensor.scales > 0 and tensor.element_bytes == 2
