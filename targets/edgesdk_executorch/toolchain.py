"""What the ExecuTorch target needs, and what it can emit for a runtime."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.device import Runtime
from edgesdk.layer_format import fallback_refusal
from edgesdk.scheme import Scheme
from edgesdk.target import Capability, Toolchain

TARGET_NAME = "executorch"
DELEGATE = "xnnpack"

MIXES: Mapping[Scheme, tuple[Scheme, ...]] = {
    "fp32": ("int8_dynamic", "int4_dynamic"),
    "int8": ("fp32", "int8_dynamic", "int4_dynamic"),
    "int8_dynamic": ("fp32", "int4_dynamic"),
    "int4_dynamic": ("fp32", "int8_dynamic"),
}
UNMIXED = (
    "the ranges of static int8 are calibrated through the whole network: make int8 the network's "
    "scheme and name the layers that leave it"
)

_PACKAGES = (
    ("executorch", "1.5.1", "lowers the exported model to a .pte and runs it here"),
    ("torchao", "0.18.0", "calibrates and quantizes the exported model to int8"),
)


def find_toolchain() -> Toolchain:
    """Return which of executorch and torchao are installed, and the command that installs both."""
    return Toolchain.of(TARGET_NAME, _PACKAGES, "pip install 'edgesdk[executorch]'")


def find_capability(runtime: Runtime) -> Capability:
    """Return the schemes a ``.pte`` for this runtime can have, and why not the others."""
    return Capability.of(
        lambda scheme: _refusal(scheme, runtime), mixes=MIXES, unmixed=UNMIXED, quantizer="XNNPACK"
    )


_WRONG = "XNNPACK computes weight-only formats wrongly in this version of ExecuTorch"
_NEVER: Mapping[Scheme, str] = {
    "fp16": "ExecuTorch serialises every XNNPACK convolution weight as float32, so a float16 file "
    "is no smaller",
    "w8a16": "XNNPACK has no kernels of int16 activations",
    "w8": f"{_WRONG}; int8_dynamic stores the same weights",
    "w4": f"{_WRONG}; int4_dynamic stores the same weights",
}


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if runtime.delegate != DELEGATE:
        return f"only the {DELEGATE} delegate is emitted here, not {runtime.delegate!r}"
    if scheme in _NEVER:
        return _NEVER[scheme]
    if scheme not in runtime.precisions:
        return f"the device profile lists no {scheme} for {runtime.runtime} on its {runtime.unit}"
    if scheme == "int8" and runtime.integer_io:
        return "int8 files take and return float here, and this runtime asks for int8 tensors"
    return fallback_refusal(scheme, runtime.precisions)
