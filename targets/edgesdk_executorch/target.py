"""The target: each of its answers comes from the module that knows it."""

from __future__ import annotations

from pathlib import Path

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.host_runtime import HostRuntime
from edgesdk.target import (
    Capability,
    Emission,
    Session,
    Simulation,
    Target,
    Toolchain,
    require,
)
from edgesdk_executorch.toolchain import DELEGATE, TARGET_NAME, find_capability, find_toolchain


class ExecuTorchTarget:
    """Emits ``model.pte`` for ExecuTorch's XNNPACK delegate, in float32, int8 or int4."""

    name = TARGET_NAME

    def toolchain(self) -> Toolchain:
        """Return which of executorch and torchao are here."""
        return find_toolchain()

    def capability(self, runtime: Runtime) -> Capability:
        """Return the schemes that the runtime computes, with reasons for the rest."""
        return find_capability(runtime)

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write ``model.pte``; it takes and returns contiguous tensors in PyTorch's layout."""
        require(self.toolchain())
        from edgesdk_executorch.emission import write_program

        return write_program(model, runtime, folder)

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the file and count its operators, those inside the delegate included."""
        require(self.toolchain())
        from edgesdk_executorch.program import count_operators, read_program

        return count_operators(read_program(folder, emission.files[0]))

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the file and check precision, delegation, weights, inputs and outputs."""
        require(self.toolchain())
        from edgesdk_executorch.checks import check_program
        from edgesdk_executorch.program import read_program

        return check_program(read_program(folder, emission.files[0]), emission, model)

    def host_runtime(self, runtime: Runtime) -> HostRuntime | None:
        """Return "executorch": XNNPACK runs on this machine's CPU as on the device's."""
        return HostRuntime(name=TARGET_NAME) if runtime.delegate == DELEGATE else None

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file into ExecuTorch's own runtime."""
        require(self.toolchain())
        from edgesdk_executorch.session import open_session

        return open_session(folder, emission, threads)

    def simulate(self, model: CompressedModel) -> Simulation | None:
        """Return the quantized PyTorch graph, which XNNPACK follows to one step; None for float."""
        if model.schemes == {"fp32"}:
            return None
        require(self.toolchain())
        from edgesdk_executorch.simulation import simulate_quantized

        return simulate_quantized(model)


TARGET: Target = ExecuTorchTarget()
