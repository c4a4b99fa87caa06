"""Peak memory before there is a file: live tensors laid out as runtimes lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgesdk.cost.fusion import Kernel, activation_bytes, fuse, weight_bytes
from edgesdk.cost.latency import cost_of
from edgesdk.device import Runtime
from edgesdk.figure import Figure, predicted
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import ACTIVATION_BYTES, Scheme

MICRO_RUNTIME = "tflite-micro"
XNNPACK = "xnnpack"

MICRO_ERROR_FACTOR = 1.1
"""TensorFlow Lite Micro, against the arena that its x86-64 build reports: all of 29 files of 15
networks within 1.05 (benchmarks/footprint.py); networks that flatten an image need a transpose
more than is counted. On a 32-bit core the structs beside the tensors are smaller; scratch space of
CMSIS-NN is in the profile's ``runtime_ram_bytes``."""

XNNPACK_ERROR_FACTOR = 1.15
"""ExecuTorch and LiteRT on XNNPACK, one thread: 18 of 20 files of five networks, against the growth
of a process's memory on x86-64 Linux (benchmarks/footprint.py)."""

UNCHECKED_ERROR_FACTOR = 2.0
"""Everything else (an NPU's driver plans its memory as it likes): an assumption, not checked."""

_ALIGNMENT_BYTES = 16  # of every buffer in TensorFlow Lite Micro's and LiteRT's arenas

# TensorFlow Lite Micro keeps beside the planned tensors: nodes, tensor structs and operator data,
# and a multiplier and a shift (int32 each) per output channel. By least squares over 23 of the
# files behind MICRO_ERROR_FACTOR.
_MICRO_BYTES_PER_CHANNEL = 8
_MICRO_BYTES_PER_OPERATOR = 201
_MICRO_BYTES_FIXED = 834

# x * sigmoid(x), which TFLite has no operator for: LOGISTIC, then MUL with the input.
_TFLITE_TWO_STEPS = frozenset({"silu"})

_POINTER_BYTES = 8  # XNNPACK runs on 64-bit processors in every profile


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Bytes that are needed from step ``first`` to step ``last``, both included."""

    size_bytes: float
    first: int
    last: int

    def overlaps(self, other: Buffer) -> bool:
        """Return whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


def predict_memory(graph: OpGraph, runtime: Runtime, scheme: Scheme) -> Figure:
    """Return the predicted peak RAM of one inference in bytes, at the graph's batch.

    Tensors share an arena by lifetime (``arena_bytes``); inputs and outputs count, and where they
    stay float around an int8 model both forms do. On top come the weights where the runtime holds
    them in RAM (once: pages of a mapped file are the system's to drop), XNNPACK's pointers to
    input pixels and TensorFlow Lite Micro's bookkeeping. What a runtime takes before it has loaded
    a model is the profile's ``runtime_ram_bytes`` and not in here.

    Raises ``UsageError`` for a scheme the runtime does not compute.
    """
    cost_of(runtime, scheme)
    kernels = fuse(graph)
    total = arena_bytes(plan_buffers(kernels, graph, runtime, scheme))
    if runtime.weights_in_ram:
        total += sum(weight_bytes(kernel, scheme) for kernel in kernels)
    if runtime.runtime == MICRO_RUNTIME:
        factor = MICRO_ERROR_FACTOR
        total += _micro_bookkeeping_bytes(kernels, graph, scheme)
    elif runtime.delegate == XNNPACK:
        factor = XNNPACK_ERROR_FACTOR
        total += sum(_indirection_bytes(kernel.op, graph) for kernel in kernels)
    else:
        factor = UNCHECKED_ERROR_FACTOR
    return predicted(total, error_factor=factor, source="tensor lifetimes and weights")


def plan_buffers(
    kernels: Sequence[Kernel], graph: OpGraph, runtime: Runtime, scheme: Scheme
) -> tuple[Buffer, ...]:
    """Return the buffer of every tensor that exists while the kernels run, one step each.

    Inputs live from the start to their last reader, outputs from their kernel to the end. A tensor
    that only renames another's bytes or is folded into a kernel has no buffer.
    """
    first = {name: 0 for name, tensor in graph.tensors.items() if tensor.role == "input"}
    last = dict(first)
    buffers = []
    step = 0
    for kernel in kernels:
        between = _tensor_between(kernel, graph) if runtime.target == "tflite" else 0
        last.update(dict.fromkeys(kernel.inputs, step))
        if between:
            size = _aligned(between * ACTIVATION_BYTES[scheme])
            buffers.append(Buffer(size_bytes=size, first=step, last=step + 1))
            step += 1
            if kernel.op.kind in _TFLITE_TWO_STEPS:
                last.update(dict.fromkeys(kernel.inputs, step))
        for name in kernel.outputs:
            first[name] = last[name] = step
        step += 1
    ends = {name for name in first if graph.tensors[name].role == "output"}
    last.update(dict.fromkeys(ends, step))
    for name, start in first.items():
        size = _aligned(activation_bytes(graph, (name,), scheme))
        buffers.append(Buffer(size_bytes=size, first=start, last=last[name]))
    if scheme == "int8" and not runtime.integer_io:
        inputs = tuple(name for name, tensor in graph.tensors.items() if tensor.role == "input")
        for names, at in ((inputs, 0), (tuple(sorted(ends)), step)):
            size = _aligned(activation_bytes(graph, names, "fp32"))
            buffers.append(Buffer(size_bytes=size, first=at, last=at))
    return tuple(buffers)


