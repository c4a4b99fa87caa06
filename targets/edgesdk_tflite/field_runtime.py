"""tflite-runtime 2.14, the oldest runtime still in the field: an environment of its own, and a run.

It needs NumPy 1, which nothing else here can be installed with, so it is driven as a subprocess.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesdk.artifact import inside
from edgesdk.environment import Environment
from edgesdk.errors import ArtifactError, UsageError
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission
from edgesdk_tflite.flatbuffer import read_model
from edgesdk_tflite.session import host_platform

NAME = "tflite-runtime"
VERSION = "2.14.0"
REQUIREMENTS = (f"{NAME}=={VERSION}", "numpy==1.26.4")
_ENVIRONMENT = Environment(
    name=NAME,
    version=VERSION,
    requirements=REQUIREMENTS,
    # It has no wheel for a newer Python, and there is no later version.
    pythons=((3, 11), (3, 10)),
    otherwise="name with --python the Python of an environment that has them",
)
_WORKER = Path(__file__).with_name("field_worker.py")
_RUN_TIMEOUT_S = 900.0
_MOST_OUTPUT_BYTES = 1 << 31


def prepare_environment(cache: Path) -> Path:
    """Return the Python of an environment with tflite-runtime, made under ``cache`` if need be.

    Raises ``TargetUnavailable`` where no fitting Python is here or the packages cannot be had.
    """
    return _ENVIRONMENT.prepare(cache)


def run_in_field(python: Path, folder: Path, emission: Emission, stacked: Arrays) -> tuple[
    RuntimeIdentity, Arrays
]:  # fmt: skip
    """Return who ran the file, and its outputs ``[M, B, ...]``, on one thread.

    Raises ``ArtifactError`` where that runtime refuses the file, crashes or does not end, and
    ``UsageError`` for a Python without it.
    """
    path = inside(folder, emission.opened)
    file = read_model(path)
    takes = [file.input_order.index(file.input(spec.name).index) for spec in emission.inputs]
    gives = [file.output_order.index(file.output(spec.name).index) for spec in emission.outputs]
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        source, destination = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        np.savez(source, *stacked)
        said = _run(python, [path.resolve(), source, destination, _places(takes), _places(gives)])
        outputs = _read(destination, len(gives))
    identity = RuntimeIdentity(
        runtime=NAME, version=str(said["version"])[:40], platform=host_platform(), unit="cpu",
        threads=1,
    )  # fmt: skip
    return identity, outputs


def _run(python: Path, arguments: Sequence[object]) -> dict[str, object]:
    """Run the worker and return what it says of itself."""
    words = [str(python), "-I", str(_WORKER), *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"{NAME} did not answer within {_RUN_TIMEOUT_S:g} s") from None
    except OSError as problem:
        raise UsageError(f"{python} cannot be run: {problem.strerror}") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ArtifactError(f"{NAME} crashed with {name} on this artifact")
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
    if done.returncode and "ModuleNotFoundError" in last[0]:
        raise UsageError(
            f"{python} has no {NAME}: {last[0]}",
            expected=f"a Python with {' and '.join(REQUIREMENTS)}",
            next_step="leave --python out: an environment is then made in the cache",
        )
    if done.returncode:
        raise ArtifactError(f"{NAME} cannot run this artifact: {last[0]}")
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    try:
        said = json.loads(lines[-1])
        return {"version": said["version"]}
    except (IndexError, KeyError, TypeError, ValueError):
        raise ArtifactError(f"{NAME} ended without saying its version") from None


def _read(path: Path, count: int) -> Arrays:
    try:
        if path.stat().st_size > _MOST_OUTPUT_BYTES:
            raise ArtifactError(f"{NAME} wrote {path.stat().st_size} bytes of outputs")
        with np.load(path, allow_pickle=False) as stored:
            return [stored[f"arr_{index}"] for index in range(count)]
    except (OSError, ValueError, KeyError) as problem:
        raise ArtifactError(f"{NAME} wrote no outputs: {problem}") from None


def _places(order: Sequence[int]) -> str:
    return ",".join(map(str, order))
