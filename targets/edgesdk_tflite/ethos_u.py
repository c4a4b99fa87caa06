"""A network for an Ethos-U: emitted in int8, compiled by Vela, both files read and compared.

The command stream that Vela writes runs on the NPU alone. So the file before Vela stays with the
artifact: it is what parity and accuracy are computed on here, and what they are said to be of.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.target import Emission, installed_version
from edgesdk_tflite.emission import MODEL, emit_model
from edgesdk_tflite.ethos_u_estimates import estimate_figures
from edgesdk_tflite.flatbuffer import ETHOS_U, FileTensor, ModelFile
from edgesdk_tflite.layer_recipes import layer_behind
from edgesdk_tflite.operators import count_operators
from edgesdk_tflite.packages import VELA
from edgesdk_tflite.vela import compile_for_ethos_u

BEFORE_VELA = "before_vela.tflite"
NOTE = (
    "the network before Vela, on TensorFlow Lite Micro's reference kernels; the Ethos-U's command "
    "stream was not run"
)


def emit_for_ethos_u(model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
    """Write Vela's file and the one it was compiled from; return the emission with estimates.

    A float network is not given to Vela, since the NPU computes integers alone: its file is the
    one that TensorFlow Lite Micro runs on the CPU, and nothing of it is delegated.
    """
    emission = emit_model(model, folder, integer_io=runtime.integer_io)
    if model.scheme == "fp32":
        return replace(emission, estimates=estimate_figures(folder / MODEL, runtime, None))
    assert runtime.vela is not None
    before, after = folder / BEFORE_VELA, folder / MODEL
    shutil.move(after, before)
    compiled = compile_for_ethos_u(before, runtime.vela)
    after.write_bytes(compiled.content)
    return replace(
        emission,
        host_files=(BEFORE_VELA,),
        tool_versions={**emission.tool_versions, VELA: str(installed_version(VELA))},
        estimates=estimate_figures(after, runtime, compiled),
    )


def placed_operators(before: ModelFile, after: ModelFile) -> tuple[OpCount, ...]:
    """Return the network's operators by who executes them, read off the compiled file.

    What Vela left in the file runs on the CPU; the rest of the network is in command streams.
    Weight bytes are those before Vela, which stores them encoded.
    """
    on_cpu = replace(after, operators=tuple(op for op in after.operators if op.name != ETHOS_U))
    left = {(count.op, count.dtype): count for count in count_operators(on_cpu)}
    placed = [replace(count, where="cpu") for count in left.values()]
    for count in count_operators(before):
        on_npu = count.count
        weight_bytes = count.weight_bytes
        if (count.op, count.dtype) in left:
            on_npu -= left[count.op, count.dtype].count
            weight_bytes -= left[count.op, count.dtype].weight_bytes
        if on_npu > 0:
            placed.append(
                replace(count, where="ethos-u", count=on_npu, weight_bytes=max(weight_bytes, 0))
            )
    return tuple(sorted(placed, key=lambda count: (count.op, count.dtype, count.where)))


def check_compiled(before: ModelFile, after: ModelFile, emission: Emission) -> tuple[Check, ...]:
    """Return what reading Vela's file beside the one it was given proves."""
    return (_same_boundary(before, after), _delegated(before, after, emission))


def _same_boundary(before: ModelFile, after: ModelFile) -> Check:
    def told(tensors: Mapping[str, FileTensor]) -> list[tuple[object, ...]]:
        return [(n, t.shape, t.dtype, t.scales, t.zero_points) for n, t in tensors.items()]

    wrong = [
        f"{kind} were {told(old)} and are {told(new)}"
        for kind, old, new in (
            ("inputs", before.inputs, after.inputs),
            ("outputs", before.outputs, after.outputs),
        )
        if told(old) != told(new)
    ]
    return Check(
        name="Vela's file takes and returns what the network does",
        passed=not wrong,
        detail="; ".join(wrong) or "names, shapes, types, scales",
    )


def _delegated(before: ModelFile, after: ModelFile, emission: Emission) -> Check:
    """Something is delegated; what is not is named, since Vela's own times leave it out."""
    placed = placed_operators(before, after)
    total = sum(count.count for count in placed)
    on_npu = sum(count.count for count in placed if count.where == "ethos-u")
    left = Counter(
        f"{op.name} ({layer_behind(op.outputs[0].name, emission.layer_of) or op.outputs[0].name})"
        for op in after.operators
        if op.name != ETHOS_U
    )
    named = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in left.items())
    streams = sum(op.name == ETHOS_U for op in after.operators)
    return Check(
        name="operators run on the Ethos-U",
        passed=on_npu > 0 and streams > 0,
        detail=f"{on_npu} of {total} in {streams} command streams"
        + (f"; on the CPU: {named}" if named else "; none on the CPU"),
    )