def arena_bytes(buffers: Sequence[Buffer]) -> float:
    """Return the bytes of an arena that holds the buffers: largest first, each at its first fit.

    This is the "greedy by size" planner of Pisarchyk and Lee 2020, "Efficient memory management
    for deep neural net inference" (arXiv:2001.03288), which TensorFlow Lite Micro, LiteRT and
    XNNPACK use; of equal buffers the later one goes first. Never less than what is live at once.
    """
    placed: list[tuple[float, Buffer]] = []
    for buffer in sorted(buffers, key=lambda item: (-item.size_bytes, -item.first)):
        offset = 0.0
        for start, other in sorted(placed, key=lambda item: item[0]):
            if not buffer.overlaps(other):
                continue
            if offset + buffer.size_bytes <= start:
                break
            offset = max(offset, start + other.size_bytes)
        placed.append((offset, buffer))
    return max((start + buffer.size_bytes for start, buffer in placed), default=0.0)


def _aligned(size_bytes: float) -> float:
    return math.ceil(size_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _micro_bookkeeping_bytes(kernels: Sequence[Kernel], graph: OpGraph, scheme: Scheme) -> float:
    channels = sum(k.channels for k in kernels if scheme == "int8" or k.op.kind != "linear")
    operators = sum(2 if _tensor_between(kernel, graph) else 1 for kernel in kernels)
    return (
        _MICRO_BYTES_PER_CHANNEL * channels
        + _MICRO_BYTES_PER_OPERATOR * operators
        + _MICRO_BYTES_FIXED
    )


def _tensor_between(kernel: Kernel, graph: OpGraph) -> int:
    """Return the elements of what a TFLite file holds between a kernel's input and its output."""
    if kernel.op.kind in _TFLITE_TWO_STEPS:
        return graph.elements(kernel.outputs)
    return _padded_elements(kernel.op, graph)


def _padded_elements(op: Op, graph: OpGraph) -> int:
    """Return the elements of the padded input that a TFLite file holds as a tensor of its own.

    TFLite pads inside a convolution only as "SAME" does: in all ``max((ceil(n / stride) - 1) *
    stride + (kernel - 1) * dilation + 1 - n, 0)``, the odd one at the end. Symmetric padding that
    differs becomes a PAD operator; 0 where none is needed.
    """
    if op.kind not in ("conv1d", "conv2d", "conv3d"):
        return 0
    shape = graph.tensors[op.inputs[0]].shape
    kernel, stride, dilation, padding = _window(op)
    sizes = shape[-len(kernel) :]
    differs = False
    for n, k, s, d, p in zip(sizes, kernel, stride, dilation, padding, strict=True):
        same = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        differs |= p > 0 and 2 * p != same
    if not differs:
        return 0
    padded = math.prod(n + 2 * p for n, p in zip(sizes, padding, strict=True))
    return padded * math.prod(shape[: -len(kernel)])


def _indirection_bytes(op: Op, graph: OpGraph) -> float:
    """Return the bytes of XNNPACK's indirection buffer: a pointer per output pixel and tap.

    Dukhan 2019, "The indirect convolution algorithm" (arXiv:1907.02129), section 3.2. Depthwise
    kernels share the columns of neighbouring pixels; a plain 1x1 convolution needs none.
    """
    if op.kind != "conv2d":
        return 0
    kernel, stride, _, _ = _window(op)
    output = graph.tensors[op.outputs[0]].shape
    rows, columns = output[-2:]
    taps = math.prod(kernel)
    if taps == 1 and math.prod(stride) == 1:
        return 0
    if op.attributes["groups"] == output[-3]:
        return rows * (taps + (columns - 1) * stride[1] * kernel[0]) * _POINTER_BYTES
    return rows * columns * taps * _POINTER_BYTES


def _window(op: Op) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, stride, dilation and padding of a convolution, per spatial dimension."""
    kernel = _sizes(op.attributes["kernel_size"], 0)
    rank = len(kernel)
    stride = _sizes(op.attributes["stride"], rank)
    dilation = _sizes(op.attributes["dilation"], rank)
    padding = op.attributes["padding"]
    if isinstance(padding, str):  # "same" and "valid" mean what TFLite means by them
        return kernel, stride, dilation, (0,) * rank
    return kernel, stride, dilation, _sizes(padding, rank)


def _sizes(value: object, rank: int) -> tuple[int, ...]:
    sizes = value if isinstance(value, tuple) else (value,)
    return sizes * rank if len(sizes) == 1 and rank > 1 else sizes
