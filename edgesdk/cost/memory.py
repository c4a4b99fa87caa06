"""Peak memory before there is a file: what each runtime plans, and weights where they live."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from types import MappingProxyType

from edgesdk.cost.arena import Buffer, aligned, arena_bytes
from edgesdk.cost.executorch_memory import planned_bytes, workspace_bytes
from edgesdk.cost.file_form import FileForm
from edgesdk.cost.fusion import Kernel, activation_bytes, fuse, weight_bytes
from edgesdk.cost.latency import cost_of
from edgesdk.cost.micro_arena import micro_arena_bytes
from edgesdk.cost.padding import window
from edgesdk.cost.tflite_form import tflite_form
from edgesdk.device import Runtime
from edgesdk.figure import Figure, predicted
from edgesdk.graph import Op, OpGraph
from edgesdk.layer_format import LayerSchemes, op_schemes
from edgesdk.scheme import CALIBRATED_SCHEMES, DYNAMIC_SCHEMES, Scheme

MICRO_RUNTIME = "tflite-micro"
XNNPACK = "xnnpack"

MICRO_ERROR_FACTOR = 1.05
"""TensorFlow Lite Micro, against the arena that its x86-64 build reports: all of 10 files of MLPerf
Tiny and 30 files of the 15 other networks that the rules were written with within 1.004
(benchmarks/footprint.py arena); nine files of six more, of padded pooling, one-dimensional and
transposed convolutions, within 1.001 read from the file and 1.04 before emitting. An operator that
the converter writes as several and this model does not know moves it further. On a 32-bit core the
structures are smaller; scratch space of CMSIS-NN is in the profile's ``runtime_ram_bytes``."""

XNNPACK_ERROR_FACTOR = 1.15
"""ExecuTorch and LiteRT on XNNPACK, one thread: 18 of 20 files of five networks, against the growth
of a process's memory on x86-64 Linux (benchmarks/footprint.py resident)."""

HYBRID_ERROR_FACTOR = 2.0
"""LiteRT with ranges found at run time: what its own kernels take (depthwise convolutions, int4) is
not modelled. Six predictions were between 0.59 and 1.16 of a process's growth
(benchmarks/footprint.py resident)."""

VELA_ERROR_FACTOR = 2.1
"""The Ethos-U: Vela keeps fewer tensors at once than an interpreter. Nine in ten of 16 networks
against Vela's own plan of the arena (benchmarks/footprint.py vela); 6.4 for a perceptron."""

UNCHECKED_ERROR_FACTOR = 2.0
"""Everything else (Core ML and an NPU's driver plan their memory as they like): an assumption, not
checked."""

_POINTER_BYTES = 8  # XNNPACK runs on 64-bit processors in every profile


