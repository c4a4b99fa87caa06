"""TensorFlow in a process of its own: the environment it lives in, and what it is asked there.

It is never imported here. Installed beside the rest it would be, as coremltools imports any
TensorFlow that it finds (docs/decisions/0018-keras.md).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.cache import default_root
from edgesdk.environment import Environment
from edgesdk.errors import TargetUnavailable, TaskError, UnsupportedModel
from edgesdk.progress import watching

VARIABLE = "EDGESDK_TENSORFLOW"
ENVIRONMENT = Environment(
    name="tensorflow",
    version="2.21.0",
    # Versions that were proven together; tensorflow-cpu is built for PCs only.
    requirements=(
        "tensorflow-cpu==2.21.0; platform_machine in 'x86_64 AMD64'",
        "tensorflow==2.21.0; platform_machine not in 'x86_64 AMD64'",
        "keras==3.15.1",
        "numpy==2.4.6",
        "h5py==3.14.0",
        "protobuf==7.36.2",
    ),
    pythons=((3, 11), (3, 12), (3, 13)),
    otherwise=f"name with {VARIABLE} the Python of an environment that has them",
)
_WORKER = Path(__file__).with_name("tensorflow_worker.py")
_MOST_OUTPUT_BYTES = 1 << 31
_TIMEOUTS_S: Mapping[str, float] = {"open": 300.0, "run": 1800.0, "convert": 900.0}
_LONGEST_REPLY = 1 << 24
_SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0", "TF_NUM_INTEROP_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1",
}  # fmt: skip

Arrays = list[NDArray[np.generic]]


def find_python() -> Path:
    """Return a Python that has TensorFlow: the one ``$EDGESDK_TENSORFLOW`` names, else that of an
    environment in the cache, which is made where there is none yet.

    Raises ``TargetUnavailable`` where it cannot be made.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = default_root()
    if not ENVIRONMENT.is_made(cache):
        text = f"Installing TensorFlow {ENVIRONMENT.version} in an environment of its own, once"
        watching.get().step(text)
    return ENVIRONMENT.prepare(cache)


class TensorFlow:
    """A process with one model in it, which ends with this object or with Python.

    Whatever is wrong with the model is a ``TaskError``, or ``UnsupportedModel`` where it cannot
    be converted; ``path`` begins the message.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._python = find_python()
        self._folder = tempfile.TemporaryDirectory(prefix="edgesdk-tensorflow.")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process ends
        # Keras reads and writes settings of its own at home, and must not find the user's.
        settings = {**_SETTINGS, "KERAS_HOME": self._folder.name}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a list of words, no shell
                [str(self._python), "-I", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **settings},
                cwd=self._folder.name,
            )
        except OSError as problem:
            raise TargetUnavailable(
                f"{self._python} cannot be run: {problem.strerror}",
                expected=f"a Python that has {', '.join(ENVIRONMENT.requirements)}",
                next_step=f"correct {VARIABLE}, or leave it out",
            ) from None
        self._end = weakref.finalize(self, _end, self._process, self._said, self._folder)

    def open(self, kind: str, signature: str) -> dict[str, Any]:
        """Load the model and return what it says of itself."""
        path = str(self._path.resolve())
        return self._ask({"do": "open", "kind": kind, "path": path, "signature": signature})

    def run(self, tensors: Sequence[NDArray[np.generic]]) -> Arrays:
        """Return the model's outputs ``[N, ...]`` for inputs ``[N, ...]``."""
        source, destination = (Path(self._folder.name) / f"{name}.npz" for name in ("in", "out"))
        np.savez(source, *tensors)
        request = {"do": "run", "inputs": str(source), "outputs": str(destination)}
        count = self._ask(request)["count"]
        if destination.stat().st_size > _MOST_OUTPUT_BYTES:
            raise TaskError(f"{self._path} answers with {destination.stat().st_size} bytes")
        with np.load(destination, allow_pickle=False) as stored:
            return [stored[f"arr_{index}"] for index in range(count)]

    def convert(self, shapes: Sequence[Sequence[int]]) -> bytes:
        """Return the model as a float ``.tflite`` file for inputs of those shapes.

        Raises ``UnsupportedModel`` naming the operators that LiteRT lacks.
        """
        destination = Path(self._folder.name) / "model.tflite"
        shapes = [list(shape) for shape in shapes]
        try:
            self._ask({"do": "convert", "shapes": shapes, "to": str(destination)})
        except TaskError as problem:
            raise UnsupportedModel(
                problem.found, expected=problem.expected, next_step=problem.next_step
            ) from problem
        return destination.read_bytes()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._process.kill()

        watchdog = threading.Timer(_TIMEOUTS_S[request["do"]], give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            line = stdout.readline(_LONGEST_REPLY)
        except BrokenPipeError:
            line = b""
        finally:
            watchdog.cancel()
        if not line.endswith(b"\n"):
            raise self._died(request["do"], timed_out=timed_out.is_set())
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise TaskError(f"{self._path} cannot be asked to {request['do']}: {reply['failed']}")
        if "refused" in reply:
            said = reply["refused"]
            raise TaskError(
                f"{self._path}: {said['found']}",
                expected=said["expected"] or None,
                next_step=said["next_step"] or None,
            )
        return reply

    def _died(self, what: str, *, timed_out: bool) -> TaskError | TargetUnavailable:
        self._process.kill()
        code = self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        if "ModuleNotFoundError" in last[0]:
            return TargetUnavailable(
                f"{self._python} has no TensorFlow: {last[0]}",
                expected=f"a Python that has {', '.join(ENVIRONMENT.requirements)}",
                next_step=f"leave {VARIABLE} out: an environment is then made in the cache",
            )
        if timed_out:
            how = f"did not answer within {_TIMEOUTS_S[what]:g} s"
        elif code < 0:
            how = f"crashed with {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code} ({last[0]})"
        return TaskError(f"TensorFlow {how} when it was asked to {what} {self._path}")


def _end(
    process: subprocess.Popen[bytes], said: IO[bytes], folder: tempfile.TemporaryDirectory[str]
) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, said):
        try:
            if stream is not None:
                stream.close()
        except BrokenPipeError:
            continue
    folder.cleanup()
