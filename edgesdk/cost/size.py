"""File size before there is a file: the weights, and what each format's container adds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgesdk.cost.container import Counts, container_counts
from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.figure import Figure, predicted
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes, op_schemes
from edgesdk.scheme import SCHEMES, Scheme

_TFLITE: Counts = {"file": 830.3, "tensor": 42.4, "constant": 47.4, "quantized tensor": 18.5}

_XNNPACK: Counts = {
    "file": 1992.0, "piece": 566.9, "convolution": 751.0, "linear": 148.4,
    "other node": 144.7, "portable operator": 436.3,
    "dynamic convolution": 381.2, "dynamic linear": 653.0,
}  # fmt: skip
_COREML_NARROW: Counts = {
    "file": 1100.3, "convolution": 1505.4, "linear": 725.7, "other node": 218.8,
}  # fmt: skip

CONTAINER_BYTES: Mapping[tuple[str, Scheme], Counts] = {
    **{("tflite", scheme): _TFLITE for scheme in SCHEMES},
    ("executorch", "fp32"): _XNNPACK,
    ("executorch", "int8_dynamic"): _XNNPACK,
    ("executorch", "int4_dynamic"): _XNNPACK,
    ("executorch", "int8"): {
        "file": 912.2, "piece": 1305.2, "convolution": 1344.1, "linear": 1086.9,
        "other node": 220.5, "portable operator": 0.0, "conversion": 105.8, "channel": 3.3,
    },
    ("coreml", "fp16"): {
        "file": 1037.8, "convolution": 1343.3, "linear": 967.6, "other node": 248.4,
    },
    ("coreml", "w8"): _COREML_NARROW,
    ("coreml", "w4"): _COREML_NARROW,
    ("coreml", "int8"): {
        "file": 1488.0, "convolution": 1012.8, "linear": 179.6, "other node": 386.0,
        "conversion": 502.4, "channel": 4.8,
    },
}  # fmt: skip
"""Bytes of each thing that ``container_counts`` counts, by target and scheme: non-negative least
squares over the files of 16 networks, 5 kB to 3 MB, that the targets in this repository emit
(``benchmarks/footprint.py size`` prints them and the errors on networks left out). One set serves
all schemes of ``.tflite``, whose layout is known best. What a layer with run-time ranges adds to a
``.pte`` was fitted alone, to files of those networks in both dynamic schemes."""

ERROR_SHARE: Mapping[str, float] = {"tflite": 0.03, "executorch": 0.05, "coreml": 0.08}
"""The share by which nine in ten networks left out are missed at most, and then some."""
LEAST_ERROR_BYTES: Mapping[str, float] = {"tflite": 500, "executorch": 2000, "coreml": 2000}

VELA_ERROR_FACTOR = 1.4
"""What Vela makes of an int8 ``.tflite``: weights encoded, operators as a command stream. Nine in
ten of 16 networks against their files (benchmarks/footprint.py vela)."""

_UNKNOWN_ADDED_BYTES = 1000.0  # by operator and by file
_UNKNOWN_ERROR_FACTOR = 1.5
"""For targets from elsewhere: an assumption, between the flatbuffers and Core ML's protobuf."""


def predict_size(
    graph: OpGraph, target_name: str, scheme: Scheme, *, integer_io: bool = False,
    layer_schemes: LayerSchemes = MappingProxyType({}), vela: bool = False,
) -> Figure:  # fmt: skip
    """Return the predicted bytes of the file (or files) a target emits for the graph.

    Weights in the scheme's width, biases in float or (for int8) int32, batch norms folded, one
    bias per output channel, each weight once, each aligned as the format aligns it; on top what the
    container adds. ``layer_schemes`` names the layers in another scheme; those that their target
    cannot have in theirs count as what they get instead. ``integer_io``: the profile's, whether
    int8 files take and return int8; ``vela``: Vela compiles the file if it is int8.
    """
    formats = op_schemes(graph, target_name, scheme, layer_schemes)
    counted = container_counts(graph, target_name, scheme, integer_io=integer_io, formats=formats)
    bytes_of = CONTAINER_BYTES.get((target_name, scheme))
    if counted is None or bytes_of is None:
        added = _UNKNOWN_ADDED_BYTES * (1 + len(fuse(graph)))
        return predicted(
            stored_bytes(graph, scheme, formats) + added,
            error_factor=_UNKNOWN_ERROR_FACTOR,
            source="weights and an unknown container",
        )
    known, counts = counted
    value = known + sum(bytes_of[name] * count for name, count in counts.items() if count)
    factor = 1 + max(ERROR_SHARE[target_name], LEAST_ERROR_BYTES[target_name] / value)
    source = f"weights and the container of {target_name}"
    if vela and scheme == "int8":
        factor, source = max(factor, VELA_ERROR_FACTOR), f"{source}, before Vela"
    return predicted(value, error_factor=factor, source=source)


def stored_bytes(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({})
) -> float:
    """Return the bytes of the graph's weights and biases in a scheme, shared weights once."""
    by_parameters = {kernel.op.parameters: kernel for kernel in fuse(graph)}
    return sum(weight_bytes(k, formats.get(k.op.name, scheme)) for k in by_parameters.values())
