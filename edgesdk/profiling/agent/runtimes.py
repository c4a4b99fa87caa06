"""Which runtime runs the artifact here, and whether it is new enough."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any

from . import in_process, trtexec
from .job import Findings, Job
from .problem import AgentError
from .sessions import SESSIONS

TENSORRT = "tensorrt"


Measure = Callable[[Sequence[Job]], list[Findings]]


def find_runtime(manifest: dict[str, Any]) -> tuple[Measure, str]:
    """Return what measures the artifact and its runtime's version, which must be new enough."""
    name = manifest["runtime"]
    measure: Measure
    if name == TENSORRT:
        program, version = trtexec.find_program()
        measure, called, update = partial(trtexec.measure, program), "TensorRT", "update JetPack"
    elif name in SESSIONS:
        kind = SESSIONS[name]
        measure, version = partial(in_process.measure, kind), _installed(kind.wheel)
        called, update = kind.wheel, f"pip install --upgrade {kind.wheel}"
    else:
        known = ", ".join([*SESSIONS, TENSORRT])
        raise AgentError(f"the artifact is for {name!r}; this agent runs {known}")
    if _numbers(version) < _numbers(manifest["minimum_runtime"]):
        raise AgentError(
            f"{called} is {version} here, the artifact needs {manifest['minimum_runtime']} or "
            f"newer; {update}"
        )
    return measure, version


def _installed(wheel: str) -> str:
    try:
        return metadata.version(wheel)
    except metadata.PackageNotFoundError:
        raise AgentError(
            f"{wheel} is not installed for {sys.executable}; pip install {wheel}"
        ) from None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])]
