"""Arguments of Core ML's operations, each an operation of its own that gives a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from edgesdk.cost import mil_bytes as mil

# Bytes of a value for each spatial dimension ("sides": for both its ends) or for each of the
# result's dimensions ("rank"), of a number by itself, of a string.
_INT, _FLOAT, _BOOL = 1, 4, 1
_ARGUMENTS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    "conv": (
        ("pad_type", "string", 6), ("pad", "sides", _INT), ("strides", "spatial", _INT),
        ("dilations", "spatial", _INT), ("groups", "one", _INT),
    ),
    "conv_transpose": (
        ("pad_type", "string", 6), ("pad", "sides", _INT), ("strides", "spatial", _INT),
        ("dilations", "spatial", _INT), ("groups", "one", _INT), ("output_shape", "rank", _INT),
    ),
    "max_pool": (
        ("kernel_sizes", "spatial", _INT), ("strides", "spatial", _INT), ("pad_type", "string", 6),
        ("pad", "sides", _INT), ("ceil_mode", "one", _BOOL),
    ),
    "avg_pool": (
        ("kernel_sizes", "spatial", _INT), ("strides", "spatial", _INT), ("pad_type", "string", 6),
        ("pad", "sides", _INT), ("ceil_mode", "one", _BOOL),
        ("exclude_padding_from_average", "one", _BOOL),
    ),
    "cast": (("dtype", "string", 5),),
    "clip": (("alpha", "one", 2), ("beta", "one", 2)),
    "concat": (("axis", "one", _INT), ("interleave", "one", _BOOL)),
    "gather": (
        ("axis", "one", _INT), ("batch_dims", "one", _INT),
        ("validate_indices", "one", _BOOL),
    ),
    "gelu": (("mode", "string", 5),),
    "greater_equal": (("y", "one", _INT),),
    "leaky_relu": (("alpha", "one", _FLOAT),),
    "matmul": (("transpose_x", "one", _BOOL), ("transpose_y", "one", _BOOL)),
    "reduce_max": (("axes", "spatial", 10), ("keep_dims", "one", _BOOL)),
    "reduce_mean": (("axes", "spatial", 10), ("keep_dims", "one", _BOOL)),
    "reduce_sum": (("axes", "spatial", 10), ("keep_dims", "one", _BOOL)),
    "reshape": (("shape", "rank", _INT),),
    "sigmoid_hard": (("alpha", "one", _FLOAT), ("beta", "one", _FLOAT)),
    "slice_by_index": (
        ("begin", "rank", _INT), ("end", "rank", _INT), ("end_mask", "rank", _BOOL),
        ("squeeze_mask", "rank", _BOOL),
    ),
    "softmax": (("axis", "one", 10),),
    "split": (("split_sizes", "spatial", _INT), ("axis", "one", _INT)),
    "squeeze": (("axes", "one", _INT),),
    "thresholded_relu": (("alpha", "one", _FLOAT),),
    "transpose": (("perm", "rank", _INT),),
    "upsample_bilinear": (
        ("scale_factor_height", "one", _FLOAT), ("scale_factor_width", "one", _FLOAT),
        ("align_corners", "one", _BOOL),
    ),
    "upsample_nearest_neighbor": (
        ("scale_factor_height", "one", _FLOAT), ("scale_factor_width", "one", _FLOAT),
    ),
    "layer_norm": (("axes", "one", 10), ("epsilon", "one", 2)),
}  # fmt: skip


@lru_cache(maxsize=mil.CACHED)
def argument_bytes(kind: str, length: int, dimensions: int, rank: int) -> tuple[int, int]:
    """Return the bytes of an operation's arguments and the bytes of reading them.

    Arguments are constants, named after an operation whose own name has that ``length``; it slides
    over as many ``dimensions`` and its result has ``rank`` of them.
    """
    counts = {"spatial": dimensions, "sides": 2 * dimensions, "rank": rank}
    arguments: list[tuple[str, int, mil.Shape]] = []
    for argument, kind_of, width in _ARGUMENTS.get(kind, ()):
        count = counts.get(kind_of)
        size, shape = (width, ()) if count is None else (count * width, (count,))
        arguments.append((argument, mil.immediate(size, shape), shape))
    return _constants(length, arguments)


@lru_cache(maxsize=mil.CACHED)
def scale_bytes(kind: str, length: int, *, signed: bool) -> tuple[int, int]:
    """Return the bytes of the arguments of a quantize or dequantize, and of reading them: its
    scale, a zero point where values are signed, the type of what it makes."""
    arguments: list[tuple[str, int, mil.Shape]] = [("scale", mil.immediate(2), ())]
    if signed:
        arguments.append(("zero_point", mil.immediate(1), ()))
    if kind == "quantize":
        letters = len("int8" if signed else "uint8")
        arguments.append(("output_dtype", mil.immediate(letters), ()))
    return _constants(length, arguments)


def _constants(length: int, arguments: Sequence[tuple[str, int, mil.Shape]]) -> tuple[int, int]:
    constants = reads = 0
    for argument, value, shape in arguments:
        name = "_" * length + f"_{argument}"
        constants += mil.constant(name, value, shape)
        reads += mil.reads(argument, name)
    return constants, reads
