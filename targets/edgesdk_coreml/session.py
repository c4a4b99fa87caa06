"""A saved package as a session: evaluated operation by operation, which is not Core ML."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Session, installed_version
from edgesdk_coreml.evaluate import load_program


class EvaluatorSession:
    """A package that the evaluator computes on the CPU; its clock says nothing about a device."""

    def __init__(self, compute: Callable[[Arrays], Arrays], identity: RuntimeIdentity) -> None:
        self._compute = compute
        self.identity = identity

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one inference at the package's batch."""
        return self._compute(inputs)

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return a function that evaluates the package on these inputs."""
        return partial(self._compute, inputs)

    def memory_bytes(self) -> int | None:
        """Return None: what the evaluator takes is not what Core ML takes."""
        return None


def open_session(package: Path, threads: int) -> Session:
    """Return a package ready to be evaluated; errors as ``load_program`` raises them.

    PyTorch computes; ``threads`` is what the worker process was started with.
    """
    identity = RuntimeIdentity(
        runtime="mil-evaluator",
        version=installed_version("edgesdk") or "unknown",
        platform=f"{sys.platform}-{platform.machine()}",
        unit="cpu",
        threads=threads,
    )
    return EvaluatorSession(load_program(package), identity)
