"""File size before there is a file: the weights, and all that each format lays around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgesdk.cost.coreml_size import coreml_bytes
from edgesdk.cost.executorch_size import executorch_bytes
from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.cost.onnx_size import onnx_bytes
from edgesdk.cost.tflite_size import tflite_bytes
from edgesdk.device import Runtime
from edgesdk.figure import Figure, predicted
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes, op_schemes
from edgesdk.scheme import CALIBRATED_SCHEMES, Scheme

_BYTES: Mapping[str, Callable[[OpGraph, Scheme, Mapping[str, Scheme]], float]] = {
    "executorch": executorch_bytes, "coreml": coreml_bytes, "onnx": onnx_bytes,
}  # fmt: skip

ERROR_SHARE = 0.03
LEAST_ERROR_BYTES: Mapping[str, float] = {
    "tflite": 500, "executorch": 2000, "coreml": 2000, "onnx": 1000,
}  # fmt: skip
"""Which networks of benchmarks/footprint.py size were never missed by more than, and then some: a
share of the file, of small files this many bytes."""

VELA_ERROR_FACTOR = 1.4
"""What Vela makes of an int8 ``.tflite``: weights encoded, operators as a command stream. Nine in
ten of 16 networks against their files (benchmarks/footprint.py vela)."""

_UNKNOWN_ADDED_BYTES = 1000.0  # by operator and by file
_UNKNOWN_ERROR_FACTOR = 1.5
"""For targets from elsewhere: an assumption, between the flatbuffers and Core ML's protobuf."""

_UNCHECKED_DELEGATES = frozenset({"vulkan", "coreml"})
_DELEGATE_FACTOR = 2.5
"""How far all but the weights may be off in ExecuTorch's files for these: an assumption that held
for the five small networks of tests/targets/executorch_nets.py."""
_AROUND_PACKAGE_BYTES = 2000.0  # what a .pte of such a network has beside Core ML's package


def predict_size(
    graph: OpGraph, target_name: str, scheme: Scheme, *, integer_io: bool = False,
    layer_schemes: LayerSchemes = MappingProxyType({}), vela: bool = False, delegate: str = "",
) -> Figure:  # fmt: skip
    """Return the predicted bytes of the file (or files) a target emits for the graph.

    Weights in the scheme's width, biases in float, int32 (int8) or int64 (w8a16), batch norms
    folded, one bias per output channel, each weight once, each aligned as the format aligns it;
    around them the tables, names and operators that the format holds, laid out as its schema says.

    ``layer_schemes`` names the layers in another scheme; those that their target cannot have in
    theirs count as what they get instead. ``integer_io``: the profile's, whether quantized files
    take and return integers; ``vela``: Vela compiles the file if it is quantized. ``delegate``: the
    profile's, for a target whose container is another for each of them.
    """
    formats = op_schemes(graph, target_name, scheme, layer_schemes)
    if target_name == "executorch" and delegate in _UNCHECKED_DELEGATES:
        return _unchecked(graph, scheme, formats, delegate)
    if target_name == "tflite":
        value = tflite_bytes(graph, scheme, integer_io=integer_io, formats=formats)
    elif target_name in _BYTES:
        value = _BYTES[target_name](graph, scheme, formats)
    else:
        added = _UNKNOWN_ADDED_BYTES * (1 + len(fuse(graph)))
        return predicted(
            stored_bytes(graph, scheme, formats) + added,
            error_factor=_UNKNOWN_ERROR_FACTOR,
            source="weights and an unknown container",
        )
    factor = 1 + max(ERROR_SHARE, LEAST_ERROR_BYTES[target_name] / value)
    source = f"weights and the layout of {target_name}"
    if vela and scheme in CALIBRATED_SCHEMES:
        factor, source = max(factor, VELA_ERROR_FACTOR), f"{source}, before Vela"
    return predicted(value, error_factor=factor, source=source)


def predict_file_size(
    graph: OpGraph, runtime: Runtime, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> Figure:  # fmt: skip
    """Return ``predict_size`` of the file for a runtime, with all that its profile says of it."""
    return predict_size(
        graph,
        runtime.target,
        scheme,
        integer_io=runtime.integer_io,
        layer_schemes=layer_schemes,
        vela=runtime.vela is not None,
        delegate=runtime.delegate,
    )


def _unchecked(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme], delegate: str
) -> Figure:
    """Return the bytes of an ExecuTorch file whose delegate's payload is not laid out here."""
    stored = stored_bytes(graph, scheme, formats)
    if delegate == "coreml":
        added = max(coreml_bytes(graph, scheme, formats) - stored, 0.0) + _AROUND_PACKAGE_BYTES
    else:
        added = _UNKNOWN_ADDED_BYTES * (1 + len(fuse(graph)))
    return predicted(
        stored + added,
        error_factor=1 + (_DELEGATE_FACTOR - 1) * added / (stored + added),
        source=f"weights, and a guess at what {delegate} adds",
    )


def stored_bytes(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({})
) -> float:
    """Return the bytes of the graph's weights and biases in a scheme, shared weights once."""
    by_parameters = {kernel.op.parameters: kernel for kernel in fuse(graph)}
    return sum(weight_bytes(k, formats.get(k.op.name, scheme)) for k in by_parameters.values())
