"""What the ONNX target needs, and what it can emit for a runtime."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.device import Runtime
from edgesdk.scheme import DYNAMIC_SCHEMES, KEPT_AS, PALETTE_BITS, Scheme
from edgesdk.target import Capability, Toolchain

TARGET_NAME = "onnx"
DELEGATE = "tensorrt"

_PACKAGES = (
    ("onnx", "1.23.2", "reads the file back and checks it"),
    ("onnxscript", "0.7.2", "translates PyTorch's exported program into ONNX"),
    ("onnxruntime", "1.31.1", "finds the ranges of activations and runs the file here"),
)


def find_toolchain() -> Toolchain:
    """Return which of the ONNX packages are installed, and the command that installs them."""
    return Toolchain.of(TARGET_NAME, _PACKAGES, "pip install 'edgesdk[onnx]'")


def find_capability(runtime: Runtime) -> Capability:
    """Return the schemes an ``.onnx`` for this runtime can have, and why not the others."""
    return Capability.of(lambda scheme: _refusal(scheme, runtime))


_NEVER: Mapping[Scheme, str] = {
    **dict.fromkeys(
        DYNAMIC_SCHEMES,
        "TensorRT finds no ranges of activations at run time: int8 has calibrated ones",
    ),
    "w8a16": "TensorRT has no int16 activations: int8, or fp16 where int8 loses too much",
    "w8": "w8 weights are not written for TensorRT here; int8 is its narrow form",
    "w4": "w4 weights are not written for TensorRT here; int8 is its narrow form",
    **dict.fromkeys(PALETTE_BITS, "TensorRT has no tables of weights; int8 is its narrow form"),
    **dict.fromkeys(
        KEPT_AS,
        "ONNX stores no masks of weights, and TensorRT is fast on zeros in the 2:4 form alone",
    ),
}


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if runtime.delegate != DELEGATE:
        return f"files are written for {DELEGATE} here, not for {runtime.delegate!r}"
    if scheme in _NEVER:
        return _NEVER[scheme]
    if scheme not in runtime.precisions:
        return f"the device profile lists no {scheme} for {runtime.runtime} on its {runtime.unit}"
    if scheme == "int8" and runtime.integer_io:
        return "int8 files take and return float here, and this runtime asks for int8 tensors"
    return None
