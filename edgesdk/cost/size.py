"""File size before there is a file: the weights, and what each format's container adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.figure import Figure, predicted
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Container:
    """Bytes a file holds beside weights and biases, and the factor that bounds the whole size.

    ``per_channel`` for quantization scales, zero points and padding to the runtime's alignment;
    ``per_weighted`` and ``per_other`` for each kernel's node, tensors and names, with weights and
    without; ``fixed`` for the file itself.
    """

    per_channel: float
    per_weighted: float
    per_other: float
    fixed: float
    error_factor: float


_CONTAINERS: Mapping[tuple[str, Scheme], Container] = {
    ("executorch", "fp32"): Container(
        per_channel=0.0, per_weighted=497, per_other=275, fixed=1926, error_factor=1.06
    ),
    ("executorch", "int8"): Container(
        per_channel=4.8, per_weighted=1142, per_other=537, fixed=2458, error_factor=1.15
    ),
    ("tflite", "fp32"): Container(
        per_channel=0.0, per_weighted=84, per_other=212, fixed=978, error_factor=1.04
    ),
    ("tflite", "fp16"): Container(
        per_channel=0.0, per_weighted=246, per_other=201, fixed=954, error_factor=1.06
    ),
    ("tflite", "int8"): Container(
        per_channel=24.3, per_weighted=385, per_other=220, fixed=557, error_factor=1.06
    ),
    ("coreml", "fp16"): Container(
        per_channel=3.6, per_weighted=1601, per_other=318, fixed=0, error_factor=1.1
    ),
    ("coreml", "int8"): Container(
        per_channel=2.1, per_weighted=2846, per_other=1302, fixed=741, error_factor=1.08
    ),
}
"""By target and scheme, from the files of 16 networks, 5 kB to 3 MB, that the targets in this
repository emit; ``error_factor`` holds nine in ten networks left out (benchmarks/footprint.py)."""

_UNKNOWN = Container(
    per_channel=16.0, per_weighted=1000.0, per_other=1000.0, fixed=2000.0, error_factor=1.5
)
"""For targets from elsewhere: an assumption, between the flatbuffers and Core ML's protobuf."""


def predict_size(graph: OpGraph, target_name: str, scheme: Scheme) -> Figure:
    """Return the predicted bytes of the file (or files) a target emits for the graph.

    Weights in the scheme's width, biases in float or (for int8) int32, batch norms folded, one
    bias per output channel, each weight once; on top what the container adds.
    """
    container = _CONTAINERS.get((target_name, scheme), _UNKNOWN)
    constants = (
        container.per_channel, container.per_weighted, container.per_other, container.fixed
    )  # fmt: skip
    added = sum(c * f for c, f in zip(constants, container_features(graph), strict=True))
    return predicted(
        stored_bytes(graph, scheme) + added,
        error_factor=container.error_factor,
        source=f"weights and the container of {target_name}",
    )


def stored_bytes(graph: OpGraph, scheme: Scheme) -> float:
    """Return the bytes of the graph's weights and biases in a scheme, shared weights once."""
    by_parameters = {kernel.op.parameters: kernel for kernel in fuse(graph)}
    return sum(weight_bytes(kernel, scheme) for kernel in by_parameters.values())


def container_features(graph: OpGraph) -> tuple[int, int, int, int]:
    """Return what a container's size grows with: channels, weighted kernels, others, one file."""
    kernels = fuse(graph)
    weighted = sum(1 for kernel in kernels if kernel.channels)
    channels = sum(kernel.channels for kernel in kernels)
    return channels, weighted, len(kernels) - weighted, 1
