"""The Core ML target: ML programs for Apple's systems, in float or in int8."""

from __future__ import annotations

from pathlib import Path

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import TargetUnavailable
from edgesdk.scheme import SCHEMES
from edgesdk.target import Capability, Emission, Session, Simulation, Toolchain
from edgesdk_coreml.deployment import refusal
from edgesdk_coreml.toolchain import find_toolchain


class CoreMLTarget:
    """Emits ``model.mlpackage`` and proves what can be proven of it away from an Apple device."""

    name = "coreml"

    def toolchain(self) -> Toolchain:
        """Return which packages are here and which are missing."""
        return find_toolchain()

    def capability(self, runtime: Runtime) -> Capability:
        """Return the schemes emitted for a runtime; ``ProfileError`` for an unknown system."""
        reasons = {scheme: refusal(scheme, runtime) for scheme in SCHEMES}
        return Capability(
            schemes=tuple(scheme for scheme, reason in reasons.items() if reason is None),
            refused={scheme: reason for scheme, reason in reasons.items() if reason is not None},
        )

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

    def host_runtime(self, runtime: Runtime) -> str | None:
        """Return None: Core ML exists on Apple's systems alone, and no runner for it is built.

        ``evaluate.load_program`` interprets a package anywhere; that is not Core ML.
        """
        return None

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Raise ``TargetUnavailable``: nothing here runs a Core ML package."""
        raise TargetUnavailable(
            f"nothing on this machine runs a Core ML package (asked for {host_runtime!r})",
            next_step="run the package in an app on the Apple device",
        )

    def simulate(self, model: CompressedModel) -> Simulation:
        """Return a PyTorch function close to what the package computes. See ``simulate_model``."""
        from edgesdk_coreml.simulate import simulate_model

        return simulate_model(model)
