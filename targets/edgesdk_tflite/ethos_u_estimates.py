"""What is told of a file for an Ethos-U before it runs: Vela's cycles and its plan of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.latency import cost_of, predict_latency
from edgesdk.cost.memory import MICRO_ERROR_FACTOR
from edgesdk.cost.micro_arena import micro_arena_bytes, structure_bytes
from edgesdk.device import Runtime
from edgesdk.errors import ArtifactError
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.target import installed_version
from edgesdk_tflite.flatbuffer import (
    ETHOS_U,
    FileTensor,
    ModelFile,
    enum_names,
    items,
    read_model,
    unpack,
)
from edgesdk_tflite.graph import read_graph
from edgesdk_tflite.packages import VELA
from edgesdk_tflite.vela import Compiled

ESTIMATES: tuple[FigureName, ...] = ("latency_ms", "memory_bytes")

_PLAN = b"OfflineMemoryAllocation"
_PLAN_HEADER = 3  # version, subgraph, count; then an offset a tensor, -1 where it has no place
_WIDTHS: Mapping[str, float] = {
    "float64": 8, "int64": 8, "float32": 4, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2,
    "float16": 2, "int8": 1, "uint8": 1, "bool": 1, "int4": 0.5,
}  # fmt: skip
# Kernels on the CPU ask for scratch space that is in nobody's plan; an assumption.
_CPU_SCRATCH_FACTOR = 1.25


def estimate_figures(path: Path, runtime: Runtime, compiled: Compiled | None) -> Figures:
    """Return latency and arena of Vela's file; of a float one where nothing was ``compiled``."""
    return {
        "latency_ms": _latency(path, runtime, compiled),
        "memory_bytes": _memory(path),
    }


def _latency(path: Path, runtime: Runtime, compiled: Compiled | None) -> Figure:
    """Return Vela's cycles, the start of each command stream, and the CPU's operators.

    The latter as the profile's float kernels cost, which are plain loops: nobody has measured how
    fast that core computes beside the NPU.
    """
    prediction = predict_latency(read_graph(path), runtime, "fp32")
    assert prediction.total.high is not None
    cpu_factor = prediction.total.high / prediction.total.value
    cpu = [kernel for kernel in prediction.per_op if kernel.kind != ETHOS_U.lower()]
    cpu_ms = sum(kernel.latency_ms for kernel in cpu) + prediction.overhead_ms
    if compiled is None:
        return Figure(
            value=cpu_ms,
            standing="predicted",
            low=cpu_ms / cpu_factor,
            high=cpu_ms * cpu_factor,
            source=f"{prediction.total.source}; every operator is left to the CPU",
        )
    assert runtime.vela is not None
    streams = sum(op.name == ETHOS_U for op in read_model(path).operators)
    npu_ms = 1e3 * compiled.cycles / compiled.clock_hz
    cpu_ms += 1e3 * streams * cost_of(runtime, "int8").inference_overhead_s.value
    npu_factor = runtime.vela.error_factor.value
    left = f", {len(cpu)} operators on the CPU by the cost model" if cpu else ""
    return Figure(
        value=npu_ms + cpu_ms,
        standing="predicted",
        low=npu_ms / npu_factor + cpu_ms / cpu_factor,
        high=npu_ms * npu_factor + cpu_ms * cpu_factor,
        source=f"Vela {installed_version(VELA)}'s estimate, {compiled.cycles:.0f} cycles at "
        f"{compiled.clock_hz / 1e6:g} MHz, and the start of {streams} command streams{left}; "
        "not clocked",
    )


def _memory(path: Path) -> Figure:
    """Return the arena: Vela's plan of it, and TensorFlow Lite Micro's structures beside."""
    file = read_model(path)
    form = _form(file)
    planned = planned_bytes(path.read_bytes())
    if planned is None:
        arena, source = micro_arena_bytes(form), "tensor lifetimes"
    else:
        arena = planned + structure_bytes(form)
        source = f"Vela's plan of {planned} bytes, and TensorFlow Lite Micro's structures"
    alone = planned is not None and all(op.name == ETHOS_U for op in file.operators)
    factor = MICRO_ERROR_FACTOR if alone or planned is None else _CPU_SCRATCH_FACTOR
    return Figure(
        value=arena,
        standing="predicted",
        low=planned or arena / factor,
        high=arena * factor,
        source=source,
    )


def planned_bytes(content: bytes) -> int | None:
    """Return the arena that a file lays out itself, which the runtime follows; None without such.

    The format is that of tensorflow/lite/micro/docs/memory_management.md in
    github.com/tensorflow/tflite-micro. ``ArtifactError`` where it does not fit the tensors.
    """
    model = unpack(content)
    found = [entry for entry in items(model.metadata) if entry.name == _PLAN]
    if not found:
        return None
    tensors = model.subgraphs[0].tensors
    offsets = np.asarray(model.buffers[found[0].buffer].data, np.uint8).view("<i4")[_PLAN_HEADER:]
    if len(offsets) != len(tensors):
        raise ArtifactError(f"a plan of {len(offsets)} tensors in a file of {len(tensors)}")
    dtypes = enum_names("TensorType")
    ends = [
        int(offset) + math.ceil(math.prod(items(t.shape)) * _WIDTHS[dtypes[t.type].lower()])
        for offset, t in zip(offsets, tensors, strict=True)
        if offset >= 0
    ]
    return max(ends, default=0)


def _form(file: ModelFile) -> FileForm:
    """Return the file as what TensorFlow Lite Micro keeps structures for."""
    form = FileForm()
    numbers: dict[tuple[int, int], int] = {}

    def number(tensor: FileTensor) -> int:
        if tensor.key not in numbers:
            numbers[tensor.key] = form.add(
                FormTensor(
                    elements=tensor.elements,
                    element_bytes=_WIDTHS[tensor.dtype],
                    rank=len(tensor.shape),
                    scales=len(tensor.scales),
                    is_constant=tensor.data is not None,
                )
            )
        return numbers[tensor.key]

    for op in file.operators:
        inputs = tuple(number(tensor) for tensor in op.inputs if tensor is not None)
        outputs = tuple(number(tensor) for tensor in op.outputs)
        form.ops.append(FormOp(operator=op.name, inputs=inputs, outputs=outputs))
    form.inputs = [number(tensor) for tensor in file.inputs.values()]
    form.outputs = [number(tensor) for tensor in file.outputs.values()]
    return form
