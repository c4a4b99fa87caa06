"""C++17 for TensorFlow Lite Micro: the model in flash, its operators, its arena, its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgesdk.artifact import TensorSpec
from edgesdk.errors import ArtifactError
from edgesdk.integrating.app import App, Contents
from edgesdk.integrating.golden import Golden
from edgesdk.integrating.interface import Interface
from edgesdk.integrating.naming import snake, words
from edgesdk.integrating.tflm_operators import resolver_methods
from edgesdk.running.adapter import encode_inputs, quantize

if TYPE_CHECKING:
    from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile

_C_TYPES: Mapping[str, str] = {
    "float32": "float", "int8": "std::int8_t", "uint8": "std::uint8_t", "int16": "std::int16_t",
    "int32": "std::int32_t", "int64": "std::int64_t",
}  # fmt: skip
_MOST_MODEL_BYTES = 16 << 20
# Flash is dear: the self-test's tables stay small beside any network worth compiling.
_MOST_GOLDEN_BYTES = 8 << 10
_ARENA_MARGIN = 0.25
_ARENA_STEP_BYTES = 1024
# CMSIS-NN unrolls two windows of a convolution into 16-bit numbers at a time
# (arm_convolve_s8_get_buffer_size in its Source/ConvolutionFunctions).
_WINDOW_BYTES = 4
# With int16 activations on a core with Helium four windows, each in whole vectors of 8 numbers
# (arm_convolve_s16_get_buffer_size and its depthwise sister); other cores ask for half of it.
_INT16_WINDOW_BYTES, _INT16_PADDING_BYTES = 8, 64

_FILES = (
    "CMakeLists.txt", "README.md", "include/constants.h", "include/measurement.h",
    "include/model.h", "include/model_data.h", "include/self_test.h", "include/sha256.h",
    "include/tensors.h", "include/cycle_counter.h", "src/golden.cc", "src/golden.h",
    "src/measurement.cc", "src/model.cc", "src/model_data.cc", "src/operators.h",
    "src/self_test.cc", "src/sha256.cc", "example/main.cc",
)  # fmt: skip


def _refuses(interface: Interface) -> str | None:
    manifest = interface.manifest
    if manifest.runtime != "tflite-micro":
        return f"it runs on {manifest.runtime}, not on TensorFlow Lite Micro"
    unknown = [t.dtype for t in (*manifest.inputs, *manifest.outputs) if t.dtype not in _C_TYPES]
    return f"its tensors are {', '.join(unknown)}" if unknown else None


def _contents(interface: Interface) -> Contents:
    from edgesdk_tflite.flatbuffer import ETHOS_U, parse_model

    content = interface.model.read_bytes()
    if len(content) > _MOST_MODEL_BYTES:
        raise ArtifactError(f"the model has {len(content)} bytes, too many for a source file")
    file = parse_model(content, interface.model.name)
    golden = interface.golden.first(_golden_invocations(interface))
    values = {
        "interface": interface,
        "manifest": interface.manifest,
        "namespace": snake(interface.words),
        "device": snake(words(interface.manifest.device, fallback="device")),
        "artifact_sha256": interface.sha256,
        "c_types": _C_TYPES,
        "model_bytes": list(content),
        "sha256": list(bytes.fromhex(interface.sha256)),
        "operators": resolver_methods(op.name for op in file.operators),
        "has_ethos_u": any(op.name == ETHOS_U for op in file.operators),
        "arena": _arena(interface, file),
        "golden": golden,
        "golden_inputs": _golden_inputs(interface, golden),
        "golden_outputs": _golden_outputs(interface, golden),
        "input_positions": [
            file.input_order.index(file.input(t.name).index) for t in interface.manifest.inputs
        ],
        "output_positions": [
            file.output_order.index(file.output(t.name).index) for t in interface.manifest.outputs
        ],
    }
    templates = {_destination(name, values): f"microcontroller/{name}.j2" for name in _FILES}
    return Contents(templates=templates, values=values, copies={}, data={})


def _destination(name: str, values: Mapping[str, Any]) -> str:
    """Return where a file goes: headers are included as ``<namespace>/name.h``."""
    return name.replace("include/", f"include/{values['namespace']}/")


def _arena(interface: Interface, file: ModelFile) -> dict[str, Any]:
    """Return the arena's bytes and how they are known, the scratch space, and all with a margin.

    Proven on this machine, or planned by Vela where the file runs on the device alone.
    """
    manifest = interface.manifest
    planned = manifest.predicted.get("memory_bytes") if manifest.host_files else None
    known = manifest.verified.get("memory_bytes", planned)
    if known is None or not 0 < known.value < 1 << 31:
        raise ArtifactError("the manifest states no proven arena", expected="verified.memory_bytes")
    scratch = max((_scratch_bytes(op, kernel) for op, kernel in file.kernels()), default=0)
    wanted = known.value * (1 + _ARENA_MARGIN) + scratch
    total = math.ceil(wanted / _ARENA_STEP_BYTES) * _ARENA_STEP_BYTES
    how = "proven on TFLM built for x86"
    if known is planned:
        how = "by Vela's plan, with TFLM's structures as its x86 build has them"
    return {"bytes": int(known.value), "how": how, "scratch": scratch, "total": total}


def _scratch_bytes(op: FileOperator, kernel: FileTensor) -> int:
    """Return what CMSIS-NN asks for to run a convolution, 0 for other operators."""
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return 0
    window = math.prod(kernel.shape[1:])
    if any(tensor.dtype == "int16" for tensor in op.activations):
        return _INT16_WINDOW_BYTES * window + _INT16_PADDING_BYTES
    return _WINDOW_BYTES * window


def _golden_invocations(interface: Interface) -> int:
    tensors = (*interface.manifest.inputs, *interface.manifest.outputs)
    each = sum(math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in tensors)
    return max(1, _MOST_GOLDEN_BYTES // each)


def _golden_inputs(interface: Interface, golden: Golden) -> list[list[Any]]:
    """Return each input's values as the file takes them, all inferences in one list."""
    specs = interface.manifest.inputs
    real = [torch.from_numpy(array.reshape(-1, *array.shape[2:])) for array in golden.inputs]
    encoded, _ = encode_inputs(real, specs)
    return [array.reshape(-1).tolist() for array in encoded]


def _golden_outputs(interface: Interface, golden: Golden) -> list[list[Any]]:
    specs = interface.manifest.outputs
    return [
        _in_file(array, spec).reshape(-1).tolist()
        for array, spec in zip(golden.outputs, specs, strict=True)
    ]


def _in_file(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    moved = np.stack([np.transpose(sample, spec.from_torch) for sample in array])
    return quantize(moved, spec) if spec.scale is not None else moved.astype(spec.dtype)


APP = App(
    name="microcontroller",
    summary="C++17 for TensorFlow Lite Micro",
    is_built=True,
    refuses=_refuses,
    contents=_contents,
)
