"""The target ``tflite``: what it can do where, emission, and the runtimes that check the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgesdk.artifact import Check, OpCount, inside
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import UsageError, near_names
from edgesdk.graph import OpGraph
from edgesdk.host_runtime import HostRuntime
from edgesdk.layer_format import fallback_refusal
from edgesdk.measurement import RuntimeIdentity
from edgesdk.scheme import DYNAMIC_SCHEMES, KEPT_AS, PALETTE_BITS, Scheme
from edgesdk.target import (
    Arrays,
    Capability,
    Emission,
    Session,
    Simulation,
    Toolchain,
    Twin,
    refuse_schemes,
)
from edgesdk_tflite import field_runtime, packages
from edgesdk_tflite.checks import check_file
from edgesdk_tflite.emission import emit_model
from edgesdk_tflite.ethos_u import NOTE, check_compiled, emit_for_ethos_u, placed_operators
from edgesdk_tflite.ethos_u_estimates import ESTIMATES
from edgesdk_tflite.flatbuffer import read_model
from edgesdk_tflite.graph import read_graph
from edgesdk_tflite.micro import MicroSession
from edgesdk_tflite.micro_kernels import require_int8_kernels
from edgesdk_tflite.operators import count_operators
from edgesdk_tflite.rounding import most_units_apart, reference_is_wrong, why_apart
from edgesdk_tflite.session import LiteRTSession

MICRO = "tflite-micro"
MIXES: Mapping[Scheme, tuple[Scheme, ...]] = {
    "fp32": ("int8_dynamic", "int4_dynamic"),
    "int8": ("fp32", "int8_dynamic", "int4_dynamic"),
    "int8_dynamic": ("fp32", "int4_dynamic"),
    "int4_dynamic": ("fp32", "int8_dynamic"),
}
UNMIXED = (
    "the ranges of static int8 are calibrated through the whole network, and float16 weights are "
    "cast through all of it: make that the network's scheme and name the layers that leave it"
)
MICRO_UNMIXED = (
    "on a microcontroller a layer in float would pull in float kernels and buffers four times as "
    "large; keep the network in one scheme"
)
HOST_RUNTIMES = ("litert", "litert-reference", MICRO)


class TFLiteTarget:
    """Emits ``model.tflite`` for LiteRT, TensorFlow Lite and TensorFlow Lite Micro.

    The same file runs on a phone's CPU (XNNPACK), on its GPU or NPU through LiteRT's delegates,
    and, where every operator is among TensorFlow Lite Micro's, on a microcontroller.
    """

    name = packages.NAME
    field_runtimes = (field_runtime.NAME,)
    suffix = ".tflite"

    def toolchain(self) -> Toolchain:
        """Return which packages are here; tflite-micro is optional, microcontrollers need it."""
        return packages.whole_toolchain()

    def capability(self, runtime: Runtime) -> Capability:
        """Return the schemes the runtime computes and this target emits, and why not the others.

        ``fp16`` stores float16 kernels and float32 activations; a CPU computes such a file in
        float32, GPU and NPU delegates in float16.
        """
        mixes: Mapping[Scheme, tuple[Scheme, ...]] = {} if runtime.runtime == MICRO else MIXES
        unmixed = MICRO_UNMIXED if runtime.runtime == MICRO else UNMIXED
        return Capability.of(
            lambda scheme: _refusal(scheme, runtime),
            mixes=mixes,
            unmixed=unmixed,
            quantizer="ai-edge-quantizer",
            estimates=ESTIMATES if runtime.vela else (),
        )

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write ``model.tflite`` and return how to feed it; equal models give equal bytes.

        Float inputs and outputs of four dimensions are [N, H, W, C] (``edgesdk_tflite.layout``
        says when not). Quantized files take and return integers where ``runtime.integer_io``,
        float otherwise. For an Ethos-U Vela compiles the file, and what it was given stays beside
        it. Raises ``UnsupportedModel`` naming layer and operator, ``TaskError`` for unusable
        calibration data, and ``TargetUnavailable``.
        """
        packages.require_converter()
        refuse_schemes(self.capability(runtime), model)
        if runtime.vela is not None:
            return emit_for_ethos_u(model, runtime, folder)
        emission = emit_model(model, folder, integer_io=runtime.integer_io)
        if runtime.runtime == MICRO:
            require_int8_kernels(read_model(folder / emission.opened), emission.layer_of)
        return emission

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the file and count its operators by type and weight bytes."""
        file = read_model(inside(folder, emission.opened))
        if emission.host_files:
            return placed_operators(file, read_model(inside(folder, emission.files[0])))
        return count_operators(file)

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the file and return what reading it proves or disproves."""
        file = read_model(inside(folder, emission.opened))
        checks = check_file(file, emission, model)
        if emission.host_files:
            compiled = read_model(inside(folder, emission.files[0]))
            checks += check_compiled(file, compiled, emission)
        return checks

    def host_runtime(self, runtime: Runtime) -> HostRuntime:
        """Return "tflite-micro" for microcontrollers and "litert" for everything else.

        For an Ethos-U that interprets the network as it was before Vela. Raises
        ``TargetUnavailable`` where tflite-micro or Vela is needed and not installed, so that the
        lack shows before any work is done.
        """
        if runtime.runtime != MICRO:
            return HostRuntime(name="litert")
        packages.require_micro()
        if runtime.vela is not None:
            packages.require_vela()
            return HostRuntime(name=MICRO, standing="interpreted", note=NOTE)
        return HostRuntime(name=MICRO)

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file in LiteRT, LiteRT's reference kernels or TensorFlow Lite Micro."""
        if host_runtime not in HOST_RUNTIMES:
            raise UsageError(
                f"target {self.name!r} has no host runtime {host_runtime!r}",
                expected=f"one of {', '.join(HOST_RUNTIMES)}",
                next_step=" or ".join(near_names(host_runtime, HOST_RUNTIMES)) or None,
            )
        if host_runtime == MICRO:
            return MicroSession(folder, emission)
        reference = host_runtime == "litert-reference"
        return LiteRTSession(folder, emission, threads, reference=reference)

    def twin(self, folder: Path, emission: Emission, host_runtime: str) -> Twin | None:
        """Return LiteRT's reference kernels for what runs in TensorFlow Lite Micro.

        Two runtimes that were built apart; their answers are bit-identical but for fully connected
        layers in integers, and products in int16 (``edgesdk_tflite.rounding``).
        """
        if host_runtime != MICRO:
            return None
        file = read_model(inside(folder, emission.opened))
        return Twin(
            host_runtime="litert-reference",
            most_units=most_units_apart(file),
            reason=why_apart(file),
            unusable=reference_is_wrong(file),
        )

    def prepare_field(self, name: str, cache: Path) -> Path:
        """Return the Python of an environment with tflite-runtime, made in the cache if need be."""
        return field_runtime.prepare_environment(cache)

    def run_in_field(
        self, name: str, python: Path, folder: Path, emission: Emission, stacked: Arrays
    ) -> tuple[RuntimeIdentity, Arrays]:
        """Return what tflite-runtime answers, in a process of its own."""
        return field_runtime.run_in_field(python, folder, emission, stacked)

    def read_graph(self, path: Path) -> OpGraph:
        """Return what a ``.tflite`` file computes, whoever converted it."""
        return read_graph(path)

    def simulate(self, model: CompressedModel) -> Simulation | None:
        """Return None: the file itself runs here, so nothing needs to be simulated."""
        return None


