"""The Core ML target: ML programs for Apple's systems, in float or in int8."""

from __future__ import annotations

from pathlib import Path

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import TargetUnavailable
from edgesdk.host_runtime import HostRuntime
from edgesdk.target import Capability, Emission, Session, Simulation, Toolchain
from edgesdk_coreml.deployment import refusal
from edgesdk_coreml.toolchain import find_toolchain

EVALUATOR = HostRuntime(
    name="mil-evaluator", standing="interpreted", note="interpreted, not on the Neural Engine"
)


class CoreMLTarget:
    """Emits ``model.mlpackage`` and proves what can be proven of it away from an Apple device."""

    name = "coreml"

    def toolchain(self) -> Toolchain:
        """Return which packages are here and which are missing."""
        return find_toolchain()

    def capability(self, runtime: Runtime) -> Capability:
        """Return the schemes emitted for a runtime; ``ProfileError`` for an unknown system."""
        # int8 programs are converted from the graph that XNNPACK's quantizer calibrated.
        return Capability.of(lambda scheme: refusal(scheme, runtime), quantizer="XNNPACK")

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write ``model.mlpackage``; equal models give equal bytes. See ``emit_package``."""
        from edgesdk_coreml.convert import emit_package

        return emit_package(model, runtime, folder)

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the package and count its operations and the bytes of their weights."""
        from edgesdk_coreml.dataflow import Dataflow
        from edgesdk_coreml.package import read_program

        return Dataflow(read_program(folder / emission.files[0])).count_operators()

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the package and check it against what was promised. See ``check_package``."""
        from edgesdk_coreml.checks import check_package

        return check_package(folder / emission.files[0], emission, model)

    def host_runtime(self, runtime: Runtime) -> HostRuntime:
        """Return the evaluator: Core ML itself exists on Apple's systems alone."""
        return EVALUATOR

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Return the package, ready to be evaluated op by op. See ``open_session``."""
        if host_runtime != EVALUATOR.name:
            raise TargetUnavailable(
                f"target {self.name!r} has no host runtime {host_runtime!r}",
                expected=EVALUATOR.name,
            )
        from edgesdk_coreml.session import open_session

        return open_session(folder / emission.files[0], threads)

    def simulate(self, model: CompressedModel) -> Simulation:
        """Return a PyTorch function close to what the package computes. See ``simulate_model``."""
        from edgesdk_coreml.simulate import simulate_model

        return simulate_model(model)
