"""Feed an artifact like a PyTorch model: split, permute and quantize in; the reverse out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgesdk.artifact import TensorSpec
from edgesdk.errors import TaskError
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.wire import Array
from edgesdk.target import Arrays
from edgesdk.task import Predict, Tensors


def artifact_predict(process: ArtifactProcess) -> Predict:
    """Return a ``Predict`` over a running artifact: PyTorch layout in and out, any batch size.

    The last batch is filled up with its own final sample and the surplus outputs are dropped.
    """
    emission = process.emission

    def predict(*inputs: Tensor) -> Tensor | Tensors:
        stacked, count = encode_inputs(inputs, emission.inputs)
        outputs = process.run(stacked)
        decoded = decode_outputs(outputs, emission.outputs, count)
        return decoded[0] if len(decoded) == 1 else decoded

    return predict


def encode_inputs(inputs: Sequence[Tensor], specs: Sequence[TensorSpec]) -> tuple[Arrays, int]:
    """Return the inputs as ``[M, B, ...]`` arrays in the file's layout and type, and N.

    ``inputs`` are ``[N, ...]`` in PyTorch layout; raises ``TaskError`` when count or shape differ
    from what the file takes.
    """
    if len(inputs) != len(specs):
        raise TaskError(f"predict was called with {len(inputs)} inputs, the model has {len(specs)}")
    if len({tuple(value.shape[:1]) for value in inputs}) != 1 or inputs[0].dim() == 0:
        raise TaskError(
            f"predict was called with the shapes {[list(value.shape) for value in inputs]}",
            expected="inputs that all have the same first dimension, the batch",
        )
    count = int(inputs[0].shape[0])
    return [_encode(value, spec) for value, spec in zip(inputs, specs, strict=True)], count


def _encode(value: Tensor, spec: TensorSpec) -> Array:
    array = value.detach().cpu().numpy()
    expected = _torch_shape(spec)
    if array.shape[1:] != expected[1:] or array.shape[0] == 0:
        raise TaskError(
            f"predict was given {spec.name!r} with shape {list(array.shape)}",
            expected=f"[N, {', '.join(str(size) for size in expected[1:])}] in PyTorch layout",
        )
    batch = spec.shape[0]
    missing = -len(array) % batch
    if missing:
        array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    array = np.transpose(array, spec.from_torch)
    array = quantize(array, spec) if spec.scale is not None else array.astype(spec.dtype)
    return np.ascontiguousarray(array.reshape(-1, batch, *array.shape[1:]))


def _torch_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return the spec's shape in PyTorch layout."""
    return tuple(spec.shape[axis] for axis in np.argsort(spec.from_torch))


def quantize(real: NDArray[np.floating], spec: TensorSpec) -> Array:
    """Return ``round(real / scale) + zero_point``, clipped to the file's integer type."""
    assert spec.scale is not None
    info = np.iinfo(spec.dtype)
    integers = np.rint(real / spec.scale) + (spec.zero_point or 0)
    clipped: Array = np.clip(integers, info.min, info.max).astype(spec.dtype)
    return clipped


def decode_outputs(outputs: Arrays, specs: Sequence[TensorSpec], count: int) -> Tensors:
    """Return ``[M, B, ...]`` file outputs as ``[N, ...]`` float tensors in PyTorch layout."""
    decoded = []
    for array, spec in zip(outputs, specs, strict=True):
        flat = array.reshape(-1, *array.shape[2:])[:count]
        if spec.scale is not None:
            flat = (flat.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale)
        restored = np.transpose(flat, np.argsort(spec.from_torch))
        decoded.append(torch.from_numpy(np.ascontiguousarray(restored)))
    return tuple(decoded)
