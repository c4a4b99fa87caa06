"""The target: each of its answers comes from the module that knows it."""

from __future__ import annotations

from pathlib import Path

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import TargetUnavailable
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
from edgesdk_onnx.toolchain import TARGET_NAME, find_capability, find_toolchain

HOST = HostRuntime(
    name="onnxruntime",
    standing="interpreted",
    note="ONNX Runtime on this machine, not TensorRT",
)


class OnnxTarget:
    """Emits ``model.onnx`` for TensorRT, in float32, float16 or int8 (the scales in the file)."""

    name = TARGET_NAME

    def toolchain(self) -> Toolchain:
        """Return which of onnx, onnxscript and onnxruntime are here."""
        return find_toolchain()

    def capability(self, runtime: Runtime) -> Capability:
        """Return the schemes emitted for TensorRT, with reasons for the rest."""
        return find_capability(runtime)

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write ``model.onnx``; it takes and returns tensors in PyTorch's layout."""
        require(self.toolchain())
        from edgesdk_onnx.emission import write_model

        return write_model(model, runtime, folder)

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the file and count its operators and the bytes of their constants."""
        require(self.toolchain())
        from edgesdk_onnx.file import count_operators, read_file

        return count_operators(read_file(folder, emission.files[0]))

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the file and check tensors, weights, precision and TensorRT's rules."""
        require(self.toolchain())
        from edgesdk_onnx.checks import check_file
        from edgesdk_onnx.file import read_file

        return check_file(read_file(folder, emission.files[0]), emission, model)

    def host_runtime(self, runtime: Runtime) -> HostRuntime:
        """Return ONNX Runtime, which computes what the file says; TensorRT needs NVIDIA's GPU."""
        return HOST

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file into ONNX Runtime."""
        if host_runtime != HOST.name:
            raise TargetUnavailable(
                f"target {self.name!r} has no host runtime {host_runtime!r}", expected=HOST.name
            )
        require(self.toolchain())
        from edgesdk_onnx.session import open_session

        return open_session(folder, emission, threads)

    def simulate(self, model: CompressedModel) -> Simulation | None:
        """Return None: the file itself is computed here, so nothing needs to be simulated."""
        return None


TARGET: Target = OnnxTarget()
