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
from edgesdk.task import Tensors
from edgesdk_executorch.delegates import find_delegate
from edgesdk_executorch.toolchain import TARGET_NAME, find_capability, find_toolchain


class ExecuTorchTarget:
    """Emits ``model.pte`` for ExecuTorch's delegates XNNPACK, Vulkan and Core ML."""

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
        """Return "executorch" for XNNPACK, which runs on this machine's CPU as on the device's;
        None for GPUs and Apple's chips."""
        delegate = find_delegate(runtime.delegate)
        runs_here = delegate is not None and delegate.runs_here
        return HostRuntime(name=TARGET_NAME) if runs_here else None

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file into ExecuTorch's own runtime."""
        require(self.toolchain())
        from edgesdk_executorch.session import open_session

        return open_session(folder, emission, threads)

    def bundle(
        self, folder: Path, emission: Emission, inputs: Tensors, outputs: Tensors
    ) -> tuple[str, ...]:
        """Write ``model.bpte``, which ExecuTorch's own runners execute and compare."""
        require(self.toolchain())
        from edgesdk_executorch.developer_files import write_bundle

        return (write_bundle(folder, emission, inputs, outputs),)

    def simulate(self, model: CompressedModel) -> Simulation:
        """Return what the file computes, in PyTorch: quantized, rounded to float16 or as it is."""
        require(self.toolchain())
        from edgesdk_executorch.simulation import simulate_model

        return simulate_model(model)


TARGET: Target = ExecuTorchTarget()
