"""Deployment targets: the oldest system a package runs on, and what that system understands."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.device import Runtime
from edgesdk.errors import ProfileError, unknown_name
from edgesdk.scheme import Scheme

# System to specification version, from coremltools' enumeration ``AvailableTarget``; ML programs
# begin with iOS 15.
SPECIFICATION_VERSIONS: Mapping[str, int] = {
    "iOS15": 6, "iOS16": 7, "iOS17": 8, "iOS18": 9, "iOS26": 10,
    "macOS12": 6, "macOS13": 7, "macOS14": 8, "macOS15": 9, "macOS26": 10,
}  # fmt: skip

# ``quantize`` and ``dequantize`` of activations came with the operator set of iOS 17.
_INT8_SPECIFICATION_VERSION = SPECIFICATION_VERSIONS["iOS17"]

COMPUTE_UNITS: Mapping[str, str] = {
    "cpu": "cpuOnly",
    "gpu": "cpuAndGPU",
    "npu": "cpuAndNeuralEngine",
}
"""The case of Core ML's ``MLComputeUnits`` an app asks for, by the profile's unit."""


def specification_version(minimum_version: str) -> int:
    """Return the specification version of a system ("iOS17"); ``ProfileError`` if unknown."""
    if minimum_version not in SPECIFICATION_VERSIONS:
        raise ProfileError(
            unknown_name(
                "minimum_version of a Core ML runtime",
                minimum_version,
                SPECIFICATION_VERSIONS,
                listing=f"known: {', '.join(SPECIFICATION_VERSIONS)}",
            )
        )
    return SPECIFICATION_VERSIONS[minimum_version]


def refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    """Return why a scheme is not emitted for a runtime, None where it is."""
    if scheme == "fp32" and runtime.unit == "npu":
        return "the Neural Engine computes in float16; fp32 would leave it for the CPU or GPU"
    if (
        scheme == "int8"
        and specification_version(runtime.minimum_version) < _INT8_SPECIFICATION_VERSION
    ):
        return f"int8 activations need iOS 17 or macOS 14, not {runtime.minimum_version}"
    if scheme not in runtime.precisions:
        return (
            f"the device profile lists no {scheme} for its {runtime.unit} under {runtime.runtime}"
        )
    return None
