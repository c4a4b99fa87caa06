"""A loaded ``.onnx`` in ONNX Runtime on the CPU, which is not TensorRT."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgesdk.artifact import inside
from edgesdk.errors import ArtifactError
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission, Session, installed_version

_ERRORS_ONLY = 3

# ONNX Runtime 1.31 folds zeros padded around a tensor into the max pooling behind it, which pads
# with minus infinity: wrong wherever a whole window is negative.
_WRONG_OPTIMIZERS = ["Pad_Fusion"]


class OnnxRuntimeSession:
    """A file that ONNX Runtime computes on the CPU; its clock says nothing about a Jetson."""

    def __init__(self, session: Any, identity: RuntimeIdentity) -> None:
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self.identity = identity

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one inference at the file's batch."""
        return list(self._session.run(None, dict(zip(self._inputs, inputs, strict=True))))

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return a function that runs one inference on these inputs."""
        feed = dict(zip(self._inputs, inputs, strict=True))
        return partial(self._session.run, None, feed)

    def memory_bytes(self) -> int | None:
        """Return None: what ONNX Runtime takes here is not what TensorRT takes."""
        return None


def open_session(folder: Path, emission: Emission, threads: int) -> Session:
    """Return the first file of the emission, loaded; ``ArtifactError`` where it is refused.

    Quantize and dequantize nodes are computed as they stand, not fused with their neighbours:
    what comes out is what the file says, on every processor.
    """
    path = inside(folder, emission.files[0])
    try:
        session = create_session(path.read_bytes(), threads=threads, fuse=False)
    except Exception as problem:  # ONNX Runtime's own errors have no common base class
        raise ArtifactError(f"ONNX Runtime cannot load {path.name}: {problem}") from problem
    identity = RuntimeIdentity(
        runtime="onnxruntime",
        version=installed_version("onnxruntime") or "unknown",
        platform=f"{sys.platform}-{platform.machine()}",
        unit="cpu",
        threads=threads,
    )
    return OnnxRuntimeSession(session, identity)


def create_session(proto_bytes: bytes, *, threads: int, fuse: bool) -> Any:
    """Return an ``InferenceSession`` of a serialised model on this machine's CPU.

    ``fuse``: whether quantize and dequantize nodes may become integer kernels.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse else "1")
    return onnxruntime.InferenceSession(
        proto_bytes,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_WRONG_OPTIMIZERS,
    )
