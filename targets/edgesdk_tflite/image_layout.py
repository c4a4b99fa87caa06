"""Which tensors of a file are images [N, H, W, C], and not merely of four dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk_tflite.flatbuffer import FileOperator, FileTensor
from edgesdk_tflite.kinds import WINDOWED

_OF_IMAGES = WINDOWED | {
    "BATCH_TO_SPACE_ND", "DEPTH_TO_SPACE", "LOCAL_RESPONSE_NORMALIZATION", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH",
}  # fmt: skip
# What they write has other axes than what they read.
_OF_AXES = frozenset(
    {
        "BATCH_MATMUL", "CUSTOM", "EXPAND_DIMS", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "PACK",
        "RESHAPE", "SQUEEZE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip


def find_images(operators: Sequence[FileOperator]) -> frozenset[int]:
    """Return the indices of the activations that are images.

    A convolution, pooling or resizing reads and writes images; every operator that keeps the axes
    in their places (a sum, a concatenation, a QUANTIZE) makes an image of an image, either way.
    """
    group_of: dict[int, int] = {}

    def root(index: int) -> int:
        while group_of.setdefault(index, index) != index:
            group_of[index] = group_of[group_of[index]]
            index = group_of[index]
        return index

    found: set[int] = set()
    for op in operators:
        indices = [tensor.index for tensor in op.activations if _could_be(tensor)]
        if op.name in _OF_IMAGES:
            found.update(indices)
        if op.name not in _OF_AXES:
            for index in indices[1:]:
                group_of[root(index)] = root(indices[0])
    roots = {root(index) for index in found}
    return frozenset(index for index in group_of if root(index) in roots) | found


def _could_be(tensor: FileTensor) -> bool:
    return len(tensor.shape) == 4
