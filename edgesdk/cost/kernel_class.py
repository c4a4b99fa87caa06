"""Which class a kernel belongs to: kernels of a class cost alike for the same work."""

from __future__ import annotations

import math
from typing import get_args

from edgesdk.cost.fusion import CLAMPS, Kernel
from edgesdk.graph import Op, OpGraph
from edgesdk.precision_cost import KernelClass, KernelVariant

KERNEL_CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)
CLASS_INDEX = {name: index for index, name in enumerate(KERNEL_CLASSES)}
KERNEL_VARIANTS: tuple[KernelVariant, ...] = get_args(KernelVariant)
_CLAMP: KernelVariant = "relu"  # one that is not folded into what comes before it
_VARIANT_OF_KIND: dict[str, KernelVariant] = {
    **{name: name for name in KERNEL_VARIANTS},
    "adaptive_avg_pool2d": "mean",
    **dict.fromkeys(CLAMPS, _CLAMP),
}

_TAPS_OF_DEPTHWISE_KERNELS = 25  # XNNPACK has 3, 4, 9 and 25; others run as general convolutions
_IMAGE_CHANNELS = 4  # grey, RGB, RGB and depth: far fewer than any unit has lanes

_BY_KIND: dict[KernelClass, frozenset[str]] = {
    "linear": frozenset({"addmm", "linear"}),
    "matmul": frozenset({"bmm", "matmul", "mm", "scaled_dot_product_attention"}),
    "recurrent": frozenset({"gru", "lstm", "rnn_relu", "rnn_tanh"}),
    "norm": frozenset({"batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"}),
    "softmax": frozenset({"log_softmax", "softmax"}),
    "pool": frozenset(
        {
            "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
            "adaptive_max_pool2d", "amax", "argmax", "avg_pool1d", "avg_pool2d", "max",
            "max_pool1d", "max_pool2d", "mean", "sum", "upsample_bilinear2d", "upsample_nearest2d",
        }
    ),
    "cat": frozenset({"cat", "stack"}),
    "movement": frozenset(
        {
            "chunk", "constant_pad_nd", "embedding", "flip", "gather", "index", "index_select",
            "masked_fill", "pad", "permute", "pixel_shuffle", "repeat", "roll", "select", "slice",
            "split", "split_with_sizes", "t", "to", "transpose", "unbind", "where",
        }
    ),
    "elementwise": frozenset(
        {
            "abs", "add", "and", "clamp", "cos", "div", "elu", "eq", "exp", "ge", "gelu", "gt",
            "hardsigmoid", "hardswish", "hardtanh", "le", "leaky_relu", "log", "lt", "maximum",
            "minimum", "mish", "mul", "ne", "neg", "pow", "prelu", "relu", "relu6", "rsqrt",
            "rsub", "sigmoid", "silu", "sin", "softplus", "sqrt", "sub", "tanh",
        }
    ),
}  # fmt: skip
_CLASS_OF_KIND = {kind: name for name, kinds in _BY_KIND.items() for kind in kinds}


def kernel_class(kernel: Kernel, graph: OpGraph) -> KernelClass | None:
    """Return the class of a kernel, or None for an operator that the cost model does not know."""
    if "conv" in kernel.op.kind and "groups" in kernel.op.attributes:
        return _convolution_class(kernel.op, graph)
    if kernel.op.kind.startswith("conv"):
        return "conv"
    return _CLASS_OF_KIND.get(kernel.op.kind)


def kernel_variant(kernel: Kernel, graph: OpGraph) -> KernelVariant | None:
    """Return the variant of its class that a kernel is, None for most."""
    if kernel_class(kernel, graph) == "depthwise":
        return "wide_depthwise" if taps(kernel.op, graph) > _TAPS_OF_DEPTHWISE_KERNELS else None
    return _VARIANT_OF_KIND.get(kernel.op.kind)


def class_of_variant(variant: KernelVariant) -> KernelClass:
    """Return the class whose coefficients a variant has where it states none of its own."""
    return "depthwise" if variant == "wide_depthwise" else _CLASS_OF_KIND[variant]


def taps(op: Op, graph: OpGraph) -> int:
    """Return the positions of a convolution's kernel; 1 for any other operator."""
    if "conv" not in op.kind or not op.parameters:
        return 1
    return math.prod(graph.tensors[op.parameters[0]].shape[2:])


def _convolution_class(op: Op, graph: OpGraph) -> KernelClass:
    channels = graph.tensors[op.inputs[0]].shape[1]
    groups = op.attributes["groups"]
    spatial = graph.tensors[op.outputs[0]].shape[2:]
    if groups == channels and channels > 1:
        return "depthwise"
    if isinstance(groups, int) and groups > 1:
        return "grouped"
    if len(spatial) == 3:
        return "conv3d"
    if channels <= _IMAGE_CHANNELS:
        return "first_conv"
    return "gate_conv" if math.prod(spatial) == 1 else "conv"
