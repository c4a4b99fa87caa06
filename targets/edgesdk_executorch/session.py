"""A loaded ``.pte`` in ExecuTorch's Python runtime."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from edgesdk.artifact import inside
from edgesdk.errors import ArtifactError
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission, Session, installed_version


class ExecuTorchSession:
    """A loaded program; ``identity.threads`` is what the runtime's own thread pool reports."""

    def __init__(self, program: Any, method: Any, identity: RuntimeIdentity) -> None:
        # The method reads from the program and the program from its bytes: freeing either while
        # the method lives is a crash, and the program object holds the bytes.
        self._program = program
        self._method = method
        self.identity = identity

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one inference at the file's batch, as new arrays."""
        return [output.numpy() for output in self.bind(inputs)()]

    def bind(self, inputs: Arrays) -> Callable[[], list[torch.Tensor]]:
        """Return the method's execution on these inputs; it clones its outputs."""
        tensors = [_contiguous(torch.from_numpy(array)) for array in inputs]
        execute: Callable[[], list[torch.Tensor]] = partial(self._method.execute, tensors)
        return execute

    def memory_bytes(self) -> int | None:
        """Return None: XNNPACK allocates its workspace by itself and does not tell its size.

        What the program does state (``Program.planned_bytes``) covers only tensors outside the
        delegate, usually just inputs and outputs, and would pass for a memory figure wrongly.
        """
        return None


def open_session(folder: Path, emission: Emission, threads: int) -> Session:
    """Return the first file of the emission, loaded and ready to run on that many threads.

    The number of threads is one for the whole process. Raises ``ArtifactError`` where the runtime
    refuses the file; a damaged one may also crash it, so this belongs into a worker process.
    """
    import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(threads)
    path = inside(folder, emission.files[0])
    try:
        program = Runtime.get().load_program(path.read_bytes())
        method = program.load_method("forward")
    except (OSError, RuntimeError, KeyError) as problem:
        raise ArtifactError(f"ExecuTorch cannot load {path.name}: {problem}") from problem
    identity = RuntimeIdentity(
        runtime="executorch",
        version=installed_version("executorch") or "unknown",
        platform=f"{sys.platform}-{platform.machine()}",
        unit="cpu",
        threads=portable_lib._threadpool_get_thread_count(),
    )
    return ExecuTorchSession(program, method, identity)


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in row-major order: the runtime reads memory as if it were, unchecked."""
    return tensor.contiguous()
