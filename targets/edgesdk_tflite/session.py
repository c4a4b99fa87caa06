"""Run a ``.tflite`` file on LiteRT: XNNPACK as on a phone's CPU, or the reference kernels."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesdk.artifact import inside
from edgesdk.errors import ArtifactError
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission, installed_version
from edgesdk_tflite.flatbuffer import read_model
from edgesdk_tflite.packages import require_converter


class LiteRTSession:
    """A file loaded in LiteRT's interpreter; arrays have the file's shapes and types.

    With ``reference`` the plain C++ kernels run, on one thread. Their int8 convolutions give bit
    for bit what TensorFlow Lite Micro's give; fully connected layers round the last unit
    differently there, and XNNPACK rounds differently from both.
    """

    def __init__(self, folder: Path, emission: Emission, threads: int, *, reference: bool) -> None:
        require_converter()
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        path = inside(folder, emission.opened)
        file = read_model(path)
        self._inputs = [file.input(spec.name).index for spec in emission.inputs]
        self._outputs = [file.output(spec.name).index for spec in emission.outputs]
        resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        used_threads = 1 if reference else threads
        try:
            self._interpreter: Any = Interpreter(
                model_path=str(path),
                num_threads=used_threads,
                experimental_op_resolver_type=resolver,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as problem:
            raise ArtifactError(f"LiteRT cannot load {path.name}: {problem}") from problem
        self.identity = RuntimeIdentity(
            runtime="litert-reference" if reference else "litert",
            version=str(installed_version("ai-edge-litert")),
            platform=host_platform(),
            unit="cpu",
            threads=used_threads,
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs of one inference at the file's batch."""
        self.bind(inputs)()
        # get_tensor copies, so nothing returned changes with the next inference.
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return the interpreter's own invocation, the inputs set."""
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def memory_bytes(self) -> int | None:
        """Return None: LiteRT's Python interface does not tell its arena's size."""
        return None


def host_platform() -> str:
    """Return the build that runs here, as in "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine()}"