def predict_memory(
    graph: OpGraph, runtime: Runtime, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> Figure:  # fmt: skip
    """Return the predicted peak RAM of one inference in bytes, at the graph's batch.

    TensorFlow Lite Micro: the arena, as ``micro_arena_bytes`` has it. ExecuTorch: the buffers
    that the file plans, and the delegate's workspace. LiteRT and all others: one arena of
    all tensors. On top come the weights where the runtime holds them in RAM (once: pages of a
    mapped file are the system's to drop) and XNNPACK's pointers to input pixels. What a runtime
    takes before it has loaded a model is the profile's ``runtime_ram_bytes`` and not in here.

    Raises ``UsageError`` for a scheme the runtime does not compute.
    """
    cost_of(runtime, scheme)
    kernels = fuse(graph)
    formats = op_schemes(graph, runtime.target, scheme, layer_schemes)
    if runtime.target == "tflite":
        form = tflite_form(graph, scheme, integer_io=runtime.integer_io, formats=formats)
        micro = runtime.runtime == MICRO_RUNTIME
        total = micro_arena_bytes(form) if micro else arena_bytes(form_buffers(form))
    elif runtime.target == "executorch":
        total = planned_bytes(kernels, graph, scheme) + workspace_bytes(
            kernels, graph, scheme, formats
        )
    else:
        total = arena_bytes(plan_buffers(kernels, graph, scheme))
    if runtime.weights_in_ram:
        total += sum(weight_bytes(k, formats.get(k.op.name, scheme)) for k in kernels)
    if runtime.delegate == XNNPACK:
        # ExecuTorch keeps none where ranges are found at run time: processes that ran convolutional
        # networks so grew by what is left without them.
        without = DYNAMIC_SCHEMES if runtime.target == "executorch" else ()
        kept = (k for k in kernels if formats.get(k.op.name, scheme) not in without)
        total += sum(_indirection_bytes(kernel.op, graph) for kernel in kept)
    factor = _error_factor(runtime, {scheme, *formats.values()})
    return predicted(total, error_factor=factor, source="tensor lifetimes, weights")


def plan_buffers(kernels: Sequence[Kernel], graph: OpGraph, scheme: Scheme) -> tuple[Buffer, ...]:
    """Return the buffer of every tensor that exists while the kernels run, one step each.

    Inputs live from the start to their last reader, outputs from their kernel to the end. A tensor
    that only renames another's bytes or is folded into a kernel has no buffer.
    """
    first = {name: 0 for name, tensor in graph.tensors.items() if tensor.role == "input"}
    last = dict(first)
    for step, kernel in enumerate(kernels):
        last.update(dict.fromkeys(kernel.inputs, step))
        for name in kernel.outputs:
            first[name] = last[name] = step
    ends = {name for name in first if graph.tensors[name].role == "output"}
    last.update(dict.fromkeys(ends, len(kernels)))
    return tuple(
        Buffer(
            size_bytes=aligned(activation_bytes(graph, (name,), scheme)),
            first=start,
            last=last[name],
        )
        for name, start in first.items()
    )


def form_buffers(form: FileForm) -> tuple[Buffer, ...]:
    """Return the buffers of a file's tensors in LiteRT's arena.

    A RESHAPE has its input's bytes there (tensorflow/lite/simple_memory_arena and the XNNPACK
    delegate share them), and kernels that a DEQUANTIZE restores are packed when the file is loaded.
    """
    bytes_of: dict[int, int] = {}

    def root(index: int) -> int:
        return bytes_of.get(index, index)

    first: dict[int, int] = dict.fromkeys(form.inputs, 0)
    last = dict(first)
    for step, op in enumerate(form.ops, start=1):
        constant = all(form.tensors[i].is_constant or i in bytes_of for i in op.inputs)
        if op.operator == "RESHAPE" or (op.operator == "DEQUANTIZE" and constant):
            bytes_of[op.outputs[0]] = root(op.inputs[0])
        else:
            first.update({index: step for index in op.outputs if index not in first})
        used = {root(index) for index in (*op.inputs, *op.outputs)}
        last.update(dict.fromkeys(used, step))
    last.update({root(index): len(form.ops) for index in form.outputs})
    return tuple(
        Buffer(size_bytes=aligned(form.tensors[i].size_bytes), first=start, last=last[i])
        for i, start in first.items()
    )


def _error_factor(runtime: Runtime, schemes: Collection[Scheme]) -> float:
    if runtime.vela is not None and not set(CALIBRATED_SCHEMES).isdisjoint(schemes):
        return VELA_ERROR_FACTOR
    if runtime.runtime == MICRO_RUNTIME:
        return MICRO_ERROR_FACTOR
    if runtime.target == "tflite" and not set(DYNAMIC_SCHEMES).isdisjoint(schemes):
        return HYBRID_ERROR_FACTOR
    return XNNPACK_ERROR_FACTOR if runtime.delegate == XNNPACK else UNCHECKED_ERROR_FACTOR


def _indirection_bytes(op: Op, graph: OpGraph) -> float:
    """Return the bytes of XNNPACK's indirection buffer: a pointer per output pixel and tap.

    Dukhan 2019, "The indirect convolution algorithm" (arXiv:1907.02129), section 3.2. Depthwise
    kernels share the columns of neighbouring pixels; a plain 1x1 convolution needs none.
    """
    if op.kind != "conv2d":
        return 0
    kernel, stride, _, _ = window(op)
    output = graph.tensors[op.outputs[0]].shape
    rows, columns = output[-2:]
    taps = math.prod(kernel)
    if taps == 1 and math.prod(stride) == 1:
        return 0
    if op.attributes["groups"] == output[-3]:
        return rows * (taps + (columns - 1) * stride[1] * kernel[0]) * _POINTER_BYTES
    return rows * columns * taps * _POINTER_BYTES
