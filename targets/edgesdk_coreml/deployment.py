"""Deployment targets: the oldest system a package runs on, and what that system understands."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.device import Runtime
from edgesdk.errors import ProfileError, unknown_name
from edgesdk.layer_format import fallback_refusal
from edgesdk.scheme import DYNAMIC_SCHEMES, KEPT_AS, PALETTE_BITS, WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk.target import Capability

# System to specification version, from coremltools' enumeration ``AvailableTarget``; ML programs
# begin with iOS 15.
SPECIFICATION_VERSIONS: Mapping[str, int] = {
    "iOS15": 6, "iOS16": 7, "iOS17": 8, "iOS18": 9, "iOS26": 10,
    "macOS12": 6, "macOS13": 7, "macOS14": 8, "macOS15": 9, "macOS26": 10,
}  # fmt: skip

# ``quantize`` and ``dequantize`` of activations came with the operator set of iOS 17.
_INT8_SPECIFICATION_VERSION = SPECIFICATION_VERSIONS["iOS17"]

# Decoding of int8 weights and of one table for a layer came with the operator set of iOS 16, of
# blocks of int4, of masks over either (and of several tables, which are not written here) with iOS
# 18's.
_WEIGHTS_SINCE: Mapping[Scheme, tuple[str, int]] = {
    "w8": ("iOS 16 or macOS 13", SPECIFICATION_VERSIONS["iOS16"]),
    "w4": ("iOS 18 or macOS 15", SPECIFICATION_VERSIONS["iOS18"]),
    **dict.fromkeys(PALETTE_BITS, ("iOS 16 or macOS 13", SPECIFICATION_VERSIONS["iOS16"])),
    **dict.fromkeys(KEPT_AS, ("iOS 18 or macOS 15", SPECIFICATION_VERSIONS["iOS18"])),
}

MIXES: Mapping[Scheme, tuple[Scheme, ...]] = {
    "int8": ("fp16", "w4"),
    **{
        scheme: tuple(other for other in ("fp16", *WEIGHT_ONLY_SCHEMES) if other != scheme)
        for scheme in ("fp16", *WEIGHT_ONLY_SCHEMES)
    },
}
UNMIXED = (
    "the ranges of static int8 are calibrated through the whole network, and what is not int8 is "
    "float16 in all of it: make int8 the network's scheme and name the layers that leave it for "
    "fp16 or w4 (w8 between int8 activations is int8)"
)

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


def find_capability(runtime: Runtime) -> Capability:
    """Return the schemes emitted for a runtime; ``ProfileError`` for an unknown system."""
    # int8 programs are converted from the graph that XNNPACK's quantizer calibrated.
    return Capability.of(
        lambda s: refusal(s, runtime), mixes=MIXES, unmixed=UNMIXED, quantizer="XNNPACK"
    )


_NO_RANGES = (
    "Core ML finds no ranges at run time: either activations are int8 with calibrated ranges "
    "(int8), or weights alone are narrow (w8, w4, lut8 to lut4)"
)
_NEVER: Mapping[Scheme, str] = {
    **dict.fromkeys(DYNAMIC_SCHEMES, _NO_RANGES),
    "w8a16": "Core ML quantizes activations to int8 alone: int8, or fp16 with narrow weights (w8)",
}


def refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    """Return why a scheme is not emitted for a runtime, None where it is."""
    if scheme == "fp32" and runtime.unit == "npu":
        return "the Neural Engine computes in float16; fp32 would leave it for the CPU or GPU"
    if (
        scheme == "int8"
        and specification_version(runtime.minimum_version) < _INT8_SPECIFICATION_VERSION
    ):
        return f"int8 activations need iOS 17 or macOS 14, not {runtime.minimum_version}"
    if scheme in _NEVER:
        return _NEVER[scheme]
    if scheme in _WEIGHTS_SINCE:
        system, version = _WEIGHTS_SINCE[scheme]
        if specification_version(runtime.minimum_version) < version:
            return f"{scheme} weights need {system}, not {runtime.minimum_version}"
    if scheme not in runtime.precisions:
        return (
            f"the device profile lists no {scheme} for its {runtime.unit} under {runtime.runtime}"
        )
    return fallback_refusal(scheme, runtime.precisions)
