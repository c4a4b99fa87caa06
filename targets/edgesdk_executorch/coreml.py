"""Core ML: Apple's chips, in float16, float32 and static int8; its payload is an ML package."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.scheme import WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk_coreml.blobs import stored_bytes, stored_type
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.package import Operation, read_program
from edgesdk_coreml.seal import seal
from edgesdk_coreml.toolchain import import_coremltools
from edgesdk_executorch.delegate import Delegate, layer_of_handle, take_as_it_is
from edgesdk_executorch.flattened import flatten, unflatten
from edgesdk_executorch.node import Node

# Not "coreml": files of that target leave it to Core ML what runs where, these name the delegate.
_EXECUTOR = "coreml-delegate"
_SYSTEM = "iOS17"
"""ExecuTorch's framework for iOS asks for it, and int8 activations came with it."""

_ROOT = "lowered_module"
_PACKAGE = "model.mlpackage"
_METADATA = "metadata.json"
# Names of operations before they were named after their layers, for ExecuTorch's own profiler.
_DEBUG_INFO = "debug_info.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pytorch.org/executorch/coreml")
_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "npu": "CPU_AND_NE"}


def read_nodes(payload: bytes, prefix: str) -> Iterator[Node]:
    """Yield the operations of a payload's program in order, their names behind a prefix.

    Raises ``ArtifactError`` and ``UnsupportedModel`` as ``edgesdk_coreml.package`` does.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unflatten(payload, folder)
        flow = Dataflow(read_program(folder / _PACKAGE))
    producers: dict[str, str] = {}
    weighted = {op.name for op in flow.weighted()}
    for op in flow.computed:
        yield _node(f"{prefix}{op.name}", op, flow, producers, is_weighted=op.name in weighted)
        producers |= {value.name: f"{prefix}{op.name}" for value in op.outputs}


def _node(
    name: str, op: Operation, flow: Dataflow, producers: Mapping[str, str], *, is_weighted: bool
) -> Node:
    weight = flow.stored_weight(op) if is_weighted else None
    held = {
        hashlib.sha256(array.tobytes()).hexdigest(): stored_bytes(stored_type(array), array.size)
        for array in flow.stored(op)
    }
    return Node(
        name=name,
        op=op.kind,
        dtype=flow.compute_dtype(op),
        where=_EXECUTOR,
        constants=held,
        reads=tuple(producers.get(value, "") for value in flow.fed(op)),
        weight_dtype=None if weight is None else stored_type(weight),
        weight_shape=None if weight is None else weight.shape,
        handle=op.name,
    )


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if scheme == "fp32" and runtime.unit == "npu":
        return "the Neural Engine computes in float16; fp32 would leave it for the CPU or GPU"
    if scheme == "w8a16":
        return "int16 activations are not emitted for Core ML here; int8 has integer kernels"
    if scheme in WEIGHT_ONLY_SCHEMES:
        return (
            "ExecuTorch calls its narrow weights for Core ML experimental, and drops what says "
            f"which layer has them; target coreml emits {scheme}"
        )
    if scheme in ("int8_dynamic", "int4_dynamic"):
        return "Core ML finds no ranges at run time: int8 has calibrated ones"
    return None


def _partitioner(model: CompressedModel, runtime: Runtime) -> Any:
    ct = import_coremltools()
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    precision = ct.precision.FLOAT32 if model.scheme == "fp32" else ct.precision.FLOAT16
    return CoreMLPartitioner(
        compile_specs=CoreMLBackend.generate_compile_specs(
            compute_unit=ct.ComputeUnit[_UNITS[runtime.unit]],
            minimum_deployment_target=ct.target[_SYSTEM],
            compute_precision=precision,
        )
    )


def _finish(module: Any) -> dict[str, str]:
    """Make equal models give equal bytes, and return the layer behind each operation's name.

    The package is sealed as target coreml seals its own. The identifier, under which a device keeps
    the compiled package, is random in ExecuTorch; here it follows from the package's bytes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / _ROOT
        folder.mkdir()
        unflatten(module.processed_bytes, folder)
        named = seal(folder / _PACKAGE, layer_of_handle(module), {})
        (folder / _DEBUG_INFO).unlink(missing_ok=True)
        digest = hashlib.sha256(flatten(folder / _PACKAGE)).hexdigest()
        metadata = json.loads((folder / _METADATA).read_text(encoding="utf-8"))
        metadata["identifier"] = f"executorch_{uuid.uuid5(_NAMESPACE, digest)}"
        (folder / _METADATA).write_text(json.dumps(metadata), encoding="utf-8")
        module._processed_bytes = flatten(folder)
    module.meta["debug_handle_map"] = {}  # of names that are no more
    return named


DELEGATE = Delegate(
    name="coreml",
    title="Core ML",
    backend_id="CoreMLBackend",
    executor=_EXECUTOR,
    mixes={},
    unmixed="files for Core ML's delegate give all layers of a network one scheme",
    runs_here=False,
    quantizable=(),
    refusal=_refusal,
    prepare=take_as_it_is,
    partitioner=_partitioner,
    finish=_finish,
    read_nodes=read_nodes,
)