_SAME_WEIGHTS = "LiteRT computes {} from the same weights, and faster: take that"
_NEVER: Mapping[Scheme, str] = {
    "w8": _SAME_WEIGHTS.format("int8_dynamic"),
    "w4": _SAME_WEIGHTS.format("int4_dynamic"),
    **dict.fromkeys(
        PALETTE_BITS,
        "LiteRT has no tables of weights; int8_dynamic and int4_dynamic are narrow there",
    ),
    **dict.fromkeys(
        KEPT_AS,
        "masked weights are not written for LiteRT; int8_dynamic and int4_dynamic are narrow there",
    ),
}


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if scheme == "fp16" and runtime.runtime == MICRO:
        return "TensorFlow Lite Micro's DEQUANTIZE takes no float16, so such weights cannot load"
    if scheme in DYNAMIC_SCHEMES and runtime.runtime == MICRO:
        return "TensorFlow Lite Micro has no kernels that find ranges at run time"
    if scheme == "w8a16" and runtime.runtime != MICRO:
        return (
            "XNNPACK has no kernels of int16 activations, so LiteRT would compute every layer in "
            "plain loops, slower than float; it is for TensorFlow Lite Micro"
        )
    if scheme in _NEVER:
        return _NEVER[scheme]
    if scheme not in runtime.precisions:
        known = ", ".join(runtime.precisions)
        return f"{runtime.runtime} on this device's {runtime.unit} is profiled for {known} only"
    return fallback_refusal(scheme, runtime.precisions)
